"""kill -9 and SIGSTOP of each process under load: the promise of each class holds, and it is itself again by itself."""

from __future__ import annotations

import pytest

from gateway.torture.faults import RECOVER_S
from gateway.torture.run import Plan
from gateway.torture.system import GATEWAY
from tests.torture.suffering import RATE, held, suffer, times

SERVICES = ("actor", "madre", "host", "nats-server")


STRIKES = 3
MINUTES_S = 120
"""A busy machine takes several times as long."""

pytestmark = pytest.mark.timeout(MINUTES_S)


@pytest.mark.parametrize("victim", SERVICES)
async def test_a_killed_process_breaks_no_promise(tmp_path, victim):
    """Killed at power events and between them: during a wake, during a sleep, awake."""
    report = await suffer(tmp_path / "home", Plan(strikes=STRIKES, rate=RATE, kills=(victim,), seed=4))
    assert held(report)
    assert len(report.struck) >= STRIKES
    assert max(times(report)) < RECOVER_S


async def test_frozen_processes_break_no_promise(tmp_path):
    """Each goes on where it stood: what waited for it is answered, late but in time; nobody takes its place."""
    plan = Plan(strikes=6, rate=RATE, freezes=SERVICES, seed=6, frozen_s=(0.3, 1.5))
    report = await suffer(tmp_path / "home", plan)
    assert held(report)
    assert len({one.victim for one in report.struck}) >= 3
    typed = [report.verdict.outcomes[kind] for kind in ("once", "again", "stream")]
    assert {outcome for found in typed for outcome in found} == {"ok"}


async def test_an_actor_that_is_frozen_for_long_under_load_is_replaced(tmp_path):
    """Longer than three heartbeats: killed by its host, another in its place; none of its requests is begun too late."""
    plan = Plan(strikes=1, rate=100.0, freezes=("actor",), frozen_s=(8.0, 8.0), moments=("active",), seed=3)
    report = await suffer(tmp_path / "home", plan)
    assert held(report)
    assert report.verdict.executed_late == 0


async def test_through_the_gateway_each_request_has_an_answer_or_a_clear_error(tmp_path):
    """The gateway is killed and frozen, too: its clients see a lost connection, the others nothing."""
    plan = Plan(strikes=4, rate=150.0, kills=(GATEWAY, "madre"), freezes=(GATEWAY,), frozen_s=(0.3, 1.0), seed=3)
    report = await suffer(tmp_path / "home", plan)
    assert held(report)
    assert report.verdict.outcomes["http"]["ok"] > 0
    assert any(one.victim == GATEWAY for one in report.struck)
