"""Durable events of one connection: what is published at the same time goes to the disk together, and each of it once.

The first one goes alone and at once. What comes while it is under way waits and is then committed as one atomic batch, and so
on: no timer, and one write to the disk for all of a batch. A batch that the server refuses is taken apart. After a commit
whose outcome stayed unknown nothing is sent again on the word of the stream's duplicate window alone, see `bus.recall`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bus import commit
from bus.commit import ID, Commits, Refused, Waiting, fail, settle
from bus.streams import HEADER_ROOM_BYTES
from schemas.errors import Failure

if TYPE_CHECKING:
    from bus.client import Bus

log = logging.getLogger("vx11.publisher")

EVENT = "vx11.events."
SUBJECT_FORM = re.compile(r"vx11\.events(\.(?![*>](\.|$))[^\s.]+)+")
"""A name: an empty token or a wildcard would belong to no stream, or to nobody."""
PUBLISH_S = 10.0
"""So long an event is tried."""
AGAIN_S = 0.1
"""Pause after one that failed for a reason that may pass."""
BATCH_MOST = 500
"""Events in one commit; the server's bound is 1,000."""
BATCH_BYTES = 1024 * 1024
"""An event that brings a batch past it is its last."""
HEADERS_BYTES = HEADER_ROOM_BYTES + 1_024
"""Events that come so near to the largest message go alone: a batch adds to each, and one that is too large for the stream
would spoil it without a word."""
FEW = 12
"""So many are quicker sent one by one: the server prepares an atomic batch with half a dozen writes to the disk. A larger one
that is refused is halved."""
WAITING_MOST = 10_000
WAITING_BYTES = 16 * 1024 * 1024
UNSETTLED_MOST = 10_000
"""Ids whose outcome their caller never heard: should it try again, it is looked for first."""
DUPLICATE = 10_201
OVERTAKEN_MOST = 5
"""Tries to send a doubtful event again under a fence; then others write its subject too busily, and its id must do."""


class Recalled(NamedTuple):
    """What the stream says of events in doubt: `sequences` by id; `fences`: the last sequence of each subject at that time;
    `through`: the sequence up to which they were looked for.
    """

    sequences: Mapping[str, int]
    fences: dict[str, int]
    through: int


