"""kill -9 and SIGSTOP of each process under load: the promise of each class holds, and it is itself again by itself."""

from __future__ import annotations

import asyncio

import pytest

from gateway.torture.faults import ANY, RECOVER_S, Faults
from gateway.torture.run import Plan
from gateway.torture.system import GATEWAY
from tests.torture.suffering import EVENTS, RATE, held, suffer, times

SERVICES = ("actor", "madre", "host", "nats-server")
PAIRS = (("actor", "madre"), ("host", "nats-server"))
STRIKES = 6
SEED = 19
"""With it each of a pair is struck three times: around a sleep, around a wake, and at any moment."""
EACH_ONCE = 163
"""With it the first four draws name each of the four; one that is not there just then is left out."""
MINUTES_S = 180
"""A busy machine takes several times as long."""

pytestmark = pytest.mark.timeout(MINUTES_S)


class Quiet:
    """A bus on which nothing is told, and a system in which madre runs, which asks how often it was looked for."""

    def __init__(self) -> None:
        self.sought = 0

    async def listen(self, *_: object) -> None:
        return None

    def pid(self, _: str) -> int:
        self.sought += 1
        return 1

    def owns(self, _: int) -> bool:
        return False


@pytest.mark.parametrize(("moments", "strikes"), [(("waking", "slept"), False), ((ANY, "waking"), True)])
async def test_a_fault_that_is_wanted_at_an_event_only_does_not_strike_without_one(monkeypatch, moments, strikes):
    """`--at waking` struck at any moment once two seconds had passed without a wake."""
    monkeypatch.setattr("gateway.torture.faults.EVENT_S", 0.001)
    monkeypatch.setattr("gateway.torture.faults.PAUSE_S", (0.0, 0.001))
    quiet, stop, drawn = Quiet(), asyncio.Event(), []
    faults = Faults(quiet, quiet, None, None, kills=("madre",), moments=moments)
    event = faults._event

    async def counted(actor: str, moment: str) -> bool:
        drawn.append(moment)
        if len(drawn) == 10:
            stop.set()
        return await event(actor, moment)

    monkeypatch.setattr(faults, "_event", counted)
    await faults.run(stop)
    assert bool(quiet.sought) is strikes


@pytest.mark.parametrize("victims", PAIRS, ids=" and ".join)
async def test_killed_processes_break_no_promise(tmp_path, victims):
    """Must-show 5, the short form: the count of each outcome is printed, and how long until it was itself again."""
    report = await suffer(tmp_path / "home", Plan(strikes=STRIKES, rate=RATE, events=EVENTS, kills=victims, seed=SEED))
    assert held(report)
    assert {one.victim for one in report.struck} == set(victims)
    assert max(times(report)) < RECOVER_S


async def test_frozen_processes_break_no_promise(tmp_path):
    """Each goes on where it stood: what waited for it is answered, late but in time; nobody takes its place."""
    plan = Plan(strikes=len(SERVICES), rate=RATE, actors=2, freezes=SERVICES, seed=EACH_ONCE, frozen_s=(0.3, 1.5))
    report = await suffer(tmp_path / "home", plan)
    assert held(report)
    assert len({one.victim for one in report.struck}) >= 3
    typed = [report.verdict.outcomes[kind] for kind in ("once", "again", "stream")]
    assert {outcome for found in typed for outcome in found} == {"ok"}


async def test_through_the_gateway_each_request_has_an_answer_or_a_clear_error(tmp_path):
    """The gateway is killed and frozen, too: its clients see a lost connection, the others nothing."""
    plan = Plan(strikes=4, rate=150.0, kills=(GATEWAY, "madre"), freezes=(GATEWAY,), frozen_s=(0.3, 1.0), seed=SEED)
    report = await suffer(tmp_path / "home", plan)
    assert held(report)
    assert report.verdict.outcomes["http"]["ok"] > 0
    assert {one.what for one in report.struck if one.victim == GATEWAY} == {"kill", "freeze"}
