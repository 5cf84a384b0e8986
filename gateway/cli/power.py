"""`wake`, `sleep`, `restart`, `gate`, `window` and `policy`: who may be awake, and who is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gateway.cli.desk import AsJson, Desk, desk_of

if TYPE_CHECKING:
    from schemas.errors import Failure
    from schemas.madre import Moved, Window
    from schemas.message import Request

Names = Annotated[list[str], typer.Argument(help="Actors, for instance: switch operator_backend", metavar="ACTOR...")]
Reason = Annotated[str, typer.Option(help="Why; shown to whoever asks later.")]

BAD_NEWS = 1
"""Exit code: it was done, but not everything went well."""

window = typer.Typer(help="Keep actors awake for a time, or until told otherwise.", no_args_is_help=True)


def wake(ctx: typer.Context, actors: Names, reason: Reason = "woken from the command line", json: AsJson = False) -> None:
    """Wake actors."""
    from schemas.madre import Wake

    _move(desk_of(ctx, json=json), actors, lambda name: Wake(name=name, reason=reason))


def sleep(ctx: typer.Context, actors: Names, reason: Reason = "put to sleep from the command line", json: AsJson = False) -> None:
    """Let actors finish what they do, and sleep."""
    from schemas.madre import Sleep

    _move(desk_of(ctx, json=json), actors, lambda name: Sleep(name=name, reason=reason))


def restart(ctx: typer.Context, actors: Names, reason: Reason = "restarted from the command line", json: AsJson = False) -> None:
    """Let actors finish and sleep, then wake them with the code of now."""
    from schemas.madre import Restart

    _move(desk_of(ctx, json=json), actors, lambda name: Restart(name=name, reason=reason))


def _move(desk: Desk, names: list[str], message: Callable[[str], Request[Moved]]) -> None:
    from gateway.cli.remote import request_each
    from schemas.errors import CODES

    moved, failed = desk.run(lambda remote: request_each(remote, names, message))
    if len(names) == 1 and failed:
        raise _about(*failed[0])
    document: dict[str, Any] = {
        "moved": [one.model_dump(mode="json", by_alias=True) for one in moved],
        "failed": [{"service": name, **failure.document()} for name, failure in failed],
    }
    desk.screen.data(document, lambda: _draw_moved(desk, moved))
    if not desk.screen.json:
        for name, failure in failed:
            desk.screen.failure(failure, actor=name)
    if failed:
        raise typer.Exit(CODES[failed[0][1].code].exit)
    if any(one.error for one in moved):
        raise typer.Exit(BAD_NEWS)


def _about(name: str, failure: Failure) -> Failure:
    """The failure, with the actor that it is about."""
    failure.details.setdefault("actor", name)
    return failure


def _draw_moved(desk: Desk, moved: list[Moved]) -> None:
    for one in moved:
        stayed = "still" if one.error else "was already"
        went = f"{stayed} {one.to}" if one.from_ == one.to else f"{one.from_} -> {one.to}"
        said = f": {one.error}" if one.error else f", {one.elapsed_ms:.0f} ms"
        desk.screen.line(f"{one.service}: {went}{said}")


def gate(
    ctx: typer.Context,
    actor: Annotated[str, typer.Argument(help="The actor.", metavar="ACTOR")],
    to: Annotated[
        Literal["on_demand", "window", "closed"] | None,
        typer.Argument(help="on_demand: wakes when asked. window: only in an open window. closed: not at all. Without it: show."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Show or set whether an actor may wake. Survives a restart."""
    from schemas.madre import GetActor, SetGate

    desk = desk_of(ctx, json=json)
    status = desk.ask(SetGate(name=actor, gate=to)) if to else desk.ask(GetActor(name=actor)).status
    pinned = ", pinned by the environment" if status.gate_pinned else ""
    may = "may wake now" if status.allowed else "may not wake now"
    document = {
        "name": status.name,
        "gate": status.gate,
        "gate_pinned": status.gate_pinned,
        "allowed": status.allowed,
        "state": status.state,
    }
    desk.screen.data(document, lambda: desk.screen.line(f"{status.name}: {status.gate}{pinned}; {may}; {status.state}"))


