"""The typed client: requests with a deadline and exactly one answer, streams of frames, events that are stored."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bus import call
from bus.asking import Asking, failure_of
from bus.wire import FAST_RECONNECT_S, RECONNECT_S, Msg, Subscription, Wire, status_of
from schemas.errors import Failure
from schemas.message import Event, Message, Request, Streamed

R = TypeVar("R", bound=Message)
C = TypeVar("C", bound=Message)

log = logging.getLogger("vx11.client")

CRASH_GRACE_S = 0.06
"""The host's report of an exit may overtake the last answers of the instance."""
UNKNOWN_ACTOR_AFTER = 6
"""So often nobody listened (about 0.6 s) before madre is asked whether the actor exists at all."""
PUBLISH_S = 10.0
PUBLISH_TRY_S = 2.5
EXITED = "vx11.events.power.exited.*"
MADRE_STARTED = "vx11.events.madre.started"


@dataclass(slots=True, frozen=True)
class Answer:
    """A good answer as it travelled: `body` is one JSON document."""

    body: bytes
    headers: Mapping[str, str]


class Bus:
    """One connection's client. Made by `Bus.connect`, which also closes it."""

    def __init__(self, wire: Wire, *, name: str) -> None:
        self.wire = wire
        self.name = name
        """The actor that sends, or empty: becomes `vx11-caller` and a part of `vx11-path`."""
        self._asked: dict[str, tuple[Asking, Callable[[Msg | Failure], None]]] = {}

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        *,
        user: str,
        seed: Path | None,
        name: str,
        actor: str = "",
        fast: bool = False,
        buffered: bool = True,
    ) -> AsyncIterator[Bus]:
        """Open a connection as `user`. `fast`: reconnects after 0.05 s instead of 0.25 s."""
        wire = Wire()
        pause = FAST_RECONNECT_S if fast else RECONNECT_S
        await wire.open(url, user=user, seed=seed, name=name, reconnect_s=pause, buffered=buffered)
        try:
            yield await cls(wire, name=actor).start()
        finally:
            await wire.aclose()

    async def start(self) -> Bus:
        """Listen for what ends the wait for an answer: exits, a new madre, a reconnect."""
        await self.wire.hear(EXITED, self._heard_exit)
        await self.wire.hear(MADRE_STARTED, self._heard_madre)
        self.wire.on_reconnect.append(lambda: self._ask_again(lambda _: True, crash=False))
        return self

    @property
    def connected(self) -> bool:
        return bool(self.wire.is_connected)

    async def request(
        self,
        message: Request[R],
        *,
        timeout: float | None = None,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> R:
        """Ask and wait for the reply. Raises Failure: whatever went wrong, before `timeout` seconds have passed."""
        kind = type(message)
        answer = await self.ask(
            kind.subject,
            message.model_dump_json(by_alias=True).encode(),
            timeout=kind.timeout if timeout is None else timeout,
            idempotent=kind.idempotent,
            request_id=request_id,
            headers=_with_passive(kind, headers),
        )
        reply: R = kind.reply_type().model_validate_json(answer.body)  # type: ignore[assignment]
        return reply

    async def stream(
        self,
        message: Streamed[C, R],
        *,
        timeout: float | None = None,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[C | R, None]:
        """The chunks as they come, and the whole reply as the last item. Raises Failure, also in the middle."""
        kind = type(message)
        frames = self.ask_stream(
            kind.subject,
            message.model_dump_json(by_alias=True).encode(),
            timeout=kind.timeout if timeout is None else timeout,
            request_id=request_id,
            headers=_with_passive(kind, headers),
        )
        async with aclosing(frames):
            async for frame in frames:
                last = call.END in frame.headers or call.SEQ not in frame.headers
                made = kind.reply_type() if last else kind.chunk_type()
                yield made.model_validate_json(frame.body)  # type: ignore[misc]

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
        """The untyped request. Raises Failure; `timeout` in seconds, shortened to the deadline of the call one is in."""
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def heard(msg: Msg | Failure) -> None:
            if done.done():
                return
            failure = msg if isinstance(msg, Failure) else failure_of(msg.headers or {}, msg.data)
            if failure:
                done.set_exception(failure)
            elif isinstance(msg, Msg):
                done.set_result(Answer(msg.data, msg.headers or {}))

        token, asking = self._open(subject, body, timeout, idempotent, request_id, headers, heard)
        try:
            async with asyncio.timeout(max(0.0, asking.deadline - time.time())):
                return await done
        except TimeoutError:
            raise _late(asking) from None
        finally:
            self._settle(token)

    async def ask_stream(
        self,
        subject: str,
        body: bytes,
        *,
        timeout: float,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Answer, None]:
        """Frames with the header `vx11-seq`, the last one with `vx11-end: ok`; one frame without both when nothing streamed.

        Raises Failure("crashed") when a frame is missing or the instance dies in the middle.
        """
        frames: asyncio.Queue[Msg | Failure] = asyncio.Queue()
        token, asking = self._open(
            subject, body, timeout, False, request_id, {**(headers or {}), call.STREAM: "1"}, frames.put_nowait
        )
        asking.streams = True
        try:
            async with asyncio.timeout(max(0.0, asking.deadline - time.time())) as clock:
                while True:
                    frame = await frames.get()
                    answer = _frame(asking, frame)
                    ended = call.END in answer.headers or call.SEQ not in answer.headers
                    clock.reschedule(None)  # the reader's own time between two frames is not ours to count
                    yield answer
                    if ended:
                        return
                    clock.reschedule(asyncio.get_running_loop().time() + max(0.0, asking.deadline - time.time()))
        except TimeoutError:
            raise _late(asking) from None
        finally:
            self._settle(token)

    async def publish(self, event: Event, *, message_id: str = "") -> int:
        """Store an event; returns its sequence once it is on disk. Raises Failure("unavailable" | "storage_full")."""
        return await self.publish_raw(event.subject, event.model_dump_json(by_alias=True).encode(), message_id=message_id)

    async def publish_raw(
        self, subject: str, body: bytes, *, message_id: str = "", headers: Mapping[str, str] | None = None
    ) -> int:
        """Store a message; tried again with the same id, which the stream keeps once, for PUBLISH_S seconds."""
        made = {**self._inherited(), **(headers or {}), "Nats-Msg-Id": message_id or call.new_request_id()}
        end = time.monotonic() + PUBLISH_S
        while True:
            try:
                return int((await self.api(subject, body, timeout=PUBLISH_TRY_S, headers=made))["seq"])
            except Failure as failure:
                if failure.code not in ("timeout", "unavailable") or time.monotonic() > end:
                    raise
                await asyncio.sleep(0.1)

    def tell(self, event: Event, *, subject: str = "", message_id: str = "") -> None:
        """Publish and forget: heard by whoever listens, stored if the stream takes it."""
        headers = self._inherited()
        if message_id:
            headers["Nats-Msg-Id"] = message_id
        self.wire.send(subject or event.subject, event.model_dump_json(by_alias=True).encode(), headers=headers)

    async def listen(self, subject: str, heard: Callable[[Msg], None], *, queue: str = "") -> Subscription:
        return await self.wire.hear(subject, heard, queue=queue)

    async def api(
        self, subject: str, body: bytes = b"", *, timeout: float = 5.0, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """One request to JetStream; its error becomes a Failure: `storage_full`, `not_found`, `conflict`, else `unavailable`."""
        msg = await self.raw(subject, body, timeout=timeout, headers=headers)
        if status_of(msg) == "503":
            raise Failure("unavailable", f"no stream takes {subject}")
        document: dict[str, Any] = json.loads(msg.data)
        if error := document.get("error"):
            raise jetstream_failure(error)
        return document

    async def raw(self, subject: str, body: bytes = b"", *, timeout: float, headers: Mapping[str, str] | None = None) -> Msg:
        """One request, the first message that comes back, whatever it is. Raises Failure("timeout" | "unavailable")."""
        done: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        token, reply = self.wire.await_answer(lambda msg: None if done.done() else done.set_result(msg))
        try:
            self.wire.send(subject, body, reply=reply, headers=headers)
            async with asyncio.timeout(timeout):
                return await done
        except TimeoutError:
            raise Failure("timeout", f"no answer on {subject} in {timeout:g} s") from None
        finally:
            self.wire.forget_answer(token)

    def _inherited(self) -> dict[str, str]:
        circumstances = call.current.get()
        if circumstances is None:
            circumstances = call.call_from(None)
        headers = circumstances.headers(through=self.name)
        if self.name:
            headers[call.CALLER] = self.name
        return headers

    def _open(
        self,
        subject: str,
        body: bytes,
        timeout: float,
        idempotent: bool,
        request_id: str,
        headers: Mapping[str, str] | None,
        heard: Callable[[Msg | Failure], None],
    ) -> tuple[str, Asking]:
        now = time.time()
        inside = call.current.get()
        deadline = now + timeout
        if inside and inside.deadline:
            deadline = min(deadline, inside.deadline)
        made = self._inherited()
        made[call.REQUEST_ID] = request_id or call.new_request_id()
        made[call.DEADLINE] = str(int(deadline * 1000))
        if headers:
            made.update(headers)
        asking = Asking(subject, body, made, idempotent, deadline, now)
        token, reply = self.wire.await_answer(lambda msg: self._heard(token, msg))
        self._asked[token] = (asking, heard)
        try:
            self.wire.send(subject, body, reply=reply, headers=made)
        except Failure:
            self._settle(token)
            raise
        return token, asking

    def _settle(self, token: str) -> None:
        self.wire.forget_answer(token)
        self._asked.pop(token, None)

    def _heard(self, token: str, msg: Msg) -> None:
        if (entry := self._asked.get(token)) is None:
            return
        asking, heard = entry
        if status_of(msg) != "503":
            heard(msg)
            return
        pause = asking.nobody_listens(time.time())
        if asking.nobody % UNKNOWN_ACTOR_AFTER == 0:
            asyncio.get_running_loop().create_task(self._check_exists(token, asking.actor))
        asyncio.get_running_loop().call_later(pause, self._send_again, token)

    async def _check_exists(self, token: str, actor: str) -> None:
        """Nobody listens for long: an actor that madre does not know never will."""
        try:
            msg = await self.raw(
                "vx11.madre.get_actor", json.dumps({"name": actor}).encode(), timeout=1.0, headers={call.PASSIVE: "1"}
            )
        except Failure:
            return
        failure = failure_of(msg.headers or {}, msg.data)
        if failure and failure.code == "not_found" and (entry := self._asked.get(token)):
            entry[1](Failure("not_found", failure.message, **failure.details))

    def _send_again(self, token: str) -> None:
        if (entry := self._asked.get(token)) is None:
            return
        asking, heard = entry
        asking.out = True
        try:
            self.wire.send(asking.subject, asking.body, reply=f"{self.wire.inbox}.{token}", headers=asking.headers)
        except Failure as failure:
            if failure.code != "unavailable":
                heard(failure)  # without a connection the reconnect asks again

    def _heard_exit(self, msg: Msg) -> None:
        try:
            exit_ = json.loads(msg.data)
        except ValueError:
            return
        if exit_.get("clean"):
            return
        actor, before = exit_.get("actor"), time.time()
        self._later(lambda asking: asking.actor == actor and asking.sent_at <= before, crash=True)

    def _heard_madre(self, _: Msg) -> None:
        before = time.time()
        self._later(lambda asking: asking.sent_at <= before, crash=False)

    def _later(self, concerns: Callable[[Asking], bool], *, crash: bool) -> None:
        if self._asked:
            asyncio.get_running_loop().call_later(CRASH_GRACE_S, lambda: self._ask_again(concerns, crash=crash))

    def _ask_again(self, concerns: Callable[[Asking], bool], *, crash: bool) -> None:
        for token, (asking, heard) in list(self._asked.items()):
            if not asking.out or not concerns(asking):
                continue  # what nobody has is sent again plainly, in its time
            if not crash and asking.chunks:
                continue  # frames are numbered: a gap will show itself
            if failure := asking.lost_sight(crash=crash):
                heard(failure)
            else:
                self._send_again(token)


def _with_passive(kind: type[Request[Any]], headers: Mapping[str, str] | None) -> Mapping[str, str] | None:
    return {call.PASSIVE: "1", **(headers or {})} if kind.passive else headers


def _frame(asking: Asking, frame: Msg | Failure) -> Answer:
    if isinstance(frame, Failure):
        raise frame
    headers = frame.headers or {}
    if failure := failure_of(headers, frame.data):
        raise failure
    if call.SEQ in headers:
        if call.milliseconds(headers[call.SEQ]) != asking.chunks:
            raise Failure("crashed", f"the answer of {asking.actor} lost pieces after the first {asking.chunks}")
        asking.chunks += 1
    return Answer(frame.data, headers)


def _late(asking: Asking) -> Failure:
    if asking.nobody:
        return Failure("unavailable", f"nobody answers on {asking.subject}; is VX11 up, and is the name right?")
    return Failure("timeout", f"no answer on {asking.subject} before the deadline")


def jetstream_failure(error: Mapping[str, Any]) -> Failure:
    """JetStream's error as one of ours."""
    code, text = int(error.get("err_code", 0)), str(error.get("description", "JetStream error"))
    if code in (10071, 10164):
        return Failure("conflict", text, err_code=code)
    if int(error.get("code", 0)) == 404:
        return Failure("not_found", text, err_code=code)
    full = code in (10023, 10047, 10077) or "maximum" in text or "insufficient" in text or "no space" in text
    return Failure("storage_full" if full else "unavailable", text, err_code=code)
