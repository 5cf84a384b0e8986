"""What was asked, what came back, what was executed: and what of it breaks the promise."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

OK = "ok"
KINDS = ("plain", "once", "again")
"""plain: a stock client, no header. once: `bus.request` of a class that is not idempotent. again: of one that is."""
EXPLAINED = frozenset({"crashed", "unavailable", "waking", "timeout", "busy"})
"""Codes that a fault may cause; without faults none is explained."""
OVERLAP_S = 0.002
"""Clocks of two processes agree to this, and an execution is written down a moment after it began."""


PROBE = "-1"
"""Number of the requests that only ask whether the system is itself again."""


@dataclass
class Asked:
    n: int
    kind: str
    sent: float
    outcome: str = ""
    """`ok`, an error code, or empty: no answer at all."""
    ended: float = 0.0
    answers: int = 0


@dataclass
class Execution:
    n: int
    pid: int
    at: float
    deadline: float


@dataclass
class Verdict:
    """`broken`: sentences, empty when the promise held."""

    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    second_answers: int = 0
    executed_twice: int = 0
    late: int = 0
    overlaps: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    p50_ms: float = 0.0
    p99_ms: float = 0.0


def read_executions(path: Path) -> list[Execution]:
    """The sink's lines. A last line that was cut by a kill is not counted."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        parts = line.split()
        if len(parts) == 4 and parts[0] != PROBE:
            found.append(Execution(int(parts[0]), int(parts[1]), float(parts[2]), float(parts[3])))
    return found


def judge(asked: list[Asked], executions: list[Execution], *, faults: bool, strays: int = 0) -> Verdict:
    """Hold the history against the promise of each class. `strays`: messages to the typed client's inbox after the answer."""
    verdict = Verdict()
    for kind in KINDS:
        verdict.outcomes[kind] = dict(Counter(a.outcome or "no answer" for a in asked if a.kind == kind))
    verdict.second_answers = sum(a.answers - 1 for a in asked if a.answers > 1) + strays
    _check_answers(verdict, faults=faults)
    _check_executions(asked, executions, verdict)
    waits = sorted((a.ended - a.sent) * 1000 for a in asked if a.outcome == OK)
    if waits:
        verdict.p50_ms, verdict.p99_ms = waits[len(waits) // 2], waits[int(len(waits) * 0.99)]
    return verdict


def _check_answers(verdict: Verdict, *, faults: bool) -> None:
    for kind, outcomes in verdict.outcomes.items():
        for outcome, number in sorted(outcomes.items()):
            silent = outcome == "no answer"
            if silent and kind == "plain" and faults:
                continue  # the third class: a kill may silence a stock client's request
            if silent:
                verdict.broken.append(f"{number} {kind} requests were never answered")
            elif outcome != OK and not (faults and outcome in EXPLAINED):
                verdict.broken.append(f"{number} {kind} requests were answered {outcome}")
    if verdict.second_answers and not faults:
        verdict.broken.append(f"{verdict.second_answers} second answers")


def _check_executions(asked: list[Asked], executions: list[Execution], verdict: Verdict) -> None:
    runs: dict[int, int] = Counter(e.n for e in executions)
    kinds = {a.n: a.kind for a in asked}
    twice = [n for n, times in runs.items() if times > 1 and kinds.get(n) != "again"]
    verdict.executed_twice = len(twice)
    if twice:
        verdict.broken.append(f"{len(twice)} requests that may run once ran more often, first {twice[0]}")
    unseen = [a.n for a in asked if a.outcome == OK and a.n not in runs]
    if executions and unseen:
        verdict.broken.append(f"{len(unseen)} were answered ok but never executed, first {unseen[0]}")
    verdict.late = sum(e.deadline > 0 and e.at > e.deadline + OVERLAP_S for e in executions)
    if verdict.late:
        verdict.broken.append(f"{verdict.late} were executed after their deadline")
    verdict.overlaps = _overlaps(executions)
    if verdict.overlaps:
        verdict.broken.append(f"two instances at once: {verdict.overlaps[0]}")


def _overlaps(executions: list[Execution]) -> list[str]:
    """Executions of one process lie before or after all those of another."""
    spans: dict[int, tuple[float, float]] = {}
    for execution in executions:
        first, last = spans.get(execution.pid, (execution.at, execution.at))
        spans[execution.pid] = (min(first, execution.at), max(last, execution.at))
    found = []
    ordered = sorted(spans.items(), key=lambda item: item[1][0])
    for (pid, (_, end)), (after, (start, _)) in pairwise(ordered):
        if start < end - OVERLAP_S:
            found.append(f"process {after} began at {start:.3f} while {pid} ran until {end:.3f}")
    return found
