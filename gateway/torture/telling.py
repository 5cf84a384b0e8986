"""Durable events for the actor `scribe`, which is put to sleep between them: what the stream has acknowledged is handled."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from pathlib import Path

from bus.client import Bus
from gateway.torture.cycles import LOOK_S, SETTLE_S
from gateway.torture.history import OK, PROBE, Journal, outcome_op
from schemas.errors import Failure
from schemas.madre import Sleep

SCRIBE = "scribe"
SAID = "vx11.events.torture.said"
HEARD_S = 15.0
"""For the first event to be handled: until then the consumer may not exist yet, and it is not told of earlier ones."""
ALL_HEARD_S = 60.0
"""At the end, for every acknowledged event to be handled: one that a killed scribe had in hand comes back after seconds,
and one that failed waits for its next try."""
SLEEP_S = 15.0
NAP_S = 0.2
"""Between two sleeps, and until it has handled something: an event wakes it meanwhile. Without the latter a busy machine, on
which FastStream takes a second to be imported, would always put it to sleep before its first event."""


class Telling:
    """`rate`: events a second. `acked`: numbers that the stream has; `handled`: numbers in the scribe's file."""

    def __init__(self, bus: Bus, journal: Journal, file: Path, rate: float) -> None:
        self._bus, self._journal, self._file, self._rate = bus, journal, file, rate
        self._read = 0
        self._numbers = itertools.count()
        self.acked: set[int] = set()
        self.handled: set[int] = set()
        self.naps = 0

    async def begin(self) -> None:
        """Return once events reach the scribe. Raises Failure when they do not in HEARD_S seconds."""
        end = time.monotonic() + HEARD_S
        while time.monotonic() < end:
            try:
                await self._bus.publish_raw(SAID, json.dumps({"n": PROBE}).encode())
            except Failure:
                await asyncio.sleep(SETTLE_S)
            await asyncio.sleep(LOOK_S)
            if self._look() and PROBE in self.handled:
                return
        raise Failure("unavailable", f"the first event was not handled in {HEARD_S:g} s")

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop`, then wait for what is acknowledged to be handled."""
        begun, open_ = time.monotonic(), set[asyncio.Task[int]]()
        napping = asyncio.create_task(self._nap(stop))
        for number in self._numbers:
            pause = begun + number / self._rate - time.monotonic()
            if await _set_within(stop, max(0.0, pause)):
                break
            task = asyncio.create_task(self._say(number))
            open_.add(task)
            task.add_done_callback(open_.discard)
        await asyncio.gather(napping, *open_)
        end = time.monotonic() + ALL_HEARD_S
        while self.acked - self.handled and time.monotonic() < end:
            await asyncio.sleep(LOOK_S)
            self._look()

    async def next(self) -> None:
        """Return when an event that is published now or later has been handled."""
        while True:
            number = await self._say(next(self._numbers))
            while number in self.acked:
                if self._look() and number in self.handled:
                    return
                await asyncio.sleep(LOOK_S)

    async def _say(self, number: int) -> int:
        self._journal.write("publish", n=number, at=time.time())
        seq, code = 0, OK
        try:
            seq = await self._bus.publish_raw(SAID, json.dumps({"n": number}).encode(), message_id=f"torture-{number}")
            self.acked.add(number)
        except Failure as failure:
            code = failure.code
        op = OK if code == OK else "unknown" if code in ("timeout", "unavailable") else outcome_op(code)
        self._journal.write(op, n=number, at=time.time(), code=code, seq=seq)
        return number

    async def _nap(self, stop: asyncio.Event) -> None:
        before = 0
        while not await _set_within(stop, NAP_S):
            self._look()
            if len(self.handled) == before:
                continue
            with contextlib.suppress(Failure):  # it is called back, or a fault comes between
                await self._bus.request(Sleep(name=SCRIBE, reason="torture"), timeout=SLEEP_S)
                self.naps += 1
            self._look()
            before = len(self.handled)

    def _look(self) -> bool:
        """Read what has been added to the scribe's file; whether there was something."""
        if not self._file.exists():
            return False
        with self._file.open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        if not whole:
            return False
        self._read += len(whole) + 1
        self.handled |= {int(json.loads(line)["n"]) for line in whole.split(b"\n")}
        return True


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return event.is_set()
