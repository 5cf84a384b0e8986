"""The bus server dies and stays away for a while, or stands still, under load (F1, F7)."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator

import pytest

from tests.faults.scene import LONG, Scene, go_on, scene, seeds, until

IN_FLIGHT = 64
RATE = 200.0
DOWN_S = (0.5, 0.0, 5.0) if LONG else (0.5,)
FROZEN_S = (1.0, 8.0) if LONG else (1.0,)
BACK_S = 10.0
"""Ceiling for a busy machine; a quiet one takes about 0.3 s."""

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("faults") / "home") as made:
        yield made


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize("down", DOWN_S)
async def test_the_server_is_killed_and_away_for_a_while(home: Scene, down: float, seed: int) -> None:
    """What was in hand is answered by the reply cache, what was stored stays, nothing is begun after its deadline."""
    async with home.loaded(seed, rate=RATE) as load:
        open_ = [load.begin(random.Random(seed + n).choice(("once", "again")), 0.3) for n in range(IN_FLIGHT)]
        await until(lambda: len(load.asked) > IN_FLIGHT + 20, "the load is on")
        os.kill(home.system.process.pid, signal.SIGSTOP)  # nobody starts it again
        try:
            os.kill(home.system.pid("nats-server"), signal.SIGKILL)
            await asyncio.sleep(down)
        finally:
            go_on(home.system.process.pid)
        begun = time.monotonic()
        await load.bus.ask("vx11.ledger.rewrite", b'{"n": -1}', timeout=BACK_S, idempotent=True)
        home.tell(f"away for {down:g} s, answering again {time.monotonic() - begun:.2f} s after that")
        await load.end(open_)


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize("frozen", FROZEN_S)
async def test_the_server_stands_still_for_a_while(home: Scene, frozen: float, seed: int) -> None:
    """Nobody is taken for dead because the server was silent."""
    async with home.loaded(seed, rate=RATE) as load:
        await until(lambda: len(load.asked) > 20, "the load is on")
        with home.frozen(home.system.pid("nats-server")):
            await asyncio.sleep(frozen)
