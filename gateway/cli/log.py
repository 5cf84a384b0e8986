"""`log`: is the event log what it was, take it out, bring it in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO, TypeVar

import typer

from gateway.cli.desk import AsJson, Desk, desk_of, run_async

if TYPE_CHECKING:
    from bus.client import Bus
    from gateway.cli.log_file import End
    from schemas.keeper import Finding, LogState, Verified
    from schemas.message import Message, Request

R = TypeVar("R", bound="Message")

log = typer.Typer(help="The event log: is it what it was, take it out, bring it in.", no_args_is_help=True)

BROKEN = 1
"""Exit code."""
HERE = "the log is read on the machine that VX11 runs on"
ACCEPT = 'vx11 log accept --reason "..."'


@log.command()
def status(ctx: typer.Context, json: AsJson = False) -> None:
    """Show what the keeper knows of the log; nothing is compared anew."""
    from schemas.keeper import GetLog

    desk = desk_of(ctx, json=json)
    state = _ask(desk, GetLog())
    desk.screen.data(state.model_dump(mode="json"), lambda: _draw_state(desk, state))
    if state.state == "broken":
        raise typer.Exit(BROKEN)


@log.command()
def verify(ctx: typer.Context, json: AsJson = False) -> None:
    """Read every event again and compare it with the chain."""
    from schemas.keeper import Verify

    desk = desk_of(ctx, json=json)
    verified = _ask(desk, Verify())
    desk.screen.data(verified.model_dump(mode="json"), lambda: _draw_verified(desk, verified))
    if not verified.whole:
        raise typer.Exit(BROKEN)


@log.command()
def accept(
    ctx: typer.Context,
    reason: Annotated[str, typer.Option(help="Why it is good enough; stays on record.", metavar="WHY")],
    by: Annotated[str, typer.Option(help="Who says so.", metavar="WHO")] = "",
    json: AsJson = False,
) -> None:
    """Take a broken log as it is: the chain begins anew behind its last event, the finding stays on record."""
    import getpass

    from schemas.keeper import Accept

    desk = desk_of(ctx, json=json)
    state = _ask(desk, Accept(reason=reason, by=by or getpass.getuser()))
    desk.screen.data(state.model_dump(mode="json"), lambda: _draw_state(desk, state))


@log.command("export")
def export_log(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="Where to; - is standard output.", metavar="FILE", allow_dash=True)],
    json: AsJson = False,
) -> None:
    """Write every event to a file, one JSON document a line, each with its hash."""
    desk = desk_of(ctx, json=json)
    desk.need_this_machine(HERE)
    with _target(file) as out:
        end, told = run_async(_export(desk, out))
    desk.screen.talk(f"{end.events} events, through {end.through}; {told}")
    if json and str(file) != "-":
        desk.screen.document({**end._asdict(), "compared": told})


@log.command("import")
def import_log(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="What `vx11 log export` wrote.", metavar="FILE", exists=True, dir_okay=False)],
    stream: Annotated[
        str, typer.Option(help="A new stream beside the log of the running VX11; without it into an empty home.", metavar="NAME")
    ] = "",
    json: AsJson = False,
) -> None:
    """Bring an exported log into an empty home, or into a stream of its own; every event is compared afterwards."""
    from gateway.cli.log_import import into_home, into_stream

    desk = desk_of(ctx, json=json)
    if stream:
        desk.need_this_machine(HERE)
    count, last = run_async(into_stream(desk.settings, file, stream) if stream else into_home(desk.settings, file))
    where = f"the stream {stream}" if stream else str(desk.settings.home)

    def draw() -> None:
        desk.screen.line(f"{count} events are in {where}, the last is {last}; each was read again and is as in {file}")

    desk.screen.data({"events": count, "last": last, "stream": stream, "home": str(desk.settings.home)}, draw)


def _ask(desk: Desk, message: Request[R]) -> R:
    """Raises Failure; without a keeper that says so, and not that nobody knows such an actor."""
    from schemas.errors import Failure

    desk.need_this_machine(HERE)
    try:
        return desk.ask(message)
    except Failure as failure:
        if failure.code != "not_found":
            raise
        raise Failure("unavailable", "the keeper does not answer", next=[["vx11 logs keeper", "why"]]) from failure


def _draw_state(desk: Desk, state: LogState) -> None:
    from gateway.cli.amount import age, size

    screen = desk.screen
    if state.state == "broken":
        screen.line(f"the log is broken: {state.reason}")
    else:
        screen.line(f"the log is {'whole' if state.state == 'whole' else 'being compared'}: {state.reason}")
    kept = f"{size(state.bytes)} of {size(state.max_bytes)}, kept {state.keep_days:g} days"
    screen.line(f"events      {state.first_sequence} to {state.last_sequence}, {kept}")
    screen.line(f"chain       begins behind {state.genesis.sequence}, head at {state.head.sequence}, {state.lag} events behind")
    newest = f", the newest at {state.checkpoint.sequence}, {age(state.checkpoint.at)} ago" if state.checkpoint else ""
    screen.line(f"checkpoints {state.checkpoints}{newest}")
    screen.line(f"index       events through {state.indexed_events}, calls through {state.indexed_calls}")
    for finding in state.findings:
        screen.line(f"found       {_finding(finding)}")
    if state.state == "broken":
        screen.advise([("vx11 log export FILE", "saves what is there"), (ACCEPT, "takes it as it is, and goes on from there")])


def _finding(finding: Finding) -> str:
    accepted = f"; accepted {finding.accepted_at} by {finding.accepted_by}: {finding.reason}" if finding.accepted_at else ""
    return f"{finding.found_at} at {finding.sequence}: {finding.told}{accepted}"


def _draw_verified(desk: Desk, verified: Verified) -> None:
    screen = desk.screen
    if verified.whole:
        what = f"events {verified.after + 1} to {verified.through}" if verified.checked else "no events"
        screen.line(f"whole: {what} are what they were ({verified.checked} compared in {verified.took_ms / 1000:.1f} s)")
    elif verified.finding:
        screen.line(f"broken at {verified.finding.sequence}: {verified.finding.told}")
    screen.line("not to be found by this:")
    for one in verified.undetectable:
        screen.line(f"  {one}")
    if not verified.whole:
        screen.advise([("vx11 log export FILE", "saves what is there"), (ACCEPT, "takes it as it is, and goes on from there")])


async def _export(desk: Desk, out: TextIO) -> tuple[End, str]:
    """Returns the end, and whether it is what the keeper vouches for."""
    from bus.chain import genesis
    from bus.eventlog import PAGE, STREAM, EventLog
    from gateway.cli.bus_remote import connected
    from gateway.cli.home import running
    from gateway.cli.log_file import Writer

    async with connected(running(desk.settings), desk.settings) as bus:
        source = EventLog(bus)
        first, last = await source.bounds()
        state = await _vouched(bus)
        joins = state is not None and state.genesis.sequence == first - 1
        after = bytes.fromhex(state.genesis.hash) if state and joins else genesis(STREAM, first - 1)
        writer, told = Writer(out, after), "not compared: the keeper does not vouch for this beginning"
        at = first - 1
        while at < last and (page := await source.read(at, min(PAGE, last - at))):
            for event in page:
                writer.write(event)
                if state and joins and event.sequence == state.head.sequence:
                    same = writer.head.hex() == state.head.hash
                    told = f"{'as' if same else 'NOT as'} the keeper has them through {event.sequence}"
            at = page[-1].sequence
        return writer.end(), told


async def _vouched(bus: Bus) -> LogState | None:
    from schemas.errors import Failure
    from schemas.keeper import GetLog

    try:
        return await bus.request(GetLog())
    except Failure:
        return None  # what the file is compared with is said in the end


@contextmanager
def _target(file: Path) -> Iterator[TextIO]:
    """A file that is whole or not there; nobody else reads it. Raises Failure when it cannot be written."""
    from schemas.errors import Failure

    if str(file) == "-":
        yield sys.stdout
        return
    made = file.with_name(f"{file.name}.part")
    try:
        made.touch(mode=0o600)
        with made.open("w", encoding="utf-8") as out:
            yield out
        made.replace(file)
    except OSError as error:
        if not error.filename and error.errno != ENOSPC:
            raise
        code: Literal["storage_full", "invalid"] = "storage_full" if error.errno == ENOSPC else "invalid"
        raise Failure(code, f"{file} cannot be written: {error.strerror}") from error
    finally:
        made.unlink(missing_ok=True)