@window.command("open")
def open_window(
    ctx: typer.Context,
    actors: Names,
    lasts: Annotated[str, typer.Option("--for", help="How long: 90s, 30m, 2h.", metavar="TIME")] = "",
    hold: Annotated[bool, typer.Option("--hold", help="Until it is closed.")] = False,
    reason: Reason = "",
    json: AsJson = False,
) -> None:
    """Wake actors and keep them awake: half an hour, unless told otherwise."""
    from gateway.cli.amount import seconds
    from schemas.madre import OpenWindow

    if hold and lasts:
        raise typer.BadParameter("a window lasts a time (--for) or until it is closed (--hold), not both")
    try:
        ttl = None if hold else seconds(lasts or DEFAULT_WINDOW)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from error
    desk = desk_of(ctx, json=json)
    opened = desk.ask(OpenWindow(services=actors, ttl_sec=ttl, mode="hold" if hold else "ttl", reason=reason))

    def draw() -> None:
        desk.screen.line(f"window {opened.window.window_id} is open, {_left(opened.window)}")
        _draw_moved(desk, opened.woken)

    desk.screen.data(opened.model_dump(mode="json", by_alias=True), draw)
    if any(one.error for one in opened.woken):
        raise typer.Exit(BAD_NEWS)


DEFAULT_WINDOW = "30m"


@window.command("close")
def close_window(
    ctx: typer.Context,
    window_id: Annotated[str, typer.Argument(help="Which; without it the only one open.", metavar="ID")] = "",
    json: AsJson = False,
) -> None:
    """Close a window; its actors sleep once they have finished."""
    from schemas.madre import CloseWindow

    desk = desk_of(ctx, json=json)
    closed = desk.ask(CloseWindow(window_id=window_id or None))

    def draw() -> None:
        desk.screen.line(f"window {closed.window.window_id} is closed")
        _draw_moved(desk, closed.slept)

    desk.screen.data(closed.model_dump(mode="json", by_alias=True), draw)


@window.command("ls")
def list_windows(ctx: typer.Context, json: AsJson = False) -> None:
    """Show the open windows."""
    from schemas.madre import ListWindows

    desk = desk_of(ctx, json=json)
    found = desk.ask(ListWindows())

    def draw() -> None:
        if not found.windows:
            desk.screen.line("no window is open")
            return
        rows = [(one.window_id, ", ".join(one.services), _left(one), one.reason) for one in found.windows]
        desk.screen.table(("window", "actors", "lasts", "why"), rows)

    desk.screen.data(found.model_dump(mode="json", by_alias=True), draw)


def _left(window: Window) -> str:
    from gateway.cli.amount import lasting

    return "until it is closed" if window.ttl_remaining_sec is None else f"{lasting(window.ttl_remaining_sec)} left"


def policy(
    ctx: typer.Context,
    what: Annotated[
        Literal["show", "solo_madre", "full"],
        typer.Argument(help="solo_madre: everything sleeps until asked. full: everything is kept awake."),
    ] = "show",
    json: AsJson = False,
) -> None:
    """Show or apply the rule for all. Survives a restart."""
    from schemas.madre import ApplyPolicy, GetPolicy

    desk = desk_of(ctx, json=json)
    if what == "show":
        found = desk.ask(GetPolicy())
        said = f"policy {found.policy}, mode {found.mode}; awake: {', '.join(found.running) or 'nobody'}"
        desk.screen.data(found.model_dump(mode="json", by_alias=True), lambda: desk.screen.line(said))
        return
    applied = desk.ask(ApplyPolicy(policy=what))

    def draw() -> None:
        desk.screen.line(f"policy {applied.policy}: {applied.status}")
        _draw_moved(desk, applied.executed)

    desk.screen.data(applied.model_dump(mode="json", by_alias=True), draw)
    if applied.status != "ok":
        raise typer.Exit(BAD_NEWS)
