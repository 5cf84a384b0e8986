"""What the tests of torture share: a run with its counts printed, and a sentence for whoever sees it fail."""

from __future__ import annotations

import sys
from pathlib import Path

from gateway.torture.run import Plan, Report, torture

RATE = 300.0
EVENTS = 10.0
"""A second: enough that one is under way whenever a fault strikes."""


def tell(*words: object) -> None:
    """A line for `pytest -rP`."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")


async def suffer(home: Path, plan: Plan) -> Report:
    """Run it and print its counts: `pytest -rP` shows them."""
    report = await torture(home, plan)
    verdict = report.verdict
    tell(f"{report.cycles} cycles, {report.requests} requests in {report.seconds} s, seed {plan.seed}")
    for kind, outcomes in verdict.outcomes.items():
        tell(f"  {kind:8}", ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items()))
    tell(f"  p50 {verdict.p50_ms} ms, p99 {verdict.p99_ms} ms; {verdict.held} held, {verdict.direct} direct")
    events = verdict.events
    tell(f"  events: {events.acked} acknowledged, {events.handled} handled, {events.handled_again} again; {report.naps} naps")
    tell(f"  second answers {verdict.second_answers}, crashed but not begun {verdict.crashed_unbegun}")
    for one in report.struck:
        tell(f"  {one.what} {one.victim} ({one.moment}): answered {one.answered_s} s, itself again {one.recovered_s} s")
    return report


def held(report: Report) -> bool:
    """The promise held, and the run was worth something: faults struck, and both ways to an instance were taken."""
    told = f"{report.verdict.broken} (seed {report.plan.seed})"
    assert report.verdict.broken == [], told
    assert report.verdict.overlaps == []
    assert report.verdict.executed_late == 0
    assert report.verdict.dated > report.requests / 2
    if report.plan.events:
        assert report.verdict.events.handled == report.verdict.events.acked > 0
        assert report.naps > 0, "an event that finds its handler awake proves little"
    assert report.verdict.held > 0
    assert report.verdict.direct > 0
    return True


def times(report: Report) -> list[float]:
    """Seconds until it was itself again, of each fault."""
    return [one.recovered_s for one in report.struck if one.recovered_s is not None]
