"""The load: requests at a steady rate by a stock-like client and by the typed one, each written down before and after."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from bus.asking import failure_of
from bus.client import Bus
from bus.wire import Msg, Wire, status_of
from gateway.torture.history import KINDS, OK, Asked
from schemas.errors import Failure

PLAIN_S = 5.0
"""The stock CLI's patience."""
TYPED_S = 20.0
LINGER_S = 1.0
"""After the last answer, so that second ones are seen."""
VERBS = {"plain": "echo", "once": "echo", "again": "echo_again"}
NOBODY_AGAIN_S = 0.01


@dataclass
class Load:
    """`rate`: requests a second over all kinds. `pad`: bytes added to each body."""

    url: str
    seed: Path
    rate: float
    pad: int = 0
    nobody_again: bool = False
    """A stock client of its own asks again when nobody listens; without faults nobody has to."""
    asked: list[Asked] = field(default_factory=list)
    strays: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until `stop`, then wait for what is open, then linger."""
        async with Bus.connect(self.url, user="client", seed=self.seed, name="torture", fast=True) as bus:
            plain = Wire()
            await plain.open(self.url, user="client", seed=self.seed, name="torture-plain", reconnect_s=0.05)
            try:
                await self._ask_all(bus, plain, stop)
                await asyncio.sleep(LINGER_S)
                self.strays = bus.wire.strays
            finally:
                await plain.aclose()

    async def _ask_all(self, bus: Bus, plain: Wire, stop: asyncio.Event) -> None:
        begun, open_ = time.monotonic(), set[asyncio.Task[None]]()
        while not stop.is_set():
            due = int((time.monotonic() - begun) * self.rate)
            while len(self.asked) < due:
                n = len(self.asked)
                self.asked.append(Asked(n, KINDS[n % len(KINDS)], time.time()))
                task = asyncio.create_task(self._ask(bus, plain, self.asked[n]))
                open_.add(task)
                task.add_done_callback(open_.discard)
            await asyncio.sleep(0.001)
        if open_:
            await asyncio.wait(open_)

    async def _ask(self, bus: Bus, plain: Wire, entry: Asked) -> None:
        body = json.dumps({"n": entry.n, "pad": "x" * self.pad}).encode()
        subject = f"vx11.echo.{VERBS[entry.kind]}"
        if entry.kind == "plain":
            await self._ask_plain(plain, subject, body, entry)
            return
        try:
            await bus.ask(subject, body, timeout=TYPED_S, idempotent=entry.kind == "again")
            entry.outcome = OK
        except Failure as failure:
            entry.outcome = failure.code
        entry.ended, entry.answers = time.time(), entry.answers + 1

    async def _ask_plain(self, plain: Wire, subject: str, body: bytes, entry: Asked) -> None:
        """As any NATS client does: no header, own inbox; every message that arrives there is counted."""
        done = asyncio.Event()

        def heard(msg: Msg) -> None:
            if status_of(msg) == "503":
                if self.nobody_again:
                    asyncio.get_running_loop().call_later(NOBODY_AGAIN_S, _send, plain, subject, body, reply)
                    return
                entry.outcome = "no responders"
            else:
                failure = failure_of(msg.headers or {}, msg.data)
                entry.outcome = entry.outcome or (failure.code if failure else OK)
            entry.answers += 1
            entry.ended = entry.ended or time.time()
            done.set()

        _, reply = plain.await_answer(heard)  # never forgotten: a second answer is to be seen
        _send(plain, subject, body, reply)
        try:
            await asyncio.wait_for(done.wait(), PLAIN_S)
        except TimeoutError:
            entry.ended = time.time()


def _send(plain: Wire, subject: str, body: bytes, reply: str) -> None:
    try:
        plain.send(subject, body, reply=reply)
    except Failure:
        return  # no server just now and the buffer is full: it stays unanswered, and is counted so
