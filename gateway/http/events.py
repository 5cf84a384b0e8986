"""The pages of the list of stored events."""

from __future__ import annotations

import time
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from bus.cloudevents import BATCH
from gateway.http.answer import COMMON, Whole
from gateway.http.body import query_of
from gateway.http.cloud import batch
from gateway.http.exchange import Exchange
from gateway.http.lines import EventLine, address_of, correlation_of, line_of, severity_of
from gateway.http.parts import EventLog, StoredLike
from gateway.moment import rfc3339

BLOCK = 500
"""Events that are read at a time."""
SCAN_MOST = 10_000
"""The newest events among which a filter is looked for; `scanned_from` says where the search ended."""
LIMIT_MOST = 1_000
PAGE = 100
HOUR_S = 3_600.0
SEQUENCE_DIGITS_MOST = 18
"""The server counts in 64 bits."""


class EventData(BaseModel):
    events: list[EventLine]
    total_events: int
    timestamp: str


class EventPage(BaseModel):
    """`total`: events that match, of those looked at, the first of which is `scanned_from`.

    `next_after`: what to give as `after` to read on from here.
    """

    events: list[EventLine]
    total: int
    has_more: bool
    scanned_from: int
    next_after: int
    data: EventData


class Wanted(BaseModel):
    """Which events: all that is said must hold."""

    model_config = ConfigDict(frozen=True)

    after: int | None = Field(default=None, ge=0, lt=10**SEQUENCE_DIGITS_MOST)
    correlation_id: str | None = Field(default=None, max_length=64)
    severity: str | None = Field(default=None, pattern="^(debug|info|warning|error)$")
    module: str | None = Field(default=None, max_length=64)
    hours_back: float | None = Field(default=None, gt=0, le=87_600)

    @property
    def everything(self) -> bool:
        return not (self.correlation_id or self.severity or self.module or self.hours_back)

    def matches(self, stored: StoredLike) -> bool:
        """Judged without opening the body, so that a search through many costs little."""
        actor, _, subject = address_of(stored.subject)
        return (
            (not self.correlation_id or correlation_of(stored) == self.correlation_id)
            and (not self.severity or severity_of(subject) == self.severity)
            and (not self.module or actor == self.module)
        )


class EventQuery(Wanted):
    """The page: newest first; with `after` oldest first, from there on."""

    limit: int = Field(default=PAGE, ge=1, le=LIMIT_MOST)
    offset: int = Field(default=0, ge=0, le=SCAN_MOST)


class Found(NamedTuple):
    """Matches, in the order of the page; the lowest and highest number looked at; whether there is more beyond."""

    events: list[StoredLike]
    low: int
    high: int
    more: bool


class Page(NamedTuple):
    """Those of the matches that the query wants; the fields are those of EventPage."""

    events: list[StoredLike]
    total: int
    has_more: bool
    scanned_from: int
    next_after: int


async def list_events(x: Exchange) -> EventPage:
    """The page that the query asks for. Raises Failure("unavailable") when the log cannot be read."""
    page = await _page(x)
    lines = [line_of(stored) for stored in page.events]
    return EventPage(
        **{**page._asdict(), "events": lines},
        data=EventData(events=lines, total_events=page.total, timestamp=rfc3339(time.time())),
    )


async def list_cloudevents(x: Exchange) -> Whole:
    """The same page as a batch of CloudEvents in structured form."""
    page = await _page(x)
    told = {"X-Vx11-Next-After": str(page.next_after), "X-Vx11-Has-More": str(page.has_more).lower()}
    return Whole(batch(page.events), {**COMMON, "Content-Type": f"{BATCH}; charset=utf-8", **told})


async def _page(x: Exchange) -> Page:
    query = query_of(EventQuery, x.request)
    first, last = await x.parts.log.bounds()
    if query.after is not None:
        found = await _forward(x.parts.log, query, query.after)
    else:
        found = await _backward(x.parts.log, query, first, last)
    total = last - first + 1 if query.everything and query.after is None else len(found.events)
    page = found.events[query.offset : query.offset + query.limit]
    cut = len(found.events) > query.offset + query.limit
    after = page[-1].sequence if cut and query.after is not None else found.high
    return Page(page, total, found.more or cut, found.low, after)


async def _forward(log: EventLog, query: EventQuery, after: int) -> Found:
    """Oldest first, until there are enough or SCAN_MOST have been looked at."""
    need = query.offset + query.limit
    found: list[StoredLike] = []
    at = after
    while at - after < SCAN_MOST and len(found) <= need:
        block = await log.read(at, BLOCK)
        found += [stored for stored in block if query.matches(stored) and _young(stored, query)]
        at = block[-1].sequence if block else at
        if len(block) < BLOCK:
            return Found(found, after + 1, at, more=False)
    return Found(found, after + 1, at, more=True)


async def _backward(log: EventLog, query: EventQuery, first: int, last: int) -> Found:
    """Newest first. Without a filter no more than the page is read."""
    need = query.offset + query.limit
    step = min(BLOCK, need) if query.everything else BLOCK
    found: list[StoredLike] = []
    top, lowest = last, max(first, last - SCAN_MOST + 1)
    while top >= lowest and not (query.everything and len(found) >= need):
        bottom = max(lowest, top - step + 1)
        block = [stored for stored in await log.read(bottom - 1, top - bottom + 1) if stored.sequence <= top]
        block.reverse()
        found += [stored for stored in block if query.matches(stored) and _young(stored, query)]
        top = bottom - 1
        if block and not _young(block[-1], query):
            break
    return Found(found, top + 1, last, more=query.everything and top >= first)


def _young(stored: StoredLike, query: EventQuery) -> bool:
    return query.hours_back is None or stored.at >= time.time() - query.hours_back * HOUR_S
