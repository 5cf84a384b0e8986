"""A bus, a log and a raw client for trying the gateway: what is asked is remembered, what is answered is scripted."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bus import call as calls
from bus.client import Answer
from bus.eventlog import Stored
from schemas.card import Card, Heard, Verb
from schemas.errors import Failure
from schemas.madre import ActorDetail, ActorList, ActorStatus, GetActor, Window
from schemas.message import Message, Request

NOW = "2026-01-02T03:04:05.678Z"
LIST = "vx11.madre.list_actors"
CARD = "vx11.madre.get_actor"
OPERATOR = "vx11.operator_backend.chat"
MADRE = "vx11.madre.chat"


@dataclass
class Asked:
    """One message that the gateway sent."""

    subject: str
    body: Any
    headers: Mapping[str, str]
    request_id: str
    timeout: float | None
    idempotent: bool = False


Script = Callable[[Asked], Any]


@dataclass
class ScriptedBus:
    """Answers by subject: a message, bytes, a Failure to raise, a list of frames, or a function of what was asked."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    published: list[tuple[str, bytes, str, Mapping[str, str]]] = field(default_factory=list)
    connected: bool = True
    wake_ms: int = 0
    closed_streams: int = 0

    def of(self, subject: str) -> list[Asked]:
        return [one for one in self.asked if one.subject == subject]

    async def request(
        self,
        message: Request[Any],
        *,
        timeout: float | None = None,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        kind = type(message)
        passive = {calls.PASSIVE: "1"} if kind.passive else {}
        body = message.model_dump_json(by_alias=True).encode()
        answer = await self.ask(
            kind.subject,
            body,
            timeout=timeout or kind.timeout,
            request_id=request_id,
            headers=passive | dict(headers or {}),
        )
        return kind.reply_type().model_validate_json(answer.body)

    async def ask(
        self,
        subject: str,
        body: bytes,
        *,
        timeout: float,
        idempotent: bool = False,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        said = await self._said(subject, body, timeout, idempotent, request_id, headers)
        return Answer(_bytes(said), {calls.WAKE_MS: str(self.wake_ms)})

    async def ask_stream(
        self,
        subject: str,
        body: bytes,
        *,
        timeout: float,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Answer]:
        told = await self._said(subject, body, timeout, False, request_id, headers)
        said = told if isinstance(told, list) else [told]
        try:
            for number, frame in enumerate(said):
                if isinstance(frame, asyncio.Event):
                    await frame.wait()
                    continue
                if isinstance(frame, Failure):
                    raise frame
                last = {calls.END: "ok"} if number == len(said) - 1 else {}
                yield Answer(_bytes(frame), {calls.SEQ: str(number), calls.WAKE_MS: str(self.wake_ms), **last})
        finally:
            self.closed_streams += 1

    async def publish_raw(
        self, subject: str, body: bytes, *, message_id: str = "", headers: Mapping[str, str] | None = None
    ) -> int:
        self.published.append((subject, body, message_id, dict(headers or {})))
        if isinstance(fault := self.answers.get(subject), Failure):
            raise fault
        return len(self.published)

    async def _said(
        self,
        subject: str,
        body: bytes,
        timeout: float,
        idempotent: bool,
        request_id: str,
        headers: Mapping[str, str] | None,
    ) -> Any:
        inside = calls.current.get()
        inherited = inside.headers() if inside else {}
        asked = Asked(subject, json.loads(body), {**inherited, **(headers or {})}, request_id, timeout, idempotent)
        self.asked.append(asked)
        said = self.answers.get(subject, Failure("unavailable", f"nobody answers on {subject}"))
        if callable(said):
            said = said(asked)
        if isinstance(said, asyncio.Event):
            await said.wait()
            said = b"{}"
        if asyncio.iscoroutine(said):
            said = await said
        if isinstance(said, Failure):
            raise said
        return said


class ScriptedLog:
    """Events in memory, numbered from 1."""

    def __init__(self) -> None:
        self.stored: list[Stored] = []
        self.trimmed = 0
        """How many of the oldest are not there any more."""
        self.fault: Failure | None = None
        self._news = asyncio.Condition()
        self.followers = 0

    def add(
        self, subject: str, body: Any, *, at: float = 0.0, correlation_id: str = "", headers: Mapping[str, str] | None = None
    ) -> Stored:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {**(headers or {}), **({calls.CORRELATION: correlation_id} if correlation_id else {})}
        made = Stored(len(self.stored) + 1, subject, at, headers, data)
        self.stored.append(made)
        return made

    async def tell(self, subject: str, body: Any, **more: Any) -> Stored:
        made = self.add(subject, body, **more)
        async with self._news:
            self._news.notify_all()
        return made

    async def bounds(self) -> tuple[int, int]:
        if self.fault:
            raise self.fault
        return self.trimmed + 1, len(self.stored)

    async def read(self, after: int, limit: int) -> list[Any]:
        if self.fault:
            raise self.fault
        after = max(after, self.trimmed)
        return list(self.stored[after : after + limit])

    async def follow(self, after: int) -> AsyncIterator[Any]:
        self.followers += 1
        try:
            while True:
                while after < len(self.stored):
                    after = max(after, self.trimmed) + 1
                    yield self.stored[after - 1]
                async with self._news:
                    while after >= len(self.stored):
                        await self._news.wait()
        finally:
            self.followers -= 1


class Raw:
    """A socket that sends exactly the bytes it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def open(cls, port: int, data: bytes = b"") -> AsyncIterator[Raw]:
        made = cls(*await asyncio.open_connection("127.0.0.1", port))
        try:
            await made.send(data)
            yield made
        finally:
            made.writer.transport.abort()
            with contextlib.suppress(ConnectionError):  # the gateway may have been faster
                await made.writer.wait_closed()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def rest(self, seconds: float = 5.0) -> bytes:
        """All that comes until the other side closes."""
        async with asyncio.timeout(seconds):
            return await self.reader.read()

    async def head(self, seconds: float = 5.0) -> bytes:
        async with asyncio.timeout(seconds):
            return await self.reader.readuntil(b"\r\n\r\n")


def actor(name: str, state: str = "dormant", **more: Any) -> ActorStatus:
    return ActorStatus(name=name, state=state, observed_at=NOW, **more)  # type: ignore[arg-type]


def listed(*actors: ActorStatus, policy: str = "solo_madre", mode: str = "solo_madre", windows: Any = ()) -> ActorList:
    return ActorList(actors=list(actors), policy=policy, mode=mode, windows=list(windows))  # type: ignore[arg-type]


def window(*services: str) -> Window:
    return Window(window_id="w-1", services=list(services), ttl_sec=60, ttl_remaining_sec=59.5, created_at=NOW, deadline=NOW)


def card_of(name: str, *requests: type[Request[Any]], heard: Mapping[str, dict[str, Any]] | None = None, **more: Any) -> Card:
    """A card as a host would publish it."""
    verbs = [
        Verb(
            name=kind.verb_name(),
            subject=kind.subject,
            timeout=kind.timeout,
            idempotent=kind.idempotent,
            scope=kind.scope,
            passive=kind.passive,
            request=kind.model_json_schema(),
            reply=kind.reply_type().model_json_schema(),
            chunk={} if hasattr(kind, "chunk_type") else None,
        )
        for kind in requests
    ]
    events = [Heard(subject=subject, schema_=schema) for subject, schema in (heard or {}).items()]
    return Card(name=name, summary=f"{name} of the tests", verbs=verbs, events=events, **more)


def cards(*known: Card) -> Script:
    """What madre answers when she is asked for one actor."""

    def said(asked: Asked) -> ActorDetail | Failure:
        name = GetActor.model_validate(asked.body).name
        card = next((card for card in known if card.name == name), None)
        return ActorDetail(status=actor(name), card=card) if card else Failure("not_found", f"there is no actor {name}")

    return said


def _bytes(said: Any) -> bytes:
    if isinstance(said, Message):
        return said.model_dump_json(by_alias=True).encode()
    return said if isinstance(said, bytes) else json.dumps(said).encode()
