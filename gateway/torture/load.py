"""The load: requests at a steady rate, as a stock client, as the typed client and by HTTP, written down as they begin and end."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from bus import call
from bus.asking import failure_of
from bus.client import Bus
from bus.wire import Msg, Wire, status_of
from gateway.torture.history import HASTY, HTTP, KINDS, LOST, NOBODY, OK, SILENCE, Journal, outcome_op
from gateway.torture.system import System
from schemas.errors import Failure

PLAIN_S = 5.0
"""The stock CLI's patience."""
TYPED_S = 20.0
HASTY_S = 0.3
LINGER_S = 1.0
"""After the last answer, so that second ones are seen."""
NOBODY_AGAIN_S = 0.01
WATCHED_S = 30.0
"""How long the inbox of a stock client is watched for a second answer; later ones are counted as strays."""
TURN_S = 0.001
PIECES = 3
ECHO, ECHO_AGAIN = "vx11.echo.echo", "vx11.echo.echo_again"
MOST_TEXT = 64
"""Of a code that is none of ours, in the journal."""


@dataclass
class Doors:
    """The three ways in. `nobody_again`: the stock client asks again when nobody listens; without faults nobody has to."""

    bus: Bus
    plain: Wire
    http: aiohttp.ClientSession
    http_url: str
    nobody_again: bool


@dataclass(slots=True)
class Request:
    """One that is under way. `first`: whether no answer has come yet."""

    n: int
    kind: str
    actor: str
    first: bool = True

    @property
    def patience(self) -> float:
        return {"plain": PLAIN_S, HASTY: HASTY_S}.get(self.kind, TYPED_S)

    def subject(self, verb: str) -> str:
        return f"vx11.{self.actor}.{verb}"


