"""`torture`: put a system of its own under load, force sleeps and wakes, kill and freeze, and count what came of it."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.desk import AsJson, Desk, desk_of, run_async

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.torture.history import Struck
    from gateway.torture.run import Plan, Report
    from gateway.torture.verdict import Verdict

BROKEN = 1
"""Exit code when the promise did not hold."""
SEEDS = 1_000_000
COUNTERS = (
    ("second or late answers", "second_answers"),
    ("executed twice", "executed_twice"),
    ("executed after their deadline", "executed_late"),
    ("crashed, though nobody had begun them", "crashed_unbegun"),
)


class Victim(StrEnum):
    actor = "actor"
    madre = "madre"
    host = "host"
    nats_server = "nats-server"
    tentaculo_link = "tentaculo_link"


def torture(
    ctx: typer.Context,
    cycles: Annotated[int, typer.Option(min=0, help="Forced sleeps and wakes.")] = 60,
    rate: Annotated[float, typer.Option(min=0.1, max=5_000, help="Requests a second.")] = 500.0,
    seconds: Annotated[float, typer.Option(min=0, help="Go on for so long, instead of counting cycles.")] = 0.0,
    kill: Annotated[list[Victim] | None, typer.Option(help="kill -9 this, again and again; may be repeated.")] = None,
    freeze: Annotated[list[Victim] | None, typer.Option(help="SIGSTOP this for 0.3 to 3 s; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the order and the moments of the faults; else drawn, and shown.")] = None,
    payload: Annotated[int, typer.Option(min=0, max=500_000, help="Bytes added to each request.")] = 0,
    storm: Annotated[int, typer.Option(min=0, max=4_000, help="At the end, so many requests at once to a sleeper.")] = 0,
    json: AsJson = False,
) -> None:
    """Prove the promise on a scratch system: each request is answered once, whatever sleeps, wakes or dies meanwhile.

    It has servers, ports and a folder of its own; what runs here is not touched.
    """
    from gateway.torture.run import Plan

    desk = desk_of(ctx, json=json)
    plan = Plan(
        cycles=cycles,
        rate=rate,
        seconds=seconds,
        kills=tuple(kill or ()),
        freezes=tuple(freeze or ()),
        seed=random.randrange(SEEDS) if seed is None else seed,  # noqa: S311 - to be repeatable, not secret
        pad=payload,
        storm=storm,
    )
    folder = Path(tempfile.mkdtemp(prefix="vx11-torture-"))
    report: Report | None = None
    try:
        report = _suffer(desk, folder, plan)
    finally:
        if report is None or report.ok:
            shutil.rmtree(folder, ignore_errors=True)
    desk.screen.data(report.document() | {"folder": "" if report.ok else str(folder)}, lambda: _draw(desk, report, folder))
    if not report.ok:
        raise typer.Exit(BROKEN)


def _suffer(desk: Desk, folder: Path, plan: Plan) -> Report:
    from gateway.torture.run import torture as run

    with _live(desk) as told:
        return run_async(run(folder, plan, told))


@contextlib.contextmanager
def _live(desk: Desk) -> Iterator[Callable[[Report], None]]:
    """One line on the terminal that says how far it is; nothing where nobody looks at it."""
    if desk.screen.json or not desk.screen.err.is_terminal:
        yield lambda _: None
        return
    with desk.screen.err.status("starting a scratch system") as status:
        yield lambda report: status.update(_progress(report))


def _progress(report: Report) -> str:
    plan = report.plan
    goal = f"{report.seconds:.0f} of {plan.seconds:.0f} s" if plan.seconds else f"{report.cycles} of {plan.cycles} cycles"
    faults = f", {len(report.struck)} faults" if plan.faults else ""
    return f"{goal}, {report.requests:,} requests{faults}"


def _draw(desk: Desk, report: Report, folder: Path) -> None:
    screen, verdict = desk.screen, report.verdict
    word = "the promise held" if report.ok else "THE PROMISE IS BROKEN"
    screen.line(f"{word}: {report.cycles} cycles, {report.requests:,} requests in {report.seconds:g} s, seed {report.plan.seed}")
    for sentence in verdict.broken:
        screen.line(f"  {sentence}")
    if verdict.outcomes:
        screen.line()
        _draw_outcomes(desk, verdict)
    if report.struck:
        screen.line()
        _draw_faults(desk, report.struck)
    if report.storm:
        storm = report.storm
        told = ", ".join(f"{number:,} {outcome}" for outcome, number in storm.outcomes.items())
        screen.line()
        screen.line(f"storm: {storm.requests:,} at once to a sleeper: {told}; woken {storm.activations} time(s)")
        screen.line(f"  answered within {storm.p50_ms:.0f} ms (median), {storm.p99_ms:.0f} ms (99 of 100)")
    if not report.ok:
        screen.line()
        screen.line(f"its logs, and what was executed, stay in {folder}")


def _draw_outcomes(desk: Desk, verdict: Verdict) -> None:
    columns = list(dict.fromkeys(["ok", *(outcome for found in verdict.outcomes.values() for outcome in found)]))
    rows = [(kind, *(f"{found.get(one, 0):,}" for one in columns)) for kind, found in verdict.outcomes.items()]
    desk.screen.table(("requests", *(f">{one}" for one in columns)), rows)
    desk.screen.line()
    desk.screen.line(f"answered in {verdict.p50_ms:g} ms (median), {verdict.p99_ms:g} ms (99 of 100)")
    held = f"held for a sleeper: {verdict.held:,}, {verdict.held_p50_ms:g} ms and {verdict.held_p99_ms:g} ms"
    desk.screen.line(f"  {held}; directly: {verdict.direct:,}")
    desk.screen.line("; ".join(f"{words}: {getattr(verdict, name)}" for words, name in COUNTERS))


def _draw_faults(desk: Desk, struck: list[Struck]) -> None:
    kinds = dict.fromkeys((one.what, one.victim) for one in struck)
    rows = []
    for what, victim in kinds:
        mine = [one for one in struck if (one.what, one.victim) == (what, victim)]
        answered, again = _spread([one.answered_s for one in mine]), _spread([one.recovered_s for one in mine])
        rows.append((f"{what} {victim}", str(len(mine)), *answered, *again))
    columns = ("fault", ">times", ">next answer", ">worst", ">itself again", ">worst")
    desk.screen.table(columns, rows)


def _spread(times: list[float | None]) -> tuple[str, str]:
    """The median and the worst; `never` for what took longer than was waited for."""
    ordered = sorted(float("inf") if one is None else one for one in times)
    return _seconds(ordered[len(ordered) // 2]), _seconds(ordered[-1])


def _seconds(value: float) -> str:
    return "never" if value == float("inf") else f"{value:.2f} s"
