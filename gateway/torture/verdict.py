"""Holds a history against the promise of each class; whatever a fault does not explain breaks it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from gateway.torture.history import (
    HASTY,
    HTTP,
    KINDS,
    LOST,
    OK,
    REFUSED,
    SILENCE,
    STORM,
    Asked,
    Execution,
    History,
    Struck,
)
from gateway.torture.lives import CLOCK_S, Events, check_events, check_lives

LOSS: Mapping[str, frozenset[str]] = {
    "plain": frozenset({SILENCE, "crashed", "timeout", "waking"}),
    "once": frozenset({"crashed"}),
    "again": frozenset(),
    "stream": frozenset({"crashed"}),
    HASTY: frozenset({"crashed"}),
    HTTP: frozenset({"crashed", "unavailable", LOST}),
}
"""What may become of a request that met a fault, beside `ok`. plain: nobody but the killed process knew its inbox; what
waited for a frozen one is given up by a code. once, stream: may have been begun by what was killed. again: is asked again.
http: as once; the gateway asks nothing while there is no server, and may be the one that is killed."""
GIVEN_UP: Mapping[str, frozenset[str]] = {HASTY: frozenset({"timeout", "unavailable", "waking"})}
"""What may become of it without a fault, too: its caller waits shorter than a wake may take."""
BEGUN_S = 0.02
"""Between the look at the deadline and the line that tells of the execution a busy machine may do something else."""
ENOUGH = 0.999
"""Part of the requests that is answered `ok` when there are no faults."""


Spread = tuple[float | None, float | None, float | None]
"""Median, 99th percentile and worst, in seconds; None is longer than was waited for."""


@dataclass(frozen=True)
class Recovery:
    """From all faults of one kind: until the next answer, and until the system was itself again."""

    fault: str
    times: int
    answered_s: Spread
    recovered_s: Spread


@dataclass
class Verdict:
    """`broken`: sentences, empty when the promise held. `outcomes`: kind to outcome to number."""

    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    second_answers: int = 0
    late_answers: int = 0
    """To requests of a stock client that had been given up."""
    open: int = 0
    """Without an outcome when torture itself was ended."""
    dated: int = 0
    """Requests that carried a deadline."""
    executed: int = 0
    executed_twice: int = 0
    executed_late: int = 0
    """After their deadline."""
    refused_executed: int = 0
    """Answered that nobody had begun them, but somebody had."""
    others: int = 0
    """Answered with what was another's answer."""
    crashed_unbegun: int = 0
    """Answered `crashed` although no instance had begun them: allowed, the fewer the better."""
    events: Events = field(default_factory=Events)
    recoveries: list[Recovery] = field(default_factory=list)
    """Of each kind of fault, and of all together."""
    overlaps: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    held: int = 0
    direct: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    held_p50_ms: float = 0.0
    held_p99_ms: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.broken


def judge(history: History) -> Verdict:
    """The verdict over a whole history, or over what there is of one that breaks off."""
    asked = [a for a in history.asked if a.n < STORM and (a.outcome or history.end is not None)]
    struck, executions = history.struck, history.executions
    verdict = Verdict(open=sum(not a.outcome for a in history.asked) if history.end is None else 0)
    for kind in (*KINDS, HASTY, HTTP):
        if found := Counter(a.outcome or SILENCE for a in asked if a.kind == kind):
            verdict.outcomes[kind] = dict(found.most_common())
    _check_outcomes(asked, struck, verdict)
    _check_seconds(asked, struck, (history.end or {}).get("strays", 0), verdict)
    _check_executions(history.asked, executions, verdict)
    _check_deadlines(history.asked, executions, verdict)
    verdict.overlaps = [*overlaps(executions), *overlaps(history.handled), *check_lives(history.log)]
    if verdict.overlaps:
        verdict.broken.append(f"two instances at once, {len(verdict.overlaps)} time(s): {verdict.overlaps[0]}")
    verdict.events = check_events(history)
    verdict.broken += verdict.events.broken
    for one in struck:
        if one.recovered_s is None and one.until != float("inf"):
            verdict.broken.append(f"not itself again after the {one.what} of {one.victim}")
    _measure(asked, verdict)
    verdict.recoveries = recoveries(struck)
    return verdict


def _check_outcomes(asked: Sequence[Asked], struck: Sequence[Struck], verdict: Verdict) -> None:
    """Each outcome that is not `ok` must be one that a fault may cause, and a fault must have met the request."""
    unexplained: Counter[str] = Counter()
    first: dict[str, int] = {}
    for entry in asked:
        outcome = entry.outcome or SILENCE
        if outcome == OK or outcome in GIVEN_UP.get(entry.kind, ()):
            continue
        met = any(one.met(entry) for one in struck)
        if not met or outcome not in LOSS[entry.kind]:
            told = f"{entry.kind} requests ended with {outcome!r}, {'which no fault excuses' if met else 'which met no fault'}"
            unexplained[told] += 1
            first.setdefault(told, entry.n)
    verdict.broken += [f"{number} {told} (first: number {first[told]})" for told, number in unexplained.items()]
    patient = [a for a in asked if a.kind not in GIVEN_UP]
    good = sum(a.outcome == OK for a in patient)
    if not struck and good < ENOUGH * len(patient):
        verdict.broken.append(f"only {good} of {len(patient)} were answered ok")


