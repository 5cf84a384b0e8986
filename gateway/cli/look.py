"""`status` and `ps`: what is awake, why, and what it costs. A look wakes nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from gateway.cli.desk import AsJson, Desk, desk_of

if TYPE_CHECKING:
    from rich.text import Text

    from gateway.cli.home import Running
    from gateway.cli.process import Seen
    from schemas.madre import ActorList, ActorStatus, Window

WORRIES = ("failed", "adopting", "draining", "handover", "waking", "active", "dormant")
"""States in the order of the table: what needs a person comes first."""


def status(ctx: typer.Context, json: AsJson = False) -> None:
    """Show every actor: its state, its gate, and why it is so."""
    from gateway.cli.home import recorded
    from schemas.madre import ListActors

    desk = desk_of(ctx, json=json)
    actors = desk.ask(ListActors())
    run = None if desk.settings.get("VX11_URL") else recorded(desk.settings)
    document = actors.model_dump(mode="json", by_alias=True)
    if run:
        document |= {
            "version": run.version,
            "http_url": run.http_url,
            "nats_url": run.nats_url,
            "started_at": run.started_at,
        }
    desk.screen.data(document, lambda: _draw_status(desk, actors, run))


def _draw_status(desk: Desk, actors: ActorList, run: Running | None) -> None:
    from gateway.cli.amount import age

    awake = sum(actor.state != "dormant" for actor in actors.actors)
    since = f", up {age(run.started_at)}" if run and age(run.started_at) else ""
    title = f"VX11 {run.version}" if run else "VX11"
    desk.screen.line(f"{title}: mode {actors.mode}, {awake} of {len(actors.actors)} actors awake{since}")
    if run:
        doors = {"gateway": run.http_url, "bus": run.nats_url, "home": str(run.home)}
        desk.screen.line("   ".join(f"{name} {where}" for name, where in doors.items() if where))
    desk.screen.line()
    ordered = sorted(actors.actors, key=lambda actor: (WORRIES.index(actor.state), actor.name))
    columns = ("actor", "state", ">for", "gate", ">wakes", ">last wake", ">in hand", "why")
    desk.screen.table(columns, [_status_row(desk, actor) for actor in ordered])
    for window in actors.windows:
        desk.screen.line(_window_line(window))


def _status_row(desk: Desk, actor: ActorStatus) -> tuple[str | Text, ...]:
    from gateway.cli.amount import age

    gate = actor.gate.replace("_", " ") + (" (pinned)" if actor.gate_pinned else "")
    wake = "–" if actor.last_wake_ms is None else f"{actor.last_wake_ms:.0f} ms"
    hand = f"{actor.in_flight}+{actor.held} held" if actor.held else str(actor.in_flight)
    return (
        actor.name,
        desk.screen.state(actor.state),
        age(actor.since),
        gate,
        str(actor.wakes),
        wake,
        hand,
        actor.reason,
    )


def _window_line(window: Window) -> str:
    from gateway.cli.amount import lasting

    left = "until closed" if window.ttl_remaining_sec is None else f"{lasting(window.ttl_remaining_sec)} left"
    why = f": {window.reason}" if window.reason else ""
    return f"window {window.window_id} keeps {', '.join(window.services)} awake, {left}{why}"


def ps(ctx: typer.Context, json: AsJson = False) -> None:
    """Show the processes of this machine's VX11, with the memory of each."""
    from gateway.cli.home import running
    from gateway.cli.process import processes
    from schemas.errors import Failure
    from schemas.madre import ListActors

    desk = desk_of(ctx, json=json)
    if desk.settings.get("VX11_URL"):
        raise Failure(
            "invalid",
            "ps reads the processes of this machine, but VX11_URL points to another",
            next=[["vx11 status", "what its actors do"], ["unset VX11_URL", "to ask this machine"]],
        )
    run = running(desk.settings)
    try:
        actors = desk.ask(ListActors()).actors
    except Failure as failure:
        desk.screen.talk(f"madre does not answer ({failure.message}); processes are shown without actor names")
        actors = []
    seen = processes(run, {actor.pid: actor.name for actor in actors if actor.pid})
    asleep = [actor.name for actor in actors if actor.state == "dormant"]
    desk.screen.data(_ps_document(seen, asleep), lambda: _draw_ps(desk, seen, asleep))


def _ps_document(seen: list[Seen], asleep: list[str]) -> dict[str, Any]:
    return {
        "processes": [process.document() for process in seen],
        "memory_bytes": sum(process.memory_bytes for process in seen),
        "asleep": asleep,
    }


def _draw_ps(desk: Desk, seen: list[Seen], asleep: list[str]) -> None:
    from gateway.cli.amount import lasting, size

    kinds = sorted({process.kind.upper() for process in seen})
    title = f">memory ({kinds[0]})" if len(kinds) == 1 else ">memory"
    rows = [
        (
            "  " * process.depth + process.name,
            str(process.pid),
            size(process.memory_bytes) + ("" if len(kinds) == 1 else f" {process.kind.upper()}"),
            lasting(process.cpu_s),
            lasting(process.age_s),
        )
        for process in seen
    ]
    desk.screen.table(("process", ">pid", title, ">cpu time", ">up"), rows)
    total = size(sum(process.memory_bytes for process in seen))
    desk.screen.line()
    desk.screen.line(f"{len(seen)} processes, {total} together ({' and '.join(kinds)})")
    if asleep:
        desk.screen.line(f"asleep, without a process: {', '.join(asleep)}")
