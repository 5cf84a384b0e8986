"""Which stored messages are played again, read in their order, page by page, so that what is missing is seen."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bus import call, streams
from bus.asking import failure_of
from bus.client import Bus
from bus.eventlog import EventLog, sequence_of
from bus.origin import origin_of, plain_sequence
from bus.wire import Msg, status_of
from schemas.errors import Failure
from schemas.keeper import FIND_MOST, Find, Found
from schemas.replay import StartReplay

log = logging.getLogger("vx11.selection")

BATCH = 1_000
"""Messages of one page; the log ends a page early when it has many bytes."""
PAGES_AHEAD = 2
"""Pages that are read and not yet being sent: a busy machine keeps one waiting now and then."""
PICKED = 64
"""Messages that are asked for at once, one by one."""
FIND_S = 2.0
"""For the keeper's answer; without it the log is read through."""

EVERYTHING = ">"
NOBODY = "503"
Keep = Callable[[Msg], bool]


class Page(NamedTuple):
    """Selected messages; after them everything up to the sequence `upto` is decided. `gaps`: what is not there any more."""

    messages: list[Msg]
    upto: int
    gaps: list[tuple[int, int]]


@dataclass(frozen=True)
class Plan:
    """What to read: `picks` one by one, then everything from `scan_from` to `last` that fits."""

    first: int
    last: int
    scan_from: int
    picks: Sequence[int] = ()
    keep_picked: Keep | None = None
    subject: str = EVERYTHING
    """What the server looks for; `keep` judges each message that it finds, None takes all."""
    keep: Keep | None = None
    told: list[str] = field(default_factory=list)


async def planned(bus: Bus, log: EventLog, wanted: StartReplay) -> Plan:
    """Fix the sequences and the way to read them. Raises Failure("unavailable") when the log cannot be read."""
    first, last, told = await range_of(log, wanted)
    picks: Sequence[int] = ()
    scan_from = first
    if wanted.correlation_id and first <= last:
        picks, scan_from, how = await _found(bus, log.stream, wanted.correlation_id, first, last)
        told.append(how)
    one = len(wanted.filters) == 1  # the server looks for one; several are judged here
    subject, further = (wanted.filters[0], []) if one else (EVERYTHING, wanted.filters)
    keep = _judge(further, wanted.actor, wanted.correlation_id)
    keep_picked = _judge(wanted.filters, wanted.actor, wanted.correlation_id)
    return Plan(first, last, scan_from, picks, keep_picked, subject, keep, told)


async def range_of(log: EventLog, wanted: StartReplay) -> tuple[int, int, list[str]]:
    """Moments become sequences: the order of the log is the order of time."""
    begin, end = await log.bounds()
    told: list[str] = []
    first = wanted.first or begin
    last = min(wanted.last or end, end)
    if wanted.last > end:
        told.append(f"the log ends with sequence {end}")
    if wanted.since:
        since = await log.first_since(wanted.since)
        first = max(first, since or end + 1)
        if since == begin > 1:
            told.append(f"the log begins with sequence {begin}: what was stored before it has been trimmed")
    if wanted.until and (until := await log.first_since(wanted.until)):
        last = min(last, until - 1)
    return first, last, told


async def _found(bus: Bus, stream: str, correlation_id: str, first: int, last: int) -> tuple[Sequence[int], int, str]:
    """Sequences from the keeper's index, from where the log must be read through, and what was done, in words."""
    try:
        found = await _index(bus, correlation_id)
    except Failure as failure:
        return (), first, f"the log was read through: the keeper's index cannot be asked ({failure.message})"
    calls = stream == streams.CALLS
    known, reach = (found.calls, found.indexed_calls) if calls else (found.events, found.indexed_events)
    reach = min(reach, last)
    if found.more:
        reach = min(reach, known[-1] if known else 0)
    made_up = plain_sequence(correlation_id)  # of an event that came without one; the index has what it led to
    picks = sorted(sequence for sequence in {*known, made_up} if first <= sequence <= reach)
    if reach >= last:
        return picks, last + 1, f"found by the keeper's index: {len(picks)} of the sequences from {first} to {last}"
    scan_from = max(first, reach + 1)
    return picks, scan_from, f"found by the keeper's index up to sequence {reach}; from {scan_from} on the log was read through"


async def _index(bus: Bus, correlation_id: str) -> Found:
    """What the keeper knows of a conversation. Raises Failure, at once when there is no keeper."""
    asked = Find(correlation_id=correlation_id, limit=FIND_MOST).model_dump_json().encode()
    msg = await bus.raw(Find.subject, asked, timeout=FIND_S)
    if status_of(msg) == NOBODY:
        raise Failure("unavailable", "there is none just now")
    if failure := failure_of(msg.headers or {}, msg.data):
        raise failure
    return Found.model_validate_json(msg.data)


def _judge(filters: Sequence[str], actor: str, correlation_id: str = "") -> Keep | None:
    tests = [_any_of(patterns) for patterns in (filters, subjects_of(actor) if actor else ()) if patterns]
    if correlation_id:
        tests.append(lambda msg: _conversation_of(msg) == correlation_id)
    return (lambda msg: all(test(msg) for test in tests)) if tests else None