def _check_seconds(asked: Sequence[Asked], struck: Sequence[Struck], strays: int, verdict: Verdict) -> None:
    """A second answer harms nobody who uses an inbox once, but only a fault, which makes us ask again, explains one.

    An answer to a typed request that was given up cannot be told from a second one.
    """
    twice = [a for a in asked if a.answers > 1]
    verdict.second_answers = sum(a.answers - 1 for a in twice) + strays
    verdict.late_answers = sum(a.outcome == SILENCE and a.answers > 0 for a in asked)
    alone = [a.n for a in twice if not any(one.met(a) for one in struck)]
    doubtful = struck or any(a.kind in GIVEN_UP for a in asked)
    if alone or (strays and not doubtful):
        verdict.broken.append(f"{len(alone) or strays} second answers without a fault")


def _check_executions(asked: Sequence[Asked], executions: Sequence[Execution], verdict: Verdict) -> None:
    runs = Counter(e.n for e in executions)
    kinds = {a.n: a.kind for a in asked}
    verdict.executed = len(executions)
    twice = sorted(n for n, times in runs.items() if times > 1 and kinds.get(n) != "again")
    verdict.executed_twice = len(twice)
    if twice:
        verdict.broken.append(f"{len(twice)} requests that may run once ran more often (first: number {twice[0]})")
    unseen = [a.n for a in asked if a.outcome == OK and a.n not in runs]
    if unseen:
        verdict.broken.append(f"{len(unseen)} were answered ok but never executed (first: number {unseen[0]})")
    others = [a.n for a in asked if a.outcome == OK and a.of != a.n]
    verdict.others = len(others)
    if others:
        verdict.broken.append(f"{len(others)} got the answer to another's request (first: number {others[0]})")
    refused = [a.n for a in asked if a.outcome in REFUSED and a.n in runs]
    verdict.refused_executed = len(refused)
    if refused:
        verdict.broken.append(f"{len(refused)} were executed although their answer says no (first: number {refused[0]})")
    if unasked := sorted(runs.keys() - kinds.keys()):
        verdict.broken.append(f"{len(unasked)} were executed that nobody asked for (first: number {unasked[0]})")
    verdict.crashed_unbegun = sum(a.outcome == "crashed" and a.n not in runs for a in asked)


def _check_deadlines(asked: Sequence[Asked], executions: Sequence[Execution], verdict: Verdict) -> None:
    """By the deadline that the client wrote down, and by that which the handler was told of."""
    clients = {a.n: a.deadline for a in asked if a.deadline}
    verdict.dated = len(clients)
    late = [e.n for e in executions for end in (clients.get(e.n, 0.0), e.deadline) if end and e.at > end + BEGUN_S]
    verdict.executed_late = len(set(late))
    if late:
        verdict.broken.append(f"{len(set(late))} were executed after their deadline (first: number {late[0]})")


def overlaps(executions: Sequence[Execution]) -> list[str]:
    """Sentences about instances of one actor that were at work at the same time: one ends before the next begins."""
    spans: dict[tuple[str, str], tuple[float, float]] = {}
    for execution in executions:
        name = execution.actor, execution.instance
        first, last = spans.get(name, (execution.at, execution.at))
        spans[name] = (min(first, execution.at), max(last, execution.at))
    ordered = sorted(spans.items(), key=lambda item: (item[0][0], *item[1]))
    return [
        f"{actor} {after} began at {start:.3f} while {before} worked until {end:.3f}"
        for ((actor, before), (_, end)), ((same, after), (start, _)) in pairwise(ordered)
        if same == actor and start < end - CLOCK_S
    ]


def _measure(asked: Sequence[Asked], verdict: Verdict) -> None:
    good = [a for a in asked if a.outcome == OK]
    held = [a.took_ms for a in good if a.held_ms]
    verdict.held, verdict.direct = len(held), len(good) - len(held)
    verdict.p50_ms, verdict.p99_ms = percentiles([a.took_ms for a in good])
    verdict.held_p50_ms, verdict.held_p99_ms = percentiles(held)


def percentiles(times: Sequence[float]) -> tuple[float, float]:
    """The median and the 99th percentile; zeros when there are none."""
    if not times:
        return 0.0, 0.0
    ordered = sorted(times)
    return round(ordered[len(ordered) // 2], 2), round(ordered[int(len(ordered) * 0.99)], 2)


def recoveries(struck: Sequence[Struck]) -> list[Recovery]:
    """One that torture did not live to see the end of is not counted."""
    seen = [one for one in struck if one.until != float("inf")]
    kinds: dict[str, list[Struck]] = {}
    for one in seen:
        kinds.setdefault(f"{one.what} {one.victim}", []).append(one)
    if len(kinds) > 1:
        kinds["all"] = seen
    return [
        Recovery(fault, len(some), _spread([one.answered_s for one in some]), _spread([one.recovered_s for one in some]))
        for fault, some in kinds.items()
    ]


def _spread(times: Sequence[float | None]) -> Spread:
    ordered = sorted(times, key=lambda one: float("inf") if one is None else one)
    return ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)], ordered[-1]
