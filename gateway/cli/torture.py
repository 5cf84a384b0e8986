"""`torture`: put a system of its own under load, force sleeps and wakes, kill and freeze, and check the history of it."""

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
from schemas.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.torture.run import Plan, Progress, Report

BROKEN = 1
"""Exit code when the promise did not hold."""
SEEDS = 1_000_000


class Victim(StrEnum):
    actor = "actor"
    madre = "madre"
    host = "host"
    nats_server = "nats-server"
    tentaculo_link = "tentaculo_link"


class Moment(StrEnum):
    any = "any"
    activate = "activate"
    waking = "waking"
    active = "active"
    draining = "draining"
    slept = "slept"


def torture(
    ctx: typer.Context,
    cycles: Annotated[int, typer.Option(min=0, help="Forced sleeps and wakes.")] = 60,
    rate: Annotated[float, typer.Option(min=0.1, max=5_000, help="Requests a second.")] = 500.0,
    events: Annotated[float, typer.Option(min=0, max=500, help="Durable events a second, for a sleeper.")] = 5.0,
    seconds: Annotated[float, typer.Option(min=0, help="Go on for so long, instead of counting cycles.")] = 0.0,
    actors: Annotated[int, typer.Option(min=1, max=16, help="So many that are asked, put to sleep and woken at once.")] = 1,
    kill: Annotated[list[Victim] | None, typer.Option(help="kill -9 this, again and again; may be repeated.")] = None,
    freeze: Annotated[list[Victim] | None, typer.Option(help="SIGSTOP this for 0.3 to 3 s; may be repeated.")] = None,
    at: Annotated[list[Moment] | None, typer.Option(help="Only right after this power event; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the order and the moments of the faults; else drawn, and shown.")] = None,
    payload: Annotated[int, typer.Option(min=0, max=500_000, help="Bytes added to each request.")] = 0,
    storm: Annotated[int, typer.Option(min=0, max=4_000, help="At the end, so many requests at once to a sleeper.")] = 0,
    keep: Annotated[Path | None, typer.Option(help="Leave history and logs in this new folder, whatever came of it.")] = None,
    check: Annotated[Path | None, typer.Option(help="Run nothing: judge the history that a torture has left there.")] = None,
    json: AsJson = False,
) -> None:
    """Prove the promise on a scratch system: each request is answered once, whatever sleeps, wakes or dies meanwhile.

    It has servers, ports and a folder of its own; what runs here is not touched. Every operation is written down before
    and after, and the verdict is made from these files alone.
    """
    from gateway.torture.run import Plan

    desk = desk_of(ctx, json=json)
    if check:
        _show(desk, _judge(check), check)
        return
    plan = Plan(
        cycles=cycles,
        rate=rate,
        seconds=seconds,
        kills=tuple(kill or ()),
        freezes=tuple(freeze or ()),
        seed=random.randrange(SEEDS) if seed is None else seed,  # noqa: S311 - to be repeatable, not secret
        pad=payload,
        storm=storm,
        moments=tuple(at or Moment),
        actors=actors,
        events=events,
    )
    folder = _new(keep) if keep else Path(tempfile.mkdtemp(prefix="vx11-torture-"))
    report: Report | None = None
    try:
        report = _suffer(desk, folder, plan)
    finally:
        if not keep and (report is None or report.ok):
            shutil.rmtree(folder, ignore_errors=True)
    _show(desk, report, folder if keep or not report.ok else None)


def _new(folder: Path) -> Path:
    """Nothing that is there already is mixed into a history. Raises Failure."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise Failure("conflict", f"--keep needs a folder that can be made: {folder}: {error.strerror}") from None
    return folder.absolute()


def _judge(folder: Path) -> Report:
    """What was kept, or the history itself. Raises Failure when there is none."""
    from gateway.torture.run import check, history_of

    return check(history_of(folder) if history_of(folder).is_dir() else folder)


def _suffer(desk: Desk, folder: Path, plan: Plan) -> Report:
    from gateway.torture.run import torture as run

    with _live(desk) as told:
        return run_async(run(folder, plan, told))


@contextlib.contextmanager
def _live(desk: Desk) -> Iterator[Callable[[Progress], None]]:
    """A few lines on the terminal that say how far it is; nothing where nobody looks at them."""
    if desk.screen.json or not desk.screen.err.is_terminal:
        yield lambda _: None
        return
    from gateway.cli.torture_report import progress

    with desk.screen.err.status("starting a scratch system") as status:
        yield lambda now: status.update(progress(now))


def _show(desk: Desk, report: Report, folder: Path | None) -> None:
    from gateway.cli.torture_report import draw

    desk.screen.data(report.document() | {"folder": str(folder or "")}, lambda: draw(desk.screen, report, folder))
    if not report.ok:
        raise typer.Exit(BROKEN)
