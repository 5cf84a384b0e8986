"""`events`: what happened, from the event log, and with `--follow` what happens. A look wakes nobody."""

from __future__ import annotations

import sys
import time
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gateway.cli.desk import AsJson, Desk, desk_of

if TYPE_CHECKING:
    from bus.client import Bus
    from bus.eventlog import EventLog, Stored
    from gateway.cli.remote import Remote
    from gateway.http.lines import EventLine

LINES = 50
SINCE_LINES = 10_000
"""With `--since` and without `--limit`."""
BLOCK = 512
BLOCK_MOST = 65_536
"""Events that are looked at in one piece, from the newest on: ever longer ones, for what is rare."""
EVERYTHING = ">"
PREFIX = "vx11.events."
SEVERITIES = ("debug", "info", "warning", "error")
CLOCK = slice(11, 23)
"""The time of day in an RFC 3339 moment."""


@dataclass(frozen=True)
class Wanted:
    """What the server looks for, and what is kept of it."""

    subject: str = EVERYTHING
    actor: str = ""
    severity: str = "debug"
    correlation: str = ""
    since: float = 0.0

    def keeps(self, line: EventLine, at: float) -> bool:
        return (
            at >= self.since
            and (not self.actor or line.module == self.actor)
            and (not self.correlation or line.correlation_id == self.correlation)
            and SEVERITIES.index(line.severity) >= SEVERITIES.index(self.severity)
        )


def events(
    ctx: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more happens; Ctrl-C ends it.")] = False,
    since: Annotated[str, typer.Option(help="From then on: 10m, 2h, or 2026-01-02T03:04:05Z.", metavar="TIME")] = "",
    subject: Annotated[str, typer.Option("--filter", help="Only these, with * and >: 'power.*.switch'.", metavar="SUBJECT")] = "",
    actor: Annotated[str, typer.Option(help="Only what an actor said, or what is told of its life.")] = "",
    severity: Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="Only this or worse.")] = "debug",
    correlation: Annotated[str, typer.Option(help="Only one conversation.", metavar="ID")] = "",
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=0, help="How many of the newest; 50, or with --since 10,000.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Show what happened: the stored events. With --json one document a line."""
    desk = desk_of(ctx, json=json)
    wanted = Wanted(subject_of(subject), actor, severity, correlation, moment_of(since))
    most = limit if limit is not None else SINCE_LINES if since else LINES
    try:
        desk.run(lambda remote: _show(desk, _bus_of(remote), wanted, most, follow=follow))
    except KeyboardInterrupt:
        return


def subject_of(text: str) -> str:
    """As it is typed, with or without the prefix. Raises Failure("invalid")."""
    from schemas.errors import Failure

    if not text or text == EVERYTHING:
        return EVERYTHING
    whole = text if text.startswith(PREFIX) else PREFIX + text
    tokens = whole.split(".")
    if any(not token or token.split() != [token] for token in tokens) or EVERYTHING in tokens[:-1]:
        raise Failure("invalid", f"{text!r} is no subject; write for instance 'power.*.switch' or 'switch.>'")
    return whole


def moment_of(text: str, now: float | None = None) -> float:
    """Seconds since the epoch of a duration back from now, or of an RFC 3339 moment; 0.0 for none. Raises Failure("invalid")."""
    from datetime import UTC, datetime

    from gateway.cli.amount import seconds
    from schemas.errors import Failure

    if not text:
        return 0.0
    try:
        if "T" not in text:
            return (time.time() if now is None else now) - seconds(text)
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Failure("invalid", f"{text!r} is no moment; write for instance 10m, 2h, or 2026-01-02T03:04:05Z") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _bus_of(remote: Remote) -> Bus:
    from gateway.cli.bus_remote import BusRemote
    from schemas.errors import Failure

    if isinstance(remote, BusRemote):
        return remote.bus
    raise Failure(
        "invalid",
        "events reads the bus of this machine, but VX11_URL points to a gateway",
        next=[
            [f'curl -H "X-VX11-Token: …" {remote.where}/operator/api/events', "its events"],
            ["unset VX11_URL", "this machine's"],
        ],
    )


async def _show(desk: Desk, bus: Bus, wanted: Wanted, limit: int, *, follow: bool) -> None:
    from bus.eventlog import EventLog

    log = EventLog(bus)
    _, last = await log.bounds()
    found = await newest(log, wanted, limit, last)
    for stored, line in found:
        _print(desk, stored, line)
    if not found and not follow:
        desk.screen.talk(f"no event matches; the log ends with sequence {last}", style="dim")
    if follow:
        await _follow(desk, log, wanted, last)


async def newest(log: EventLog, wanted: Wanted, limit: int, last: int) -> list[tuple[Stored, EventLine]]:
    """The last `limit` that are wanted, up to the sequence `last`, oldest first."""
    from gateway.http.lines import line_of

    first, _ = await log.bounds()
    if wanted.since:
        from bus.moment import rfc3339

        first = await log.first_since(rfc3339(wanted.since)) or last + 1
    found: deque[tuple[Stored, EventLine]] = deque()
    top, span = last, BLOCK
    while top >= first and len(found) < limit:
        bottom = max(first, top - span + 1)
        for stored in reversed(await _between(log, bottom, top, wanted.subject)):
            line = line_of(stored)
            if len(found) < limit and wanted.keeps(line, stored.at):
                found.appendleft((stored, line))
        top, span = bottom - 1, min(2 * span, BLOCK_MOST)
    return list(found)


async def _between(log: EventLog, first: int, last: int, subject: str) -> list[Stored]:
    found: list[Stored] = []
    after = first - 1
    while after < last and (page := await log.read(after, min(BLOCK, last - after), subject=subject)):
        found += [stored for stored in page if stored.sequence <= last]
        after = page[-1].sequence
    return found


async def _follow(desk: Desk, log: EventLog, wanted: Wanted, after: int) -> None:
    from bus.following import Away, Gap, following
    from gateway.http.lines import line_of

    async with aclosing(following(log, after, subject=wanted.subject)) as told:
        async for one in told:
            if isinstance(one, Away):
                desk.screen.talk(f"the event log cannot be read just now, and is waited for: {one.why}")
            elif isinstance(one, Gap):
                _print_gap(desk, one)
            elif wanted.keeps(line := line_of(one), one.at):
                _print(desk, one, line)


def _print(desk: Desk, stored: Stored, line: EventLine) -> None:
    if desk.screen.json:
        desk.screen.json_line(document_of(stored, line))
        return
    said = "" if line.summary == stored.subject else f"  {line.summary}"
    desk.screen.line(f"{line.ts[CLOCK]}  {line.severity:<7}  {stored.subject.removeprefix(PREFIX)}{said}")
    sys.stdout.flush()


def _print_gap(desk: Desk, gap: Any) -> None:
    if desk.screen.json:
        desk.screen.json_line({"gap": {"from": gap.first, "to": gap.last, "reason": gap.reason}})
        return
    told = "another log, which begins anew" if gap.reason == "renewed" else "they are not there any more"
    desk.screen.line(f"--- gap: events {gap.first} to {gap.last} cannot be shown: {told}")
    sys.stdout.flush()


def document_of(stored: Stored, line: EventLine) -> dict[str, Any]:
    """One event for programs."""
    kept = line.model_dump(
        mode="json", include={"id", "ts", "type", "severity", "module", "correlation_id", "summary", "payload"}
    )
    return kept | {"subject": stored.subject}
