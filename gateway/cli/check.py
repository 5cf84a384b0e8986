"""A check of `vx11 doctor`: its name, what it found, and how a list of findings is shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from schemas.errors import Failure

if TYPE_CHECKING:
    from gateway.cli.desk import Desk

Verdict = Literal["pass", "fail", "skip", "later"]
P = TypeVar("P")


@dataclass(frozen=True)
class Finding:
    """`skip`: could not be looked at now, `said` says why. `later`: it comes with the work that `said` names."""

    verdict: Verdict
    said: str
    next: str = ""
    """What to type about it."""


@dataclass(frozen=True)
class Check(Generic[P]):
    """`look` is given the patient; whatever Failure it raises is the finding `fail`."""

    name: str
    look: Callable[[P], Awaitable[Finding]]


def passed(said: str) -> Finding:
    return Finding("pass", said)


def failed(said: str, next_: str = "") -> Finding:
    return Finding("fail", said, next_)


def skipped(said: str, next_: str = "") -> Finding:
    return Finding("skip", said, next_)


async def examine(checks: Sequence[Check[P]], patient: P) -> list[tuple[str, Finding]]:
    """One after the other, in order: some put load on what others measure."""
    return [(check.name, await _look(check, patient)) for check in checks]


async def _look(check: Check[P], patient: P) -> Finding:
    try:
        return await check.look(patient)
    except Failure as failure:
        return failed(f"{failure.code}: {failure.message}")
    except OSError as error:
        return failed(f"{type(error).__name__}: {error}")


def show(desk: Desk, findings: Sequence[tuple[str, Finding]]) -> bool:
    """Print them; whether none failed."""
    counts = {verdict: sum(1 for _, finding in findings if finding.verdict == verdict) for verdict in WORDS}

    def draw() -> None:
        rows = [(desk.screen.state(one.verdict, WORDS[one.verdict]), name, one.said) for name, one in findings]
        desk.screen.table(("", "check", "found"), rows)
        steps = list(dict.fromkeys((one.next, f"about: {name}") for name, one in findings if one.next))
        desk.screen.line()
        desk.screen.line(", ".join(f"{count} {WORDS[verdict]}" for verdict, count in counts.items() if count))
        desk.screen.advise(steps)

    desk.screen.data({"ok": not counts["fail"], "counts": counts, "checks": _documents(findings)}, draw)
    return not counts["fail"]


WORDS: dict[Verdict, str] = {"pass": "pass", "fail": "fail", "skip": "skip", "later": "to come"}


def _documents(findings: Sequence[tuple[str, Finding]]) -> list[dict[str, Any]]:
    return [{"check": name, "verdict": one.verdict, "found": one.said, "next": one.next} for name, one in findings]
