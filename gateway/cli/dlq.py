"""`dlq ls`, `show`, `retry`, `drop`: what could not be handled, why, and what becomes of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gateway.cli.desk import AsJson, Desk, desk_of

if TYPE_CHECKING:
    from datetime import datetime

    from gateway.cli.remote import Remote
    from schemas.dead import Dead, DeadLetter
    from schemas.errors import Failure
    from schemas.message import Request

dlq = typer.Typer(help="Dead letters: events and requests that could not be handled, kept whole.", no_args_is_help=True)

PAGE = 1_000
HEX_WIDTH = 16
DETAIL_MOST = 60
"""Characters of the detail in the table; `show` has all."""

Actor = Annotated[str, typer.Option(help="Only those of this actor.", metavar="ACTOR")]
Reason = Annotated[
    Literal["invalid", "failed", "crashed"] | None,
    typer.Option(
        "--reason", help="invalid: no handler can take it. failed: every try failed. crashed: those who tried died of it."
    ),
]
Since = Annotated[str, typer.Option(help="Buried then or later: 2h ago, or 2026-01-02T03:04:05Z.", metavar="TIME")]
Numbers = Annotated[list[int] | None, typer.Argument(help="As `vx11 dlq ls` shows them.", metavar="NUMBER...")]
All = Annotated[bool, typer.Option("--all", help="All letters, or all that the other options choose.")]


@dlq.command("ls")
def ls(
    ctx: typer.Context,
    actor: Actor = "",
    reason: Reason = None,
    since: Since = "",
    limit: Annotated[int, typer.Option(min=1, help="So many, the oldest first.")] = 100,
    json: AsJson = False,
) -> None:
    """Show dead letters, the oldest first."""
    desk = desk_of(ctx, json=json)
    letters, more = desk.run(lambda remote: _found(remote, actor, reason, _moment(since), limit))
    document = {"letters": [one.model_dump(mode="json") for one in letters], "more": more}
    desk.screen.data(document, lambda: _draw(desk, letters, more=more))


def _draw(desk: Desk, letters: list[Dead], *, more: bool) -> None:
    from gateway.cli.amount import age, size

    if not letters:
        desk.screen.line("no dead letters")
        return
    rows = [
        (
            str(one.sequence),
            one.actor,
            one.subject,
            one.reason,
            str(one.tries or "–"),
            age(one.buried_at),
            size(one.size),
            one.detail[:DETAIL_MOST],
        )
        for one in letters
    ]
    desk.screen.table((">number", "actor", "from", "reason", ">tries", ">ago", ">size", "why"), rows)
    if more:
        desk.screen.talk(f"there are more; vx11 dlq ls --limit {2 * len(letters)}")


@dlq.command("show")
def show(
    ctx: typer.Context,
    number: Annotated[int, typer.Argument(help="Number of a letter.", metavar="NUMBER")],
    raw: Annotated[bool, typer.Option("--raw", help="Only the body, byte for byte.")] = False,
    json: AsJson = False,
) -> None:
    """Show one letter whole: where it came from, its tries, its headers and its body."""
    import sys

    desk = desk_of(ctx, json=json)
    letter, body = desk.run(lambda remote: _whole(remote, number))
    if raw:
        sys.stdout.buffer.write(body)
        return
    text, encoding = _readable(body)
    document = letter.model_dump(mode="json") | {"body": text, "encoding": encoding}
    desk.screen.data(document, lambda: _draw_letter(desk, letter, body))


def _draw_letter(desk: Desk, shown: DeadLetter, body: bytes) -> None:
    from gateway.cli.amount import age, size

    one = shown.letter
    line = desk.screen.line
    line(f"dead letter {one.sequence} of {one.actor}: {one.reason}")
    line(f"  from     {one.subject}" + (f" ({one.stream} {one.stored_as})" if one.stream else ""))
    line(f"  for      {one.consumer or 'whoever asked; the answer is that it crashed'}")
    line(f"  buried   {one.buried_at} ({age(one.buried_at)} ago)")
    line(f"  why      {one.detail}")
    for past in shown.history:
        line(f"  try {past.get('try', '?'):<4} {past.get('at', '')}  {past.get('error', '')}")
    told = one.tries - len(shown.history)
    if one.tries and told > 0:
        line(f"  {told} of {one.tries} tries ended with their process")
    for name, value in shown.headers.items():
        line(f"  header   {name}: {value}")
    line(f"  body     {size(len(body))}")
    text, encoding = _readable(body)
    line(text if encoding == "text" else _hex(body))


@dlq.command("retry")
def retry(
    ctx: typer.Context,
    numbers: Numbers = None,
    every: All = False,
    actor: Actor = "",
    reason: Reason = None,
    since: Since = "",
    json: AsJson = False,
) -> None:
    """Give letters back to the handler that could not take them; to no other handler of the same event."""
    from schemas.dead import RetryDead

    desk = desk_of(ctx, json=json)
    chosen = _chosen(desk, numbers, (actor, reason, since), every=every)
    _each(desk, chosen, lambda number: RetryDead(sequence=number), "retried")


@dlq.command("drop")
def drop(
    ctx: typer.Context,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept in the log.")],
    numbers: Numbers = None,
    every: All = False,
    actor: Actor = "",
    since: Since = "",
    json: AsJson = False,
) -> None:
    """Remove letters for good."""
    from schemas.dead import DropDead

    desk = desk_of(ctx, json=json)
    chosen = _chosen(desk, numbers, (actor, None, since), every=every)
    _each(desk, chosen, lambda number: DropDead(sequence=number, reason=reason), "dropped")


def _chosen(desk: Desk, numbers: list[int] | None, wanted: tuple[str, str | None, str], *, every: bool) -> list[int]:
    """The numbers as given, or those of all letters that are wanted; never all without a word."""
    if bool(numbers) == bool(every or any(wanted)):
        raise typer.BadParameter("say which: numbers, as `vx11 dlq ls` shows them, or --all, --actor or another choice")
    if numbers:
        return numbers
    actor, reason, since = wanted
    letters, _ = desk.run(lambda remote: _found(remote, actor, reason, _moment(since), None))
    return [one.sequence for one in letters]


def _each(desk: Desk, numbers: list[int], message: Callable[[int], Request[Any]], done: str) -> None:
    """One after the other over one connection; a failure does not keep the others from it."""
    from gateway.cli.remote import request_each
    from schemas.errors import CODES

    good, failed = desk.run(lambda remote: request_each(remote, numbers, message))
    if len(numbers) == 1 and failed:
        raise failed[0][1]
    document: dict[str, Any] = {
        done: [one.model_dump(mode="json") for one in good],
        "failed": [{"sequence": number, **failure.document()} for number, failure in failed],
    }
    desk.screen.data(document, lambda: desk.screen.line(f"{len(good)} of {len(numbers)} {done}"))
    if failed:
        _tell(desk, failed)
        raise typer.Exit(CODES[failed[0][1].code].exit)


def _tell(desk: Desk, failed: Iterable[tuple[int, Failure]]) -> None:
    """Once for each kind of trouble, with the numbers."""
    numbers: dict[str, list[int]] = {}
    for number, failure in failed:
        numbers.setdefault(failure.code, []).append(number)
        if len(numbers[failure.code]) == 1 and not desk.screen.json:
            desk.screen.failure(failure)
    for code, those in numbers.items():
        desk.screen.talk(f"{code}: {', '.join(map(str, those))}")


async def _found(remote: Remote, actor: str, reason: Any, since: datetime | None, limit: int | None) -> tuple[list[Dead], bool]:
    """At most `limit` letters, and whether there are more."""
    from gateway.cli.remote import request
    from schemas.dead import ListDead

    found: list[Dead] = []
    after, more = 0, True
    while more and (limit is None or len(found) < limit):
        most = min(PAGE, limit - len(found)) if limit else PAGE
        page = await request(remote, ListDead(actor=actor, reason=reason, since=since, after=after, limit=most))
        found += page.letters
        after, more = page.next_after, page.more
    return found, more


async def _whole(remote: Remote, number: int) -> tuple[DeadLetter, bytes]:
    from base64 import b64decode

    from gateway.cli.remote import request
    from schemas.dead import GetDead

    shown = await request(remote, GetDead(sequence=number))
    piece, body = shown, b""
    while True:
        body += piece.body.encode() if piece.encoding == "text" else b64decode(piece.body)
        if len(body) >= shown.letter.size:
            return shown, body
        piece = await request(remote, GetDead(sequence=number, offset=len(body)))


def _moment(since: str) -> datetime | None:
    """`2h` is the moment two hours ago; what is no duration is taken for a moment."""
    from datetime import UTC, datetime, timedelta

    from gateway.cli.amount import seconds

    if not since:
        return None
    with contextlib.suppress(ValueError):
        return datetime.now(UTC) - timedelta(seconds=seconds(since.removesuffix("ago")))
    try:
        return datetime.fromisoformat(since).astimezone(UTC)
    except ValueError:
        raise typer.BadParameter("write for instance 2h, or 2026-01-02T03:04:05Z", param_hint="--since") from None


def _readable(body: bytes) -> tuple[str, str]:
    from base64 import b64encode

    try:
        return body.decode(), "text"
    except UnicodeDecodeError:
        return b64encode(body).decode(), "base64"


def _hex(body: bytes) -> str:
    """As `xxd` shows it."""
    rows = [body[at : at + HEX_WIDTH] for at in range(0, len(body), HEX_WIDTH)]
    return "\n".join(
        f"{number * HEX_WIDTH:08x}  {row.hex(' '):<{3 * HEX_WIDTH}} {''.join(chr(b) if 32 <= b < 127 else '.' for b in row)}"
        for number, row in enumerate(rows)
    )
