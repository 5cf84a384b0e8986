"""What `torture` shows: how far it is, and at the end the counts of each outcome, how long each fault lasted, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway.cli.screen import Screen
from gateway.torture.history import Struck
from gateway.torture.lives import Events
from gateway.torture.run import Progress, Report
from gateway.torture.verdict import Recovery, Verdict

NEVER = "never"


def progress(now: Progress) -> str:
    """Lines: how far, what came of the requests and events so far, the last fault and how it was recovered from."""
    plan = now.plan
    if now.doing:
        return now.doing
    goal = f"{now.seconds:.0f} of {plan.seconds:.0f} s" if plan.seconds else f"{now.cycles} of {plan.cycles} cycles"
    faults = f", {len(now.struck)} faults" if plan.faults else ""
    told = [f"{goal}, {now.cycles} cycles{faults}" if plan.seconds else f"{goal}{faults}"]
    told.append(f"  requests  {now.requests:,}: {_counts(now.outcomes)}")
    if plan.events:
        told.append(f"  events    {now.acked:,} acknowledged, {now.handled:,} handled")
    if now.struck:
        told.append(f"  last      {_last(now.struck[-1])}")
    return "\n".join(told)


def _last(struck: Struck) -> str:
    at = "" if struck.moment == "any" else f" at {struck.moment}"
    if not struck.until:
        return f"{struck.what} {struck.victim}{at}"
    return f"{struck.what} {struck.victim}{at}; answered: {_time(struck.answered_s)}, itself again: {_time(struck.recovered_s)}"


def draw(screen: Screen, report: Report, folder: Path | None) -> None:
    """`folder`: where the history is, or None when it is gone."""
    verdict, seed = report.verdict, report.plan.seed
    word = "the promise held" if report.ok else "THE PROMISE IS BROKEN"
    screen.line(f"{word}: {report.cycles} cycles, {report.requests:,} requests in {report.seconds:g} s, seed {seed}")
    for sentence in verdict.broken:
        screen.line(f"  {sentence}")
    if not report.finished:
        screen.line(f"torture was ended before its end; {verdict.open:,} requests were under way, and are not judged")
    if verdict.outcomes:
        screen.line()
        _draw_outcomes(screen, verdict)
    if verdict.events.published:
        screen.line()
        _draw_events(screen, verdict.events)
    if verdict.recoveries:
        screen.line()
        _draw_faults(screen, verdict.recoveries)
    if report.storm:
        storm = report.storm
        screen.line()
        screen.line(
            f"storm: {storm.requests:,} at once to a sleeper: {_counts(storm.outcomes)}; woken {storm.activations} time(s)"
        )
        screen.line(f"  answered within {storm.p50_ms:.0f} ms (median), {storm.p99_ms:.0f} ms (99 of 100)")
    if folder:
        screen.line()
        screen.line(f"its history and logs stay in {folder}")


def _draw_outcomes(screen: Screen, verdict: Verdict) -> None:
    columns = list(dict.fromkeys(["ok", *(outcome for found in verdict.outcomes.values() for outcome in found)]))
    rows = [(kind, *(f"{found.get(one, 0):,}" for one in columns)) for kind, found in verdict.outcomes.items()]
    screen.table(("requests", *(f">{one}" for one in columns)), rows)
    screen.line()
    screen.line(f"answered in {verdict.p50_ms:g} ms (median), {verdict.p99_ms:g} ms (99 of 100)")
    held = f"held for a sleeper: {verdict.held:,}, {verdict.held_p50_ms:g} ms and {verdict.held_p99_ms:g} ms"
    screen.line(f"  {held}; directly: {verdict.direct:,}")
    screen.line(f"with a deadline: {verdict.dated:,}; executed after it: {verdict.executed_late}")
    screen.line(
        f"executed: {verdict.executed:,}; twice, though once was asked: {verdict.executed_twice};"
        f" though refused: {verdict.refused_executed}; crashed, though nobody had begun them: {verdict.crashed_unbegun}"
    )
    screen.line(
        f"second or late answers: {verdict.second_answers}; of another request: {verdict.others};"
        f" two instances at once: {len(verdict.overlaps)}"
    )


def _draw_events(screen: Screen, events: Events) -> None:
    screen.line(f"events: {events.published:,} published, {events.acked:,} acknowledged, of these {events.handled:,} handled")
    screen.line(
        f"  lost: {events.lost}; not in the log: {events.not_stored}; handled again: {events.handled_again};"
        f" from nowhere: {events.unknown}; the log holds {events.log:,}"
    )


def _draw_faults(screen: Screen, recoveries: Sequence[Recovery]) -> None:
    rows = [(one.fault, str(one.times), *map(_time, one.answered_s), *map(_time, one.recovered_s)) for one in recoveries]
    spread = (">99 of 100", ">worst")
    screen.table(("fault", ">times", ">next answer", *spread, ">itself again", *spread), rows)


def _counts(outcomes: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {outcome}" for outcome, number in sorted(outcomes.items(), key=lambda item: -item[1]))


def _time(value: float | None) -> str:
    return NEVER if value is None else f"{value:.2f} s"
