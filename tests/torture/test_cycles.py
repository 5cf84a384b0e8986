"""Sleeps and wakes under load without a fault: every request is answered ok, exactly once."""

from __future__ import annotations

import pytest

from gateway.torture.run import Plan
from tests.torture.suffering import held, suffer

CYCLES = 60
STORM = 1_000
MINUTES_S = 180
"""A busy machine takes many times the 6 s of a quiet one."""

pytestmark = pytest.mark.timeout(MINUTES_S)


async def test_sixty_cycles_and_a_storm_lose_nothing_and_double_nothing(tmp_path):
    """Must-show 4, the short form: 60 forced cycles at 500 requests a second, then a thousand at once to a sleeper."""
    report = await suffer(tmp_path / "home", Plan(cycles=CYCLES, rate=500.0, storm=STORM))
    assert held(report)
    assert report.cycles == CYCLES
    assert {outcome for found in report.verdict.outcomes.values() for outcome in found} == {"ok"}
    assert report.verdict.second_answers == 0
    assert report.wakes >= CYCLES * 4 // 5, "a forced cycle that wakes nobody proves nothing"
    storm = report.storm
    assert storm is not None
    assert (storm.outcomes, storm.activations, storm.second_answers) == ({"ok": STORM}, 1, 0)


async def test_large_requests_are_held_and_handed_over_like_small_ones(tmp_path):
    report = await suffer(tmp_path / "home", Plan(cycles=16, rate=200.0, pad=100_000))
    assert held(report)
    assert report.verdict.second_answers == 0
