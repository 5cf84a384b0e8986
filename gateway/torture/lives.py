"""Checks the event log: every acknowledged event is in it, no number is missing, and no actor lived twice at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from gateway.torture.history import OK, PROBE, History, Logged, Told

POWER = "vx11.events.power."
CLOCK_S = 0.002
"""Clocks of two processes agree to this, and times in power events are cut to a thousandth of a second."""
HANDLED_S = 60.0
"""An event that was acknowledged so long before a history breaks off must have been handled in it."""
INF = float("inf")


@dataclass
class Life:
    """Of one run, as the power events tell it: `active`, until it had left with empty hands or its process was gone."""

    run: str
    begun: float
    ended: float = INF


@dataclass
class Events:
    """`acked`: published events that the stream has acknowledged. `lost`: of these, how many no handler has got."""

    published: int = 0
    acked: int = 0
    handled: int = 0
    handled_again: int = 0
    """Allowed: at least once is the promise."""
    lost: int = 0
    not_stored: int = 0
    """Acknowledged under a number in the log at which something else stands, or nothing."""
    unknown: int = 0
    """Handled, but published by nobody."""
    log: int = 0
    """Messages of the event log."""
    broken: list[str] = field(default_factory=list)


def check_events(history: History) -> Events:
    found = Events(len(history.told), log=len(history.log))
    acked = [told for told in history.told if told.outcome == OK]
    handled = Counter(one.n for one in history.handled)
    due = acked if history.end is not None else [t for t in acked if t.ended < history.last - HANDLED_S]
    lost = [told.n for told in due if told.n not in handled]
    unknown = sorted(handled.keys() - {told.n for told in history.told})
    found.acked, found.handled = len(acked), sum(told.n in handled for told in acked)
    found.handled_again = sum(times - 1 for times in handled.values())
    found.lost, found.unknown = len(lost), len(unknown)
    if lost:
        found.broken.append(f"{len(lost)} acknowledged events were never handled (first: number {lost[0]})")
    if unknown:
        found.broken.append(f"{len(unknown)} events were handled that nobody published (first: number {unknown[0]})")
    if history.log:
        missing = _not_stored(acked, history)
        found.not_stored = len(missing)
        if missing:
            found.broken.append(f"{len(missing)} acknowledged events are not in the log (first: number {missing[0]})")
        if gaps := [after.seq for before, after in pairwise(history.log) if after.seq != before.seq + 1]:
            found.broken.append(f"the event log jumps {len(gaps)} time(s) (first: to {gaps[0]})")
    return found


def _not_stored(acked: Sequence[Told], history: History) -> list[int]:
    """What the log should hold, as far as it has been copied."""
    there = {one.seq: one.body.get("n", PROBE) for one in history.log}
    last = history.log[-1].seq
    return [told.n for told in acked if told.seq <= last and there.get(told.seq) != told.n]


def check_lives(log: Iterable[Logged]) -> list[str]:
    """Sentences about actors of which two instances were active at once, or whose epoch went back."""
    lives: dict[str, dict[str, Life]] = {}
    epochs: dict[str, int] = {}
    wrong: list[str] = []
    for one in log:
        if not one.subject.startswith(POWER):
            continue
        fact, actor = one.subject.removeprefix(POWER).split(".")
        if (epoch := one.body.get("epoch")) is not None:
            if epoch < epochs.get(actor, 0):
                wrong.append(f"the epoch of {actor} went back from {epochs[actor]} to {epoch} at number {one.seq} of the log")
            epochs[actor] = max(epoch, epochs.get(actor, 0))
        _live(lives.setdefault(actor, {}), fact, one)
    for actor, runs in lives.items():
        wrong += _twice(actor, sorted(runs.values(), key=lambda life: life.begun))
    return wrong


def _live(runs: dict[str, Life], fact: str, one: Logged) -> None:
    run = str(one.body.get("run", ""))
    if fact == "active":
        begun = datetime.fromisoformat(one.body["at"]).timestamp()
        runs.setdefault(run, Life(run, begun))
    elif fact in ("slept", "exited") and run in runs:
        ended = one.body.get("left") or one.body.get("ended") or one.at
        runs[run].ended = min(runs[run].ended, ended)


def _twice(actor: str, ordered: Sequence[Life]) -> Iterable[str]:
    for before, after in pairwise(ordered):
        if before.ended == INF:
            yield f"{actor} {after.run} became active, but {before.run} was never told to have ended"
        elif after.begun < before.ended - CLOCK_S:
            yield f"{actor} {after.run} was active at {after.begun:.3f} while {before.run} lived until {before.ended:.3f}"