@dataclass
class Load:
    """`rate`: requests a second over all kinds and actors. `pad`: bytes added to each body. `first`: number of the first."""

    system: System
    journal: Journal
    rate: float = 0.0
    pad: int = 0
    first: int = 0
    faults: bool = False
    http: bool = False
    actors: tuple[str, ...] = ("echo",)
    asked: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    strays: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until `stop`, then wait for what is open, then linger."""
        async with AsyncExitStack() as stack:
            doors = await self._open(stack)
            await self._ask_all(doors, stop)
            await asyncio.sleep(LINGER_S)
            self.strays = doors.bus.wire.strays + doors.plain.strays

    async def burst(self, number: int) -> None:
        """Ask `number` times at once, then linger."""
        async with AsyncExitStack() as stack:
            doors = await self._open(stack)
            await asyncio.gather(*(self._ask(doors, self._next()) for _ in range(number)))
            await asyncio.sleep(LINGER_S)
            self.strays = doors.bus.wire.strays + doors.plain.strays

    async def _open(self, stack: AsyncExitStack) -> Doors:
        url, seed = self.system.url, self.system.seed("client")
        bus = await stack.enter_async_context(Bus.connect(url, user="client", seed=seed, name="torture", fast=True))
        plain = Wire()
        await plain.open(url, user="client", seed=seed, name="torture-plain", reconnect_s=0.05)
        stack.push_async_callback(plain.aclose)
        headers = {"X-VX11-Token": self.system.token, "Content-Type": "application/json"}
        http = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
        return Doors(bus, plain, http, self.system.http_url if self.http else "", self.faults)

    def _next(self) -> Request:
        """Kinds and actors take turns, each kind at each actor."""
        kinds = (*KINDS, *((HASTY,) if self.faults else ()), *((HTTP,) if self.http else ()))
        turn, n = divmod(self.asked, len(kinds)), self.first + self.asked
        self.asked += 1
        return Request(n, kinds[turn[1]], self.actors[turn[0] % len(self.actors)])

    async def _ask_all(self, doors: Doors, stop: asyncio.Event) -> None:
        begun, open_ = time.monotonic(), set[asyncio.Task[None]]()
        while not stop.is_set():
            due = int((time.monotonic() - begun) * self.rate)
            while self.asked < due:
                task = asyncio.create_task(self._ask(doors, self._next()))
                open_.add(task)
                task.add_done_callback(open_.discard)
            await asyncio.sleep(TURN_S)
        if open_:
            await asyncio.wait(open_)

    async def _ask(self, doors: Doors, one: Request) -> None:
        body = json.dumps({"n": one.n, "pad": "x" * self.pad}).encode()
        now = time.time()
        deadline = 0.0 if one.kind in ("plain", HTTP) else now + one.patience
        self.journal.write("ask", n=one.n, kind=one.kind, actor=one.actor, at=now, deadline=deadline)
        if one.kind == "plain":
            await self._ask_plain(doors, one, body)
            return
        try:
            held_ms, of = await _ask_typed(doors, one, body)
            self._ended(one, OK, held_ms, of)
        except Failure as failure:
            self._ended(one, failure.code)
        except aiohttp.ClientError:
            self._ended(one, LOST)
        except TimeoutError:  # aiohttp's own clock
            self._ended(one, SILENCE)

    def _ended(self, one: Request, code: str, held_ms: int = 0, of: int | None = None) -> None:
        """Written as it happens; `another` is an answer after the first."""
        if one.first:
            one.first = False
            self.outcomes[code] += 1
            self.journal.write(outcome_op(code), n=one.n, at=time.time(), code=code[:MOST_TEXT], held_ms=held_ms, of=of)
        else:
            self.journal.write("another", n=one.n, at=time.time(), code=code[:MOST_TEXT], held_ms=held_ms, of=of)

    async def _ask_plain(self, doors: Doors, one: Request, body: bytes) -> None:
        """As any NATS client does: no header, own inbox; every message that arrives there is counted, also late ones."""
        done, subject = asyncio.Event(), one.subject("echo")

        def heard(msg: Msg) -> None:
            if status_of(msg) == "503" and doors.nobody_again:
                asyncio.get_running_loop().call_later(NOBODY_AGAIN_S, _send, doors.plain, subject, body, reply)
                return
            code = _outcome(msg)
            self._ended(
                one, code, call.milliseconds((msg.headers or {}).get(call.WAKE_MS)), _number(msg.data) if code == OK else None
            )
            done.set()

        token, reply = doors.plain.await_answer(heard)
        _send(doors.plain, subject, body, reply)
        try:
            await asyncio.wait_for(done.wait(), one.patience)
        except TimeoutError:
            self._ended(one, SILENCE)
        asyncio.get_running_loop().call_later(WATCHED_S, doors.plain.forget_answer, token)


def _outcome(msg: Msg) -> str:
    if status_of(msg) == "503":
        return NOBODY
    failure = failure_of(msg.headers or {}, msg.data)
    return failure.code if failure else OK


def _number(body: bytes) -> int | None:
    """Which request this is the answer to."""
    document: dict[str, Any] = json.loads(body)
    return document.get("n")


def _send(plain: Wire, subject: str, body: bytes, reply: str) -> None:
    try:
        plain.send(subject, body, reply=reply)
    except Failure:
        return  # no server just now and the buffer is full: it stays unanswered, and is counted so


async def _ask_typed(doors: Doors, one: Request, body: bytes) -> tuple[int, int | None]:
    """How long it was held, and which request the answer is for. Raises Failure."""
    if one.kind == "stream":
        return await _ask_stream(doors.bus, one)
    if one.kind == HTTP:
        return await _ask_http(doors, one, body)
    again = one.kind == "again"
    subject = one.subject("echo_again" if again else "echo")
    answer = await doors.bus.ask(subject, body, timeout=one.patience, idempotent=again)
    return call.milliseconds(answer.headers.get(call.WAKE_MS)), _number(answer.body)


async def _ask_stream(bus: Bus, one: Request) -> tuple[int, int | None]:
    """Take every piece. Raises Failure, `internal` when a piece is missing."""
    pieces, held, of = 0, 0, None
    body = json.dumps({"n": PIECES, "mark": one.n}).encode()
    async for frame in bus.ask_stream(one.subject("count"), body, timeout=one.patience):
        if call.END in frame.headers:
            of = _number(frame.body)
        else:
            pieces += 1
        held = max(held, call.milliseconds(frame.headers.get(call.WAKE_MS)))
    if pieces != PIECES:
        raise Failure("internal", f"{pieces} pieces instead of {PIECES}")
    return held, of


async def _ask_http(doors: Doors, one: Request, body: bytes) -> tuple[int, int | None]:
    """One request through the gateway. Raises Failure, and aiohttp's error when the gateway itself is gone."""
    clock = aiohttp.ClientTimeout(total=one.patience)
    async with doors.http.post(f"{doors.http_url}/call/{one.actor}/echo", data=body, timeout=clock) as response:
        document = await response.json()
        if response.status != 200:
            raise Failure.from_document(document if isinstance(document, dict) else {})
        return call.milliseconds(response.headers.get("X-Vx11-Wake-Ms")), document.get("n")
