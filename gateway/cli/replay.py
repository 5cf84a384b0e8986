"""`replay`: play stored events again, at their own pace or another, into a sandbox; or show who was awake at a moment."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.desk import AsJson, Desk, desk_of

if TYPE_CHECKING:
    from bus.client import Bus
    from gateway.cli.remote import Remote
    from schemas.replay import Pace, StartReplay

RANGE = re.compile(r"(?P<first>\d*)(?:\.\.(?P<last>\d*))?")

Filters = Annotated[
    list[str] | None,
    typer.Option("--filter", help="Only these, with * and >: 'power.*.switch'. May be given again.", metavar="SUBJECT"),
]


def replay(
    ctx: typer.Context,
    since: Annotated[str, typer.Option(help="From then on: 10m, 2h, or 2026-01-02T03:04:05Z.", metavar="TIME")] = "",
    until: Annotated[str, typer.Option(help="Before that moment.", metavar="TIME")] = "",
    seq: Annotated[str, typer.Option(help="Sequences: 120..180, 120.. or 120.", metavar="A..B")] = "",
    filters: Filters = None,
    actor: Annotated[str, typer.Option(help="Only what an actor said, or what is told of its life.")] = "",
    correlation: Annotated[str, typer.Option(help="Only one conversation.", metavar="ID")] = "",
    speed: Annotated[
        float | None, typer.Option(min=0.1, max=1000.0, help="So many times as fast as it was; 1 if nothing is said.")
    ] = None,
    most: Annotated[bool, typer.Option("--max", help="As fast as it goes.")] = False,
    step: Annotated[bool, typer.Option("--step", help="One at a time: Enter for the next, 5 and Enter for five.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="To where they once went, not into the sandbox: whoever acts on them acts again.")
    ] = False,
    name: Annotated[str, typer.Option("--id", help="Of the sandbox, vx11.sandbox.<id>; else made up.", metavar="ID")] = "",
    show: Annotated[bool, typer.Option("--show", help="Print each event as it is played.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only; nothing is sent.")] = False,
    state: Annotated[bool, typer.Option("--state", help="Play nothing: show who was awake at the end, from the log.")] = False,
    json: AsJson = False,
) -> None:
    """Play stored events again. To hear them: `nats sub 'vx11.sandbox.>'`, or --show."""
    from gateway.cli import replay_stage

    desk = desk_of(ctx, json=json)
    wanted = order(
        pace=pace_of(speed, most=most, step=step),
        since=since,
        until=until,
        seq=seq,
        filters=filters,
        actor=actor,
        correlation_id=correlation,
        live=live,
        id=name,
        dry_run=dry_run,
    )
    if state:
        desk.run(lambda remote: _show_state(desk, _bus_of(remote), wanted))
        return
    ended = desk.run(lambda remote: replay_stage.play(desk, _bus_of(remote), wanted, show=show or (step and not json)))
    if ended:
        raise typer.Exit(ended)


def pace_of(speed: float | None, *, most: bool, step: bool) -> Pace:
    """Raises BadParameter when more than one is said."""
    if (speed is not None) + most + step > 1:
        raise typer.BadParameter("one of --speed, --max and --step says it")
    return "max" if most else "step" if step else 1.0 if speed is None else speed


def order(*, pace: Pace, since: str, until: str, seq: str, filters: list[str] | None, **more: Any) -> StartReplay:
    """What the options say. Raises Failure("invalid"), with what to write instead."""
    from bus.moment import rfc3339
    from gateway.cli.advice import understood
    from gateway.cli.events import moment_of, subject_of
    from schemas.errors import Failure
    from schemas.replay import StartReplay

    found = RANGE.fullmatch(seq)
    if seq and (not found or seq == ".."):
        raise Failure("invalid", f"{seq!r} are no sequences; write for instance 120..180, 120.. or 120")
    first, last = (found["first"], found["last"] if ".." in seq else found["first"]) if found else ("", "")
    try:
        moments = {key: rfc3339(moment_of(text), "microseconds") for key, text in (("since", since), ("until", until)) if text}
        return StartReplay(
            pace=pace,
            first=int(first or 0),
            last=int(last or 0),
            filters=[subject_of(text) for text in filters or ()],
            **moments,
            **more,
        )
    except ValueError as error:
        raise understood(error) or Failure("invalid", str(error)) from error


async def _show_state(desk: Desk, bus: Bus, wanted: StartReplay) -> None:
    """What the power events up to the end of the range amount to."""
    from bus.eventlog import EventLog
    from bus.moment import rfc3339
    from bus.power_table import power_table
    from bus.selection import range_of

    log = EventLog(bus)
    _, last, told = await range_of(log, wanted)
    begin, _ = await log.bounds()
    table = await power_table(log, last)
    rows = [row for _, row in sorted(table.rows.items()) if not wanted.actor or row.actor == wanted.actor]
    if begin > 1:
        told = [f"the log begins with sequence {begin}: of whom nothing was told since then is not in the table"]
    document = {
        "through": last,
        "complete": begin <= 1,
        "actors": {
            row.actor: {k: v for k, v in vars(row).items() if k not in ("actor", "at")} | {"at": rfc3339(row.at)} for row in rows
        },
    }
    desk.screen.data(document, lambda: _draw_state(desk, rows, last))
    for text in told:
        desk.screen.talk(text)


def _draw_state(desk: Desk, rows: list[Any], last: int) -> None:
    from bus.moment import rfc3339

    awake = sum(row.state not in ("dormant", "failed") for row in rows)
    desk.screen.line(f"at sequence {last}: {awake} of {len(rows)} awake")
    cells = [
        (row.actor, desk.screen.state(row.state), rfc3339(row.at), str(row.sequence), row.owner, str(row.wakes), row.reason)
        for row in rows
    ]
    desk.screen.table(("actor", "state", "since", ">by event", "run", ">wakes", "why"), cells)


def _bus_of(remote: Remote) -> Bus:
    from gateway.cli.bus_remote import BusRemote
    from schemas.errors import Failure

    if isinstance(remote, BusRemote):
        return remote.bus
    raise Failure(
        "invalid",
        "replay plays over the bus of this machine, but VX11_URL points to a gateway",
        next=[
            [
                f"curl -H 'X-VX11-Token: …' -H 'Content-Type: application/json' -d '{{\"pace\": \"max\"}}' {remote.where}/replay",
                "let that one play",
            ],
            ["unset VX11_URL", "to play here"],
        ],
    )