class Publisher:
    """Takes events for VX11_EVENTS; the order in which they are published is the order in which they are stored."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._commits = Commits(bus)
        self._queue: deque[Waiting] = deque()
        self._bytes = 0
        self._alone = False
        self._worker: asyncio.Task[None] | None = None
        self._unsettled: dict[str, tuple[float, int]] = {}
        self._closed = False

    async def publish(self, subject: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Store it; its sequence. `headers` has its id. Raises Failure, after PUBLISH_S seconds at most.

        `busy`: too much waits. `invalid`, `too_large`, `storage_full`: it is not stored. `timeout`, `unavailable`: it may be;
        published again with the same id, on this connection however much later, it is stored once.
        """
        if not subject.startswith(EVENT) or [name for name in headers if name[:5] == "Nats-" and name != ID]:
            return await self._apart(subject, body, headers)
        if not SUBJECT_FORM.fullmatch(subject):
            raise Failure("invalid", f"{subject!r} is no name of an event")
        if self._closed:
            raise _closed()
        event = self._taken(subject, body, headers)
        try:
            if self._alone or self._worker or event.doubtful:
                self._enqueue(event)
            else:
                await self._go_alone(event)
            return await event.stored
        except asyncio.CancelledError:
            event.stored.cancel()
            self._remember(event)
            raise
        except Failure:
            if event.doubtful:
                self._remember(event)
            raise

    async def aclose(self) -> None:
        """Whoever still waits is told."""
        self._closed = True
        if self._worker:
            self._worker.cancel()
            await asyncio.wait((self._worker,))
        while self._queue:
            fail(self._queue.popleft(), _closed())

    async def _apart(self, subject: str, body: bytes, headers: Mapping[str, str]) -> int:
        """For other streams, and for what has conditions of its own: a batch is no place for it."""
        end = time.monotonic() + PUBLISH_S
        while True:
            try:
                return int((await self._bus.api(subject, body, timeout=commit.TRY_S, headers=headers))["seq"])
            except Failure as failure:
                if failure.code not in ("timeout", "unavailable") or self._closed or time.monotonic() > end:
                    raise
                await asyncio.sleep(AGAIN_S)

    def _taken(self, subject: str, body: bytes, headers: Mapping[str, str]) -> Waiting:
        size = len(subject) + len(body) + sum(map(len, headers)) + sum(map(len, headers.values())) + 4 * len(headers)
        stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        before = self._unsettled.pop(headers[ID], None)
        begun, after = before or (time.time(), self._commits.last)
        until = time.monotonic() + PUBLISH_S
        return Waiting(subject, body, headers, stored, size, begun, after, until, doubtful=before is not None)

    def _enqueue(self, event: Waiting, *, first: bool = False) -> None:
        if not first and (len(self._queue) >= WAITING_MOST or self._bytes + event.size > WAITING_BYTES):
            raise Failure("busy", f"{len(self._queue)} events with {self._bytes} bytes wait to be stored; try again in a moment")
        self._bytes += event.size
        if first:
            self._queue.appendleft(event)
        else:
            self._queue.append(event)
        self._begin()

    def _begin(self) -> None:
        if self._queue and not self._alone and not self._worker and not self._closed:
            self._worker = asyncio.get_running_loop().create_task(self._run(), name="publisher")

    async def _go_alone(self, event: Waiting) -> None:
        """In the caller's own task, because nobody else publishes."""
        self._alone = True
        try:
            await self._commits.one(event)
        except Failure:
            if self._closed:
                raise
            self._enqueue(event, first=True)
        finally:
            self._alone = False
            self._begin()

    async def _run(self) -> None:
        batch: list[Waiting] = []
        try:
            while batch := self._take():
                why = await self._store(batch)
                left = [event for event in batch if not event.stored.done()]
                for event in reversed(left):
                    self._enqueue(event, first=True)
                if left:
                    self._expire(why or Failure("unavailable", "the event was not stored"))
                batch = []
                # those who have been answered publish again before the next batch is taken
                await asyncio.sleep(AGAIN_S if left else 0)
        finally:
            for event in batch:  # closed, or a fault of ours: nobody waits for ever
                fail(event, _closed() if self._closed else Failure("internal", "the publisher failed; the log says how"))
            self._worker = None
            self._begin()

    def _take(self) -> list[Waiting]:
        """The next batch: never an id twice, and what is in doubt not together with what is not."""
        batch: list[Waiting] = []
        ids: set[str] = set()
        size = 0
        while self._queue and len(batch) < BATCH_MOST and size < BATCH_BYTES:
            event = self._queue[0]
            if batch and (event.doubtful != batch[0].doubtful or event.id in ids or self._large(event)):
                break
            self._queue.popleft()
            self._bytes -= event.size
            if event.stored.done():  # its caller has gone
                continue
            batch.append(event)
            ids.add(event.id)
            size += BATCH_BYTES if self._large(event) else event.size
        return batch

    def _large(self, event: Waiting) -> bool:
        return event.size + HEADERS_BYTES > self._bus.wire.max_payload

    def _expire(self, why: Failure) -> None:
        now = time.monotonic()
        while self._queue and self._queue[0].until < now:
            event = self._queue.popleft()
            self._bytes -= event.size
            fail(event, why)

    def _remember(self, event: Waiting) -> None:
        while len(self._unsettled) >= UNSETTLED_MOST:
            del self._unsettled[next(iter(self._unsettled))]
        self._unsettled[event.id] = event.begun, event.after

    async def _store(self, batch: Sequence[Waiting]) -> Failure | None:
        """Settle them, or as many as can be: why the others could not."""
        try:
            if not batch[0].doubtful:
                return await self._fresh(batch)
            from bus.recall import recalled  # rarely needed: no process pays for it before

            return await self._doubtful(batch, await recalled(self._bus, batch))
        except Failure as failure:
            return failure

    async def _fresh(self, batch: Sequence[Waiting]) -> Failure | None:
        if len(batch) <= FEW:
            return await self._commits.singly(batch)
        try:
            await self._commits.together(batch)
        except Refused as refused:
            if refused.err_code == DUPLICATE:
                middle = len(batch) // 2
                return await self._fresh(batch[:middle]) or await self._fresh(batch[middle:])
            log.debug("a batch of %d is sent one by one: %s", len(batch), refused)
            return await self._commits.singly(batch)
        return None

    async def _doubtful(self, batch: Sequence[Waiting], told: Recalled) -> Failure | None:
        """Send again what the stream does not have, if nothing has come to its subject since it was asked."""
        why = Failure("unavailable", "others write the same subjects too busily")
        bold: list[Waiting] = []
        for event in batch:
            event.after = told.through
            if sequence := told.sequences.get(event.id):
                settle(event, sequence)
            elif event.overtaken >= OVERTAKEN_MOST:
                bold.append(event)
            elif (fence := told.fences.get(event.subject)) is None:
                event.overtaken += 1
            else:
                try:
                    told.fences[event.subject] = await self._commits.one(event, fence=fence)
                except Refused:
                    del told.fences[event.subject]
                    event.overtaken += 1
        return await self._fresh(bold) if bold else why


def _closed() -> Failure:
    return Failure("unavailable", "the connection to the NATS server was closed")
