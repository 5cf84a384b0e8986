"""Finds what the log has of one conversation: by the keeper's index, and by reading where it does not reach."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import NamedTuple

from bus.client import Bus
from bus.eventlog import STREAM, EventLog, Stored, stored
from bus.moment import rfc3339
from bus.origin import object_in, origin_of, plain_sequence
from bus.spans import Span, spans_of
from bus.streams import CALLS
from bus.tree import marked, orphans
from schemas.errors import Failure
from schemas.keeper import FIND_MOST, Find, Found

RECORDS = "vx11.calls.>"
FIND_S = 3.0
PICKED = 64
"""Messages that are asked for at once, one by one."""
SCANNED_MOST = 100_000
"""Of each stream, when there is no index: its newest messages."""
PAGE = 500
UNDER_WAY_S = 120.0
"""For so long a handler may well be at work: its record comes when it has ended."""


class Traced(NamedTuple):
    """`partial`: why it may not be all; empty when nothing that should be there is missing."""

    spans: list[Span]
    partial: list[str]
    how: str


class Part(NamedTuple):
    """One stream of the two."""

    log: EventLog
    name: str
    sequences: list[int]
    indexed: int
    fits: Callable[[Stored], bool]


async def traced(bus: Bus, correlation_id: str) -> Traced:
    """The spans of a conversation. Raises Failure("unavailable") when the log cannot be read."""
    found, how = await _find(bus, correlation_id)
    plain = plain_sequence(correlation_id)
    events = sorted({*found.events, plain} - {0})
    parts = (
        Part(EventLog(bus), STREAM, events, found.indexed_events, _event_of(correlation_id)),
        Part(EventLog(bus, CALLS, RECORDS), CALLS, found.calls, found.indexed_calls, _call_of(correlation_id)),
    )
    messages: list[Stored] = []
    partial = [f"it has more than the {FIND_MOST} events or records that are shown"] if found.more else []
    for part in parts:
        messages += await _picked(part.log, part.sequences)
        if not found.more:
            messages += await _unindexed(part, partial)
    made = spans_of({(one.subject, one.sequence): one for one in messages}.values())
    spans = [span for span in made if span.conversation == correlation_id]
    return Traced(marked(spans), partial + missing(spans, time.time(), await _kept_since(parts[1].log)), how)


async def _unindexed(part: Part, partial: list[str]) -> list[Stored]:
    """What is behind the reach of the index; what is too much for that is told in `partial`."""
    first, last = await part.log.bounds()
    after = max(part.indexed, first - 1)
    if last - after > SCANNED_MOST:
        after = last - SCANNED_MOST
        partial.append(f"without the keeper only the newest {SCANNED_MOST} messages of {part.name} were read through")
    return await _scanned(part.log, after, last, part.fits)


async def _kept_since(records: EventLog) -> float:
    """When the oldest call record was stored; 0.0 while none has been removed."""
    first, last = await records.bounds()
    oldest = await records.read(first - 1, 1) if 1 < first <= last else []
    return oldest[0].at if oldest else 0.0


def missing(spans: list[Span], now: float, kept_since: float) -> list[str]:
    """Why the tree may not be whole. `kept_since`: when the oldest call record was stored; 0.0: none was removed yet."""
    told = [f"{span.name} is not over" for span in spans if span.open]
    lost: dict[str, int] = {}
    for span in orphans(spans):
        lost[_reason(span, now, kept_since)] = lost.get(_reason(span, now, kept_since), 0) + 1
    return told + [f"what {count} of these came from is missing: {reason}" for reason, count in lost.items()]


def _reason(span: Span, now: float, kept_since: float) -> str:
    if kept_since and span.start_us < kept_since * 1e6:
        return f"it is older than the call records that are kept, the oldest is of {rfc3339(kept_since)}"
    if now - span.end_us / 1e6 < UNDER_WAY_S:
        return "it is still under way, or its call record was shed at saturation"
    return "its call record was shed at saturation, or its process died before it could write it"


async def _find(bus: Bus, correlation_id: str) -> tuple[Found, str]:
    try:
        return await bus.request(Find(correlation_id=correlation_id, limit=FIND_MOST), timeout=FIND_S), "index"
    except Failure as failure:
        nothing = Found(events=[], calls=[], indexed_events=0, indexed_calls=0)
        return nothing, f"read through: the keeper's index cannot be asked ({failure.message})"


async def _picked(log: EventLog, sequences: list[int]) -> list[Stored]:
    pages = [sequences[at : at + PICKED] for at in range(0, len(sequences), PICKED)]
    return [stored(msg) for page in pages for msg in await log.pick(page)]


async def _scanned(log: EventLog, after: int, last: int, fits: Callable[[Stored], bool]) -> list[Stored]:
    found = []
    while after < last and (page := await log.read(after, PAGE)):
        after = page[-1].sequence
        found += [one for one in page if fits(one)]
    return found


def _event_of(correlation_id: str) -> Callable[[Stored], bool]:
    return lambda one: origin_of(STREAM, one.sequence, one.headers, one.body)[0] == correlation_id


def _call_of(correlation_id: str) -> Callable[[Stored], bool]:
    """Most records do not have it anywhere: they are not read as JSON."""
    quoted = json.dumps(correlation_id).encode()
    return lambda one: quoted in one.body and object_in(one.body).get("correlation_id") == correlation_id
