"""Holds a history against the promise of each class; whatever a fault does not explain breaks it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from gateway.torture.history import HASTY, HTTP, KINDS, OK, SILENCE, Asked, Execution, Struck

LOSS: Mapping[str, frozenset[str]] = {
    "plain": frozenset({SILENCE, "crashed", "timeout", "waking"}),
    "once": frozenset({"crashed"}),
    "again": frozenset(),
    "stream": frozenset({"crashed"}),
    HASTY: frozenset({"crashed"}),
    HTTP: frozenset({"crashed", "unavailable", "connection lost"}),
}
"""What may become of a request that met a fault, beside `ok`. plain: nobody but the killed process knew its inbox; what
waited for a frozen one is given up by a code. once, stream: may have been begun by what was killed. again: is asked again.
http: as once; the gateway asks nothing while there is no server, and may be the one that is killed."""
GIVEN_UP: Mapping[str, frozenset[str]] = {HASTY: frozenset({"timeout", "unavailable", "waking"})}
"""What may become of it without a fault, too: its caller waits shorter than a wake may take."""
CLOCK_S = 0.002
"""Clocks of two processes agree to this."""
BEGUN_S = 0.02
"""Between the look at the deadline and the line that tells of the execution a busy machine may do something else."""
ENOUGH = 0.999
"""Part of the requests that is answered `ok` when there are no faults."""


@dataclass
class Verdict:
    """`broken`: sentences, empty when the promise held. `outcomes`: kind to outcome to number."""

    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    second_answers: int = 0
    late_answers: int = 0
    """To requests of a stock client that had been given up."""
    executed_twice: int = 0
    executed_late: int = 0
    crashed_unbegun: int = 0
    """Answered `crashed` although no instance had begun them: allowed, the fewer the better."""
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


def judge(asked: Sequence[Asked], executions: Sequence[Execution], struck: Sequence[Struck] = (), *, strays: int = 0) -> Verdict:
    """The verdict over a whole history. `strays`: messages to a typed client's inbox after the answer."""
    verdict = Verdict()
    for kind in (*KINDS, HASTY, HTTP):
        if found := Counter(a.outcome or SILENCE for a in asked if a.kind == kind):
            verdict.outcomes[kind] = dict(found.most_common())
    _check_outcomes(asked, struck, verdict)
    _check_seconds(asked, struck, strays, verdict)
    _check_executions(asked, executions, verdict)
    verdict.overlaps = overlaps(executions)
    if verdict.overlaps:
        verdict.broken.append(f"two instances at once: {verdict.overlaps[0]}")
    for one in struck:
        if one.recovered_s is None:
            verdict.broken.append(f"not itself again after the {one.what} of {one.victim}")
    _measure(asked, verdict)
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
    twice = sorted(n for n, times in runs.items() if times > 1 and kinds.get(n) != "again")
    verdict.executed_twice = len(twice)
    if twice:
        verdict.broken.append(f"{len(twice)} requests that may run once ran more often (first: number {twice[0]})")
    unseen = [a.n for a in asked if a.outcome == OK and a.n not in runs]
    if unseen:
        verdict.broken.append(f"{len(unseen)} were answered ok but never executed (first: number {unseen[0]})")
    late = [e.n for e in executions if e.deadline > 0 and e.at > e.deadline + BEGUN_S]
    verdict.executed_late = len(late)
    if late:
        verdict.broken.append(f"{len(late)} were executed after their deadline (first: number {late[0]})")
    verdict.crashed_unbegun = sum(a.outcome == "crashed" and a.n not in runs for a in asked)


def overlaps(executions: Sequence[Execution]) -> list[str]:
    """Sentences about instances that were at work at the same time: the executions of one lie before or after all of another."""
    spans: dict[str, tuple[float, float]] = {}
    for execution in executions:
        first, last = spans.get(execution.instance, (execution.at, execution.at))
        spans[execution.instance] = (min(first, execution.at), max(last, execution.at))
    ordered = sorted(spans.items(), key=lambda item: item[1])
    return [
        f"{after} began at {start:.3f} while {before} worked until {end:.3f}"
        for (before, (_, end)), (after, (start, _)) in pairwise(ordered)
        if start < end - CLOCK_S
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
