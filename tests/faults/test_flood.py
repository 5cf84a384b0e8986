"""More requests than an actor can take: each is answered, by its work or by `busy`; none is dropped (F8)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.faults.load import effects
from tests.faults.scene import LONG, Scene, scene, seeds

MESSAGES = 20_000 if LONG else 3_000
WORK_S = 0.01
AT_ONCE = 2_500
"""More than an instance takes at a time and keeps waiting together."""

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("faults") / "home") as made:
        yield made


@pytest.mark.parametrize("seed", seeds(1))
async def test_a_flood_is_answered_or_refused_and_never_dropped(home: Scene, seed: int) -> None:
    """accepted + refused = sent; what was refused was not done."""
    async with home.quiet(seed) as load:
        for _ in range(0, MESSAGES, AT_ONCE):
            await asyncio.gather(*(load.begin("plain", WORK_S) for _ in range(AT_ONCE)))
        outcomes = Counter(a.outcome for a in load.asked)
        assert set(outcomes) == {"ok", "busy"}, outcomes
        done = Counter(e.n for e in effects(home.system))
        assert [a.n for a in load.asked if done[a.n] != (a.outcome == "ok")] == []
        assert [a.n for a in load.asked if a.answers != 1] == []
