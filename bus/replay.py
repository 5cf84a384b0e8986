"""Plays stored messages again: reads them page by page, waits until each is due, sends it, and knows what has arrived."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from random import choices
from string import ascii_lowercase, digits
from typing import TypeVar

from bus.client import Bus
from bus.eventlog import EventLog, sequence_of
from bus.pace import Clock
from bus.replay_tally import Books, seconds
from bus.replay_target import NOT_LIVE, Live, Lost, Nowhere, Sandbox, Target, not_live
from bus.selection import Ahead, Page, Plan, Reading, planned
from bus.wire import Msg
from schemas.errors import Failure
from schemas.replay import Pace, ReplayStatus, StartReplay, State

T = TypeVar("T")

CHUNK = 64
"""Messages that are sent without giving way to anything else."""
CHUNK_BYTES = 1024 * 1024
"""The one that brings them past it is the last."""
PATIENCE_S = 30.0
"""So long nothing could be read: then a replay ends with an error."""
LOOK_AGAIN_S = 0.1
LISTENERS_BACK_S = 2.5
"""After a break others need time to be back: a stock client tries every 2 s."""
LOOK_AROUND_S = 0.25
"""While it waits for the next event or a word."""
ID_CHARS = 8


class Unread(Exception):
    """The log could not be read just now."""


class Replay:
    """One replay over one connection, which stays open until `run` has returned. The rest may be called meanwhile."""

    def __init__(self, bus: Bus, wanted: StartReplay, log: EventLog | None = None) -> None:
        """Raises Failure("invalid") for what would do nothing."""
        if wanted.live and wanted.filters and all(not_live(pattern) for pattern in wanted.filters):
            raise Failure("invalid", NOT_LIVE[not_live(wanted.filters[0])])
        self.id = wanted.id or new_id()
        self.state: State = "reading"
        self._bus = bus
        self._wanted = wanted
        self._log = log or EventLog(bus)
        self._pace: Pace = "max" if wanted.dry_run else wanted.pace
        self._next_pace: Pace | None = None
        self._clock = Clock(_speed(self._pace))
        self._books = Books()
        self._plan: Plan | None = None
        self._news = asyncio.Event()
        self._held = self._stopping = self._finishing = False
        self._permits = self._breaks = 0
        self._began = self._ended = self._idle = 0.0
        self._unread_since = 0.0
        self._error = ""

    # -- what may be said while it plays; each takes effect before the next event ------------------------------------

    def pause(self) -> None:
        """The clock stands still until `resume`; `step` lets single events through."""
        self._held = True
        self._news.set()

    def resume(self, pace: Pace | None = None) -> None:
        """Go on, with `pace` at another one; what was stepped goes on as it was recorded."""
        if not self._wanted.dry_run:
            self._next_pace = 1.0 if pace is None and self._pace == "step" else pace
        self._held = False
        self._permits = 0
        self._news.set()

    def step(self, count: int = 1) -> None:
        """Let the next `count` events through. Raises Failure("conflict") when it is neither paused nor stepped."""
        if not self._stands:
            raise Failure("conflict", f"replay {self.id} is {self.state}; pause it first, then it can be stepped")
        self._permits += count
        self._news.set()

    def stop(self) -> None:
        """End it here; what was sent is confirmed first."""
        self._stopping = True
        self._news.set()

    def finish(self) -> None:
        """End it once the steps that were asked for are done."""
        self._finishing = True
        self._news.set()

    @property
    def status(self) -> ReplayStatus:
        done, plan = self._books.now, self._plan or Plan(0, 0, 0)
        took = (self._ended or time.monotonic()) - self._began - self._idle if self._began else 0.0
        wanted = self._wanted
        return ReplayStatus(
            id=self.id,
            state="paused" if self.state == "playing" and self._held and not self._permits else self.state,
            target="" if wanted.dry_run else Live.NAME if wanted.live else Sandbox.name_of(self.id),
            pace=self._pace,
            first=plan.first,
            last=plan.last,
            position=done.position,
            position_at=done.last_at,
            events=done.events,
            bytes=done.bytes,
            skipped=dict(done.skipped),
            missing=done.missing,
            gaps=list(done.gaps),
            breaks=self._breaks,
            repeated=self._books.repeated,
            recorded_s=round(done.recorded_s, 6),
            wanted_s=round(self._clock.wanted, 6),
            took_s=round(max(0.0, took), 6),
            error_p50_ms=self._books.errors.percentile_ms(0.5),
            error_p99_ms=self._books.errors.percentile_ms(0.99),
            told=[*plan.told, *(NOT_LIVE[why] for why in done.skipped if why in NOT_LIVE)],
            error=self._error,
        )

    # -- the whole ----------------------------------------------------------------------------------------------------

    async def run(self) -> ReplayStatus:
        """Play to the end; the summary, also when it failed: then `state` is `failed`, and `error` says where and why."""
        target = self._target()
        self._began = time.monotonic()
        try:
            await self._play(target)
            ended: State = "stopped" if self._stopping else "done"
        except Failure as failure:
            ended = "failed"
            at = self._books.certain.position
            self._error = f"{failure.message}; all up to sequence {at} was played, the rest begins with {at + 1}"
        finally:
            await self._books.close()
            await target.close()
            self._ended = time.monotonic()
        self.state = ended
        return self.status

    def _target(self) -> Target:
        if self._wanted.dry_run:
            return Nowhere()
        return (Live if self._wanted.live else Sandbox)(self._bus, self.id)

    async def _play(self, target: Target) -> None:
        """To the end, however often the server goes away. Raises Failure when it stays away, or something is refused."""
        while not self._stopping:
            try:
                await self._on(target)
                await self._books.confirm(target)
                await self._books.confirmed()
                return
            except Unread:
                self._breaks += not self._bus.connected
            except Lost:
                self._breaks += 1
                await self._books.close()
                self._books.back()
            await self._back(target)

    async def _on(self, target: Target) -> None:
        """From where it stands to the end or a word to stop. Raises Lost, Unread, Failure."""
        if self._plan is None:
            self._plan = await _read(planned(self._bus, self._log, self._wanted))
            self._books = Books(self._plan.first - 1)
        self.state = "playing"
        ahead = Ahead(Reading(self._log, self._plan), self._books.now.position)
        try:
            while not self._stopping and (page := await _read(ahead.next())):
                self._unread_since = 0.0
                await self._send(target, page)
                await self._books.confirm(target)
        finally:
            await ahead.close()

    async def _send(self, target: Target, page: Page) -> None:
        at, messages, done = 0, page.messages, self._books.now
        while at < len(messages) and not self._stopping:
            self._change_pace()
            if self._pace == "max" and not self._stands:
                self.state = "playing"
                chunk = _chunk(messages, at)
                for msg in chunk:
                    self._put(target, msg)
                self._passed(chunk[0], chunk[-1])
                at += len(chunk)
                await asyncio.sleep(0)
            elif await self._one(target, messages[at]):
                at += 1
            await target.room()
        done.position = done.position if self._stopping and at < len(messages) else page.upto
        for first, last in page.gaps:
            if last <= done.position:
                done.miss(first, last)

    async def _one(self, target: Target, msg: Msg) -> bool:
        """Send it when it is due; False when something else has to be looked at first."""
        await self._books.confirm_now_and_then(target)
        if self._stands and not self._permits:
            self._stopping = self._stopping or self._finishing
            await self._stand()
            return False
        self.state = "playing"
        if self._stands or self._pace == "max":
            self._permits -= self._stands
            self._put(target, msg)
            self._passed(msg, msg)
            return True
        recorded = seconds(_moment(msg))
        due = self._clock.due(recorded, time.monotonic())
        if (left := due - time.monotonic()) > 0:
            await self._hear(min(left, LOOK_AROUND_S))
            return False
        self._put(target, msg)
        self._passed(msg, msg)
        self._books.errors.add(time.monotonic() - due)
        self._clock.sent(recorded)
        await asyncio.sleep(0)
        return True

    def _put(self, target: Target, msg: Msg) -> None:
        done = self._books.now
        try:
            why = target.put(msg)
        except Failure as failure:  # too large with what a replay adds, or never a subject
            why = failure.code
        if why:
            done.skip(why)
        else:
            done.events += 1
            done.bytes += len(msg.data)

    def _passed(self, first: Msg, last: Msg) -> None:
        done = self._books.now
        done.first_at = done.first_at or _moment(first)
        done.last_at = _moment(last)
        done.position = sequence_of(last)

    # -- waiting ------------------------------------------------------------------------------------------------------

    @property
    def _stands(self) -> bool:
        return self._held or self._pace == "step"

    async def _stand(self) -> None:
        """Some of the time until there is a word."""
        if self._stopping:
            return
        self.state = "paused"
        began = time.monotonic()
        await self._hear(LOOK_AROUND_S)
        self._idled(time.monotonic() - began)

    async def _hear(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()

    async def _back(self, target: Target) -> None:
        """Return when the log can be read and others have had time to be back. Raises Failure after PATIENCE_S."""
        self.state = "waiting"
        began = time.monotonic()
        self._unread_since = self._unread_since or began
        while not self._stopping:
            try:
                await self._log.bounds()
                break
            except Failure as failure:
                if time.monotonic() - self._unread_since > PATIENCE_S:
                    raise Failure("unavailable", f"nothing could be read for {PATIENCE_S:g} s: {failure.message}") from failure
            await self._hear(LOOK_AGAIN_S)
        end = time.monotonic() + LISTENERS_BACK_S
        while not self._stopping and (left := end - time.monotonic()) > 0:
            await self._hear(left)
        target.again()
        self._idled(time.monotonic() - began)
        self._clock.anchor()

    def _change_pace(self) -> None:
        pace, self._next_pace = self._next_pace, None
        if pace is None or pace == self._pace:
            return
        if isinstance(self._pace, str):  # its clock has not run
            self._clock.anchor()
        self._clock.change(_speed(pace), time.monotonic())
        self._pace = pace

    def _idled(self, seconds: float) -> None:
        self._idle += seconds
        self._clock.held(seconds)


async def _read(reading: Awaitable[T]) -> T:
    try:
        return await reading
    except Failure as failure:
        if failure.code != "unavailable":
            raise
        raise Unread from failure


def _chunk(messages: Sequence[Msg], at: int) -> Sequence[Msg]:
    end, size = at, 0
    while end < len(messages) and end - at < CHUNK and size < CHUNK_BYTES:
        size += len(messages[end].data)
        end += 1
    return messages[at:end]


def _moment(msg: Msg) -> str:
    return (msg.headers or {})["Nats-Time-Stamp"]


def _speed(pace: Pace) -> float:
    return 1.0 if isinstance(pace, str) else pace


def new_id() -> str:
    return "".join(choices(ascii_lowercase + digits, k=ID_CHARS))  # noqa: S311 - tells replays apart, no secret
