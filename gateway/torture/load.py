"""The load: requests at a steady rate, as a stock client, as the typed client and by HTTP, each written down as it ends."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import aiohttp

from bus import call
from bus.asking import failure_of
from bus.client import Bus
from bus.wire import Msg, Wire, status_of
from gateway.torture.history import HASTY, HTTP, KINDS, OK, SILENCE, Asked
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
ECHO, ECHO_AGAIN, COUNT = "vx11.echo.echo", "vx11.echo.echo_again", "vx11.echo.count"


@dataclass
class Doors:
    """The three ways in. `nobody_again`: the stock client asks again when nobody listens; without faults nobody has to."""

    bus: Bus
    plain: Wire
    http: aiohttp.ClientSession
    http_url: str
    nobody_again: bool


@dataclass
class Load:
    """`rate`: requests a second over all kinds. `pad`: bytes added to each body. `first`: number of the first request."""

    system: System
    rate: float = 0.0
    pad: int = 0
    first: int = 0
    faults: bool = False
    http: bool = False
    asked: list[Asked] = field(default_factory=list)
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

    def _next(self) -> Asked:
        n = self.first + len(self.asked)
        kinds = (*KINDS, *((HASTY,) if self.faults else ()), *((HTTP,) if self.http else ()))
        entry = Asked(n, kinds[n % len(kinds)], time.time())
        self.asked.append(entry)
        return entry

    async def _ask_all(self, doors: Doors, stop: asyncio.Event) -> None:
        begun, open_ = time.monotonic(), set[asyncio.Task[None]]()
        while not stop.is_set():
            due = int((time.monotonic() - begun) * self.rate)
            while len(self.asked) < due:
                task = asyncio.create_task(self._ask(doors, self._next()))
                open_.add(task)
                task.add_done_callback(open_.discard)
            await asyncio.sleep(TURN_S)
        if open_:
            await asyncio.wait(open_)

    async def _ask(self, doors: Doors, entry: Asked) -> None:
        pad = "x" * self.pad
        body = json.dumps({"n": entry.n, "pad": pad}).encode()
        if entry.kind == "plain":
            await ask_plain(doors, ECHO, body, entry)
            return
        try:
            if entry.kind == "stream":
                entry.held_ms = await _ask_stream(doors.bus, json.dumps({"n": PIECES, "mark": entry.n}).encode())
            elif entry.kind == HTTP:
                entry.held_ms = await _ask_http(doors, body)
            else:
                again, patience = entry.kind == "again", HASTY_S if entry.kind == HASTY else TYPED_S
                answer = await doors.bus.ask(ECHO_AGAIN if again else ECHO, body, timeout=patience, idempotent=again)
                entry.held_ms = call.milliseconds(answer.headers.get(call.WAKE_MS))
            entry.outcome = OK
        except Failure as failure:
            entry.outcome = failure.code
        except aiohttp.ClientError:
            entry.outcome = "connection lost"
        entry.ended, entry.answers = time.time(), entry.answers + 1


async def ask_plain(doors: Doors, subject: str, body: bytes, entry: Asked) -> None:
    """As any NATS client does: no header, own inbox; every message that arrives there is counted, also late ones."""
    done = asyncio.Event()

    def heard(msg: Msg) -> None:
        if status_of(msg) == "503" and doors.nobody_again:
            asyncio.get_running_loop().call_later(NOBODY_AGAIN_S, _send, doors.plain, subject, body, reply)
            return
        entry.answers += 1
        if not entry.outcome:
            entry.outcome, entry.ended = _outcome(msg), time.time()
            entry.held_ms = call.milliseconds((msg.headers or {}).get(call.WAKE_MS))
            done.set()

    token, reply = doors.plain.await_answer(heard)
    _send(doors.plain, subject, body, reply)
    try:
        await asyncio.wait_for(done.wait(), PLAIN_S)
    except TimeoutError:
        entry.outcome, entry.ended = SILENCE, time.time()
    asyncio.get_running_loop().call_later(WATCHED_S, doors.plain.forget_answer, token)


def _outcome(msg: Msg) -> str:
    if status_of(msg) == "503":
        return "no responders"
    failure = failure_of(msg.headers or {}, msg.data)
    return failure.code if failure else OK


def _send(plain: Wire, subject: str, body: bytes, reply: str) -> None:
    try:
        plain.send(subject, body, reply=reply)
    except Failure:
        return  # no server just now and the buffer is full: it stays unanswered, and is counted so


async def _ask_stream(bus: Bus, body: bytes) -> int:
    """Take every piece; how long it was held. Raises Failure, `internal` when a piece is missing."""
    pieces, held = 0, 0
    async for frame in bus.ask_stream(COUNT, body, timeout=TYPED_S):
        pieces += call.END not in frame.headers
        held = max(held, call.milliseconds(frame.headers.get(call.WAKE_MS)))
    if pieces != PIECES:
        raise Failure("internal", f"{pieces} pieces instead of {PIECES}")
    return held


async def _ask_http(doors: Doors, body: bytes) -> int:
    """One request through the gateway. Raises Failure, and aiohttp's error when the gateway itself is gone."""
    clock = aiohttp.ClientTimeout(total=TYPED_S)
    async with doors.http.post(f"{doors.http_url}/call/echo/echo", data=body, timeout=clock) as response:
        document = await response.json()
        if response.status != 200:
            raise Failure.from_document(document if isinstance(document, dict) else {})
        return call.milliseconds(response.headers.get("X-Vx11-Wake-Ms"))