def _conversation_of(msg: Msg) -> str:
    """As `vx11 trace` has it: also of a CloudEvent, of one that says it in its body, and of one that says nothing."""
    head = msg.headers or {}
    if told := head.get(call.CORRELATION):
        return told
    own = {name: value for name, value in head.items() if not name.startswith("Nats-")}
    return origin_of(head["Nats-Stream"], sequence_of(msg), own, msg.data)[0]


def _any_of(patterns: Sequence[str]) -> Keep:
    fit_one = [fits(pattern) for pattern in patterns]
    return lambda msg: any(fit(subject_of(msg)) for fit in fit_one)


def subjects_of(actor: str) -> tuple[str, ...]:
    """Where an actor's events are, those of its power, and the records of its calls."""
    return f"vx11.events.{actor}.>", f"vx11.events.power.*.{actor}", f"vx11.calls.{actor}.>"


def fits(pattern: str) -> Callable[[str], bool]:
    """Whether a subject fits a pattern, as NATS has it: `*` is one token, `>` at the end one or more."""
    wanted = pattern.split(".")
    open_end = wanted[-1] == ">"
    wanted = wanted[:-1] if open_end else wanted

    def fit(subject: str) -> bool:
        tokens = subject.split(".")
        if len(tokens) <= len(wanted) if open_end else len(tokens) != len(wanted):
            return False
        return all(want in ("*", token) for want, token in zip(wanted, tokens, strict=False))

    return fit


def subject_of(msg: Msg) -> str:
    """Where a message of the log was published."""
    return (msg.headers or {})["Nats-Subject"]


class Reading:
    """Reads a plan; holds one page at a time."""

    def __init__(self, log: EventLog, plan: Plan) -> None:
        self._log = log
        self._plan = plan

    async def page(self, after: int) -> Page | None:
        """The next messages above `after`; None when there are no more. Raises Failure("unavailable")."""
        if after >= self._plan.last:
            return None
        if after < self._plan.scan_from - 1:
            return await self._picked(after)
        return await self._scanned(after)

    async def _picked(self, after: int) -> Page:
        at = bisect_right(self._plan.picks, after)
        wanted = self._plan.picks[at : at + PICKED]
        messages = await self._log.pick(wanted)
        there = set(map(sequence_of, messages))
        ended = at + PICKED >= len(self._plan.picks)
        upto = self._plan.scan_from - 1 if ended else wanted[-1]
        keep = self._plan.keep_picked
        kept = [msg for msg in messages if keep(msg)] if keep else messages
        return Page(kept, upto, [(gone, gone) for gone in wanted if gone not in there])

    async def _scanned(self, after: int) -> Page:
        messages = await self._log.page(after, BATCH, subject=self._plan.subject)
        last = self._plan.last
        upto = min(sequence_of(messages[-1]), last) if messages else last
        if messages and sequence_of(messages[-1]) > last:
            messages = [msg for msg in messages if sequence_of(msg) <= last]
        gaps = await self._gaps(after, messages, upto)
        keep = self._plan.keep
        return Page([msg for msg in messages if keep(msg)] if keep else messages, upto, gaps)

    async def _gaps(self, after: int, messages: list[Msg], upto: int) -> list[tuple[int, int]]:
        """What is missing between `after` and `upto`. Of what a filter passes over, only a trimmed beginning can be known."""
        if self._plan.subject == EVERYTHING:
            return [] if upto - after == len(messages) else list(_holes(after, messages, upto))
        came = sequence_of(messages[0]) if messages else upto + 1
        if came == after + 1:
            return []
        begin, _ = await self._log.bounds()
        return [(after + 1, min(begin, came) - 1)] if begin > after + 1 else []


class Ahead:
    """Reads on while what was read before is being sent. Whoever made it closes it."""

    def __init__(self, reading: Reading, after: int) -> None:
        self._pages: asyncio.Queue[Page | Failure | None] = asyncio.Queue(PAGES_AHEAD)
        self._reader = asyncio.create_task(self._read(reading, after))

    async def next(self) -> Page | None:
        """The next page; None when there are no more. Raises Failure."""
        found = await self._pages.get()
        if isinstance(found, Failure):
            raise found
        return found

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self, reading: Reading, after: int) -> None:
        try:
            while page := await reading.page(after):
                await self._pages.put(page)
                after = page.upto
        except Failure as failure:
            await self._pages.put(failure)
        except Exception as error:  # else whoever waits for a page waits for ever
            log.exception("reading the log broke off after sequence %d", after)
            await self._pages.put(Failure("internal", f"reading the log broke off after sequence {after}: {error!r}"))
        else:
            await self._pages.put(None)


def _holes(after: int, messages: list[Msg], upto: int) -> list[tuple[int, int]]:
    found = []
    for sequence in (*map(sequence_of, messages), upto + 1):
        if sequence > after + 1:
            found.append((after + 1, sequence - 1))
        after = sequence
    return found
