"""`trace`: everything that happened under one correlation id, across HTTP, bus, wakes, actors and events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.desk import AsJson, Desk, desk_of

if TYPE_CHECKING:
    from rich.text import Text

    from bus.client import Bus
    from bus.spans import Span
    from bus.tracing import Traced
    from bus.tree import Branch
    from gateway.cli.remote import Remote

BAR = 40
BAR_LEAST = 10
"""Columns of the waterfall."""
BESIDE = 76
"""Columns that are left to what stands beside it."""
FRESH_S = 3.0
"""So long after the last span what is missing may still be on its way into the log."""
AGAIN_S = 0.25
LOOKS = 4
GLYPHS = {"server": "▸", "consumer": "●", "producer": "◆", "internal": "·"}
STYLE = {"server": "cyan", "consumer": "green", "producer": "magenta", "internal": "yellow"}


def trace(
    ctx: typer.Context,
    correlation_id: Annotated[str, typer.Argument(help="As an answer's X-Correlation-Id tells it.", metavar="CORRELATION_ID")],
    json: AsJson = False,
) -> None:
    """Show what happened under one correlation id, as a tree with a waterfall."""
    from schemas.errors import Failure

    desk = desk_of(ctx, json=json)
    desk.need_this_machine("trace reads the log of this machine")
    found = desk.run(lambda remote: _traced(remote, correlation_id))
    if not found.spans:
        raise Failure(
            "not_found",
            f"the log has nothing of {correlation_id!r}",
            why="records are kept for a day, and an answer's record comes within half a second",
            next=[["curl -si ... | grep -i x-correlation-id", "the id of an answer"]],
        )
    desk.screen.data(_document(correlation_id, found), lambda: _draw(desk, correlation_id, found))


async def _traced(remote: Remote, correlation_id: str) -> Traced:
    from bus.tracing import traced
    from gateway.cli.bus_remote import BusRemote

    assert isinstance(remote, BusRemote), "without VX11_URL the way is the bus"
    bus: Bus = remote.bus
    found = await traced(bus, correlation_id)
    for _ in range(LOOKS):
        if not found.partial or not _fresh(found):
            break
        await asyncio.sleep(AGAIN_S)
        found = await traced(bus, correlation_id)
    return found


def _fresh(found: Traced) -> bool:
    return not found.spans or time.time() - max(span.end_us for span in found.spans) / 1e6 < FRESH_S


def _document(correlation_id: str, found: Traced) -> dict[str, Any]:
    from bus.tree import document

    return {
        "correlation_id": correlation_id,
        "partial": found.partial,
        "found_by": found.how,
        "spans": [document(span) for span in found.spans],
    }


def _draw(desk: Desk, correlation_id: str, found: Traced) -> None:
    from bus.tree import tree

    roots = tree(found.spans)
    traces = len({span.trace_id for span in found.spans})
    spans = len(found.spans)
    told = f"{correlation_id}: {spans} span{'s' if spans > 1 else ''} in {traces} trace{'s' if traces > 1 else ''}"
    desk.screen.line(told)
    desk.screen.line()
    bar = max(BAR_LEAST, min(BAR, desk.screen.columns - BESIDE))
    rows = [row for root in roots for row in _rows(root, bar)]
    desk.screen.table(("what", ">at", ">took", "", "how"), rows)
    if found.how != "index":
        desk.screen.talk(found.how)
    for reason in found.partial:
        desk.screen.talk(f"partial: {reason}", style="yellow")


def _rows(root: Branch, bar: int) -> Iterator[tuple[str | Text, ...]]:
    """Each root has a scale of its own: hours may lie between two of them."""
    begin, end = _extent(root)

    def rows(branch: Branch, lead: str, below: str) -> Iterator[tuple[str | Text, ...]]:
        span = branch.span
        yield _what(span, lead), _at(span, begin, root=branch is root), _took(span), _bar(span, begin, end, bar), _how(span)
        for number, child in enumerate(branch.below):
            last = number == len(branch.below) - 1
            yield from rows(child, below + ("└ " if last else "├ "), below + ("  " if last else "│ "))

    yield from rows(root, "", "")


def _extent(branch: Branch) -> tuple[int, int]:
    extents = [(branch.span.start_us, branch.span.end_us), *map(_extent, branch.below)]
    return min(begin for begin, _ in extents), max(end for _, end in extents)


def _what(span: Span, lead: str) -> Text:
    from rich.text import Text

    from gateway.cli.screen import plain

    return Text.assemble((lead, "dim"), (f"{GLYPHS[span.kind]} ", STYLE[span.kind]), plain(span.name))


def _at(span: Span, begin: int, *, root: bool) -> str:
    from datetime import datetime

    if root:
        return datetime.fromtimestamp(span.start_us / 1e6).astimezone().strftime("%H:%M:%S.%f")[:-3]
    return f"{(span.start_us - begin) / 1e3:+.1f} ms"


def _took(span: Span) -> str:
    return "" if span.kind == "producer" else f"{span.took_ms:.1f} ms{' …' if span.open else ''}"


def _bar(span: Span, begin: int, end: int, columns: int) -> Text:
    from rich.text import Text

    whole = max(1, end - begin)
    start = min(columns - 1, (span.start_us - begin) * columns // whole)
    length = max(1, min(columns - start, round((span.end_us - span.start_us) * columns / whole)))
    style = "red" if span.error else STYLE[span.kind]
    return Text.assemble(" " * start, (("◆" if span.kind == "producer" else "━") * length, style))


def _how(span: Span) -> str:
    """How it ended, and what one wants to know of it."""
    told = span.attributes
    words = [str(told["http.response.status_code"])] if "http.response.status_code" in told else []
    words += [str(told[key]) for key in ("vx11.wake.reason",) if key in told]
    words += [span.error] if span.error else []
    if int(told.get("vx11.event.try", 1)) > 1:
        words.append(f"try {told['vx11.event.try']}")
    return ", ".join(words)
