"""SIGTERM to each process under load: what is begun is finished, and nobody who asks through our client notices (F16)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.faults.load import ALLOWED, GIVEN_UP, OK, UNHARMED
from tests.faults.scene import Scene, scene, seeds, status, until

GRACE_S = 20.0
RATE = 200.0
PARTS = {
    "actor": UNHARMED,
    "host": UNHARMED,
    "redis": UNHARMED,
    "madre": UNHARMED | {"plain": frozenset({OK, *GIVEN_UP})},
    "nats-server": ALLOWED,
}
"""What may become of whom. madre answers what she holds for a stock client: ask again. The server takes with it what is on its
way, and ends at once: nobody can tell whether that was begun."""

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("faults") / "home") as made:
        yield made


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize("part", PARTS)
async def test_who_is_told_to_end_loses_nothing(home: Scene, part: str, seed: int) -> None:
    async with home.loaded(seed, rate=RATE, allowed=PARTS[part]) as load:
        await until(lambda: len(load.asked) > 20, "the load is on")
        pid = int(str((await status(load.bus))["pid"])) if part == "actor" else home.system.pid(part)
        log = home.system.home / "supervisor.log"
        told = log.read_text()
        os.kill(pid, signal.SIGTERM)
        await until(lambda: not alive(pid), f"{part} has ended", GRACE_S)
        if part in ("madre", "host"):
            await until(lambda: f"{part} ended with 0" in log.read_text()[len(told) :], f"{part} has ended cleanly")


async def test_an_actor_that_is_told_to_end_while_madre_is_dead_ends_when_she_is_back(home: Scene) -> None:
    """Nobody heard it ask: it asks again."""
    async with home.loaded(1, allowed=ALLOWED) as load:
        await load.ask("again")
        pid = int(str((await status(load.bus))["pid"]))
        with home.frozen(home.system.process.pid):  # nobody starts her again
            madre = home.system.pid("madre")
            os.kill(madre, signal.SIGKILL)
            os.kill(pid, signal.SIGTERM)
            await load.ask("once")
            assert alive(pid), "it leaves only when it is told to"
        await until(lambda: not alive(pid), "the actor has ended", GRACE_S)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
