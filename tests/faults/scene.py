"""A scratch system in which single processes can be struck at named moments, and everything is written down."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from bus import chaos
from bus.client import Bus
from gateway.torture.system import System, scratch
from schemas.errors import Failure
from tests.faults.load import ALLOWED, LINGER_S, SILENCE, Asked, Load, broken, effects, loading, missing

ACTORS = Path(__file__).parent / "actors"
SEEDS = int(os.environ.get("VX11_SEEDS") or 1)
"""How often each of these tests is played, each time in another order: `make test` once, `make soak` more often."""
LONG = SEEDS > 1
AGAIN_S = 20.0
"""Ceiling for a busy machine; what is promised is less, and is looked at where it is promised."""
LOOK_S = 0.01
READY_S = 10.0
NUMBERS = 100_000
"""Requests of one test at most."""


def seeds(number: int = SEEDS) -> list[int]:
    """For `parametrize`: the seed stands in the name of the test, so that a failure says it."""
    return list(range(1, number + 1))


class Scene:
    """`asked`: everything that was ever asked here."""

    def __init__(self, system: System, folder: Path) -> None:
        self.system = system
        self._folder = folder
        self.firsts = itertools.count(NUMBERS, NUMBERS)
        self.asked: list[Asked] = []

    # -- moments -----------------------------------------------------------------------------------------------------

    def arm(self, moment: str, deed: str, nth: int = 1) -> None:
        """The next process that gets to this moment is struck, once."""
        self._reached(moment).unlink(missing_ok=True)
        made = self._folder / f"{moment}.made"
        made.write_text(f"{deed} {nth}")
        made.rename(self._folder / moment)

    def disarm(self) -> None:
        for order in self._folder.iterdir():
            order.unlink(missing_ok=True)

    def struck(self, moment: str) -> int:
        """The pid of who was struck there; 0 when nobody was yet."""
        with suppress(FileNotFoundError):
            return int(self._reached(moment).read_text())
        return 0

    def _reached(self, moment: str) -> Path:
        return self._folder / f"{moment}{chaos.REACHED}"

    # -- load --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def loaded(
        self, seed: int, *, allowed: Mapping[str, frozenset[str]] = ALLOWED, url: str = "", rate: float = 150.0
    ) -> AsyncIterator[Load]:
        """Ask inside the block; at its end the system is itself again and the promise of each class has held."""
        async with loading(self.system, random.Random(seed), next(self.firsts), url) as load:
            load.rate = rate
            load.linger_s = LINGER_S if SILENCE in allowed["plain"] else load.linger_s
            stop = asyncio.Event()
            running = asyncio.create_task(load.run(stop))
            try:
                yield load
                await itself_again(load.bus)
            finally:
                stop.set()
                await asyncio.wait([running])
                self.asked += load.asked
            running.result()
            assert (wrong := broken(load.asked, effects(self.system), dict(allowed))) == [], (
                f"seed {seed}: {wrong[:5]} {load.told}"
            )

    @asynccontextmanager
    async def quiet(self, seed: int) -> AsyncIterator[Load]:
        """A load that asks only what it is told to, and is not judged."""
        async with loading(self.system, random.Random(seed), next(self.firsts)) as load:
            yield load

    @contextmanager
    def frozen(self, pid: int) -> Iterator[None]:
        """Stopped inside the block, at whose end it may be gone."""
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            go_on(pid)

    @staticmethod
    def tell(told: str) -> None:
        """A line for `pytest -rP`."""
        sys.stdout.write(told + "\n")

    async def events_done(self) -> None:
        """Each acknowledged event has had its effect. What was in a killed hand is given out again after its time."""
        await until(lambda: not missing(self.asked, effects(self.system)), "every acknowledged event was handled", 2 * AGAIN_S)


@contextmanager
def scene(home: Path, *, services: str = "madre,host", variables: Mapping[str, str] | None = None) -> Iterator[Scene]:
    folder = home.with_name("chaos")
    folder.mkdir()
    told = {"VX11_ACTORS_PATH": str(ACTORS), chaos.FOLDER: str(folder), **(variables or {})}
    with scratch(home, services=services, variables=told) as system:
        made = Scene(system, folder)
        asyncio.run(known(made.system))
        yield made
        asyncio.run(made.events_done())


async def known(system: System) -> None:
    """The host has told madre of its actors; and all works."""
    async with connected(system) as bus:
        end = time.monotonic() + AGAIN_S
        while True:
            try:
                await status(bus)
                break
            except Failure:
                assert time.monotonic() < end, "ledger is not known"
                await asyncio.sleep(LOOK_S)
        await itself_again(bus)


@asynccontextmanager
async def connected(system: System, user: str = "client") -> AsyncIterator[Bus]:
    async with Bus.connect(system.url, user=user, seed=system.seed(user), name=f"faults-{user}", fast=True) as bus:
        yield bus


async def order(bus: Bus, verb: str, seconds: float = AGAIN_S, **fields: object) -> dict[str, object]:
    """A verb of madre about ledger. Raises Failure."""
    answer = await bus.ask(f"vx11.madre.{verb}", json.dumps({"name": "ledger", **fields}).encode(), timeout=seconds)
    return dict(json.loads(answer.body))


async def status(bus: Bus) -> dict[str, object]:
    """madre's word on ledger; one that has just started is asked again until the host has told her of it."""
    end = time.monotonic() + READY_S
    while True:
        try:
            return dict((await order(bus, "get_actor", 2.0))["status"])  # type: ignore[call-overload]
        except Failure as failure:
            if failure.code != "unavailable" or time.monotonic() > end:
                raise
        await asyncio.sleep(LOOK_S)


async def cycle(bus: Bus, *, recall: bool = False) -> bool:
    """One whole sleep and wake; False when a fault has spoilt it."""
    try:
        await order(bus, "sleep", recall=recall, reason="test")
        await order(bus, "wake", reason="test")
    except Failure:
        await asyncio.sleep(LOOK_S)
        return False
    return True


async def itself_again(bus: Bus, seconds: float = AGAIN_S) -> float:
    """A request is answered, and a whole sleep and wake is done. How long that took."""
    begun = time.monotonic()
    await bus.ask("vx11.ledger.rewrite", b'{"n": -1}', timeout=seconds, idempotent=True)
    while not await cycle(bus):
        assert time.monotonic() - begun < seconds, f"not itself again after {seconds:g} s"
    return time.monotonic() - begun


async def until(condition: Callable[[], object], what: str, seconds: float = AGAIN_S) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so after {seconds:g} s: {what}"
        await asyncio.sleep(LOOK_S)


def go_on(pid: int) -> None:
    """End the stop of a process, which may have been killed meanwhile."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
