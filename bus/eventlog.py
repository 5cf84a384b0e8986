"""The stored events, read in order: a page of them, or all that come."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from bus.client import Bus
from bus.wire import Msg, status_of
from schemas.errors import Failure

log = logging.getLogger("vx11.eventlog")

STREAM = "VX11_EVENTS"
SUBJECTS = "vx11.events.>"
READ_S = 2.0
"""Between two messages of one page."""
PAGE = 256
PAGE_BYTES = 512 * 1024
"""A page ends early past it, so that one does not fill the connection."""
LONGER = 8
"""So much longer is the next piece in which something is looked for."""
LOOK_AGAIN_S = 1.0
"""A follower looks by itself that often: a notice may be lost, a stored event not."""
SETTLING_S = (0.0, 0.002, 0.01, 0.05, 0.25)
"""A notice may come before its event is on disk: pauses before each look."""
AT_ONCE = (0.0,)


class Stored(NamedTuple):
    """One event as it is in the stream. `at`: seconds since the epoch, when it was stored."""

    sequence: int
    subject: str
    at: float
    headers: Mapping[str, str]
    body: bytes


class EventLog:
    """Reads the stream by direct gets: no consumer is made, so that a reader leaves nothing behind.

    The stream must allow direct gets. Every method raises Failure("unavailable") when it cannot be read.
    """

    def __init__(self, bus: Bus, stream: str = STREAM, subjects: str = SUBJECTS) -> None:
        self._bus = bus
        self.stream = stream
        self._get = f"$JS.API.DIRECT.GET.{stream}"
        self._info = f"$JS.API.STREAM.INFO.{stream}"
        self._subjects = subjects

    async def bounds(self) -> tuple[int, int]:
        """The first and the last sequence; (last + 1, last) when it is empty."""
        try:
            state = (await self._bus.api(self._info, timeout=READ_S))["state"]
        except Failure as failure:
            raise _unreadable(failure) from failure
        return max(1, int(state["first_seq"])), int(state["last_seq"])  # a stream that never had one says 0 and 0

    async def read(self, after: int, limit: int, *, subject: str = ">") -> list[Stored]:
        """At most `limit` events with a sequence above `after`, oldest first. Fewer only at the end of the stream."""
        found: list[Stored] = []
        while len(found) < limit:
            page = await self._page(found[-1].sequence if found else after, min(limit - len(found), PAGE), subject)
            if not page:
                break
            found += page
        return found

    async def newest(self, limit: int, *, subject: str = ">") -> list[Stored]:
        """The last `limit` events on `subject`, oldest first: looked for from the end on, in ever longer pieces."""
        first, last = await self.bounds()
        span = max(limit, PAGE)
        while True:
            begin = max(first, last - span + 1)
            found = await self.read(begin - 1, span, subject=subject)
            if len(found) >= limit or begin == first:
                return found[-limit:] if limit else []
            span *= LONGER

    async def follow(self, after: int, *, subject: str = ">") -> AsyncGenerator[Stored, None]:
        """What is stored above `after`, and then what comes, without an end.

        Raises Failure("unavailable") also when the log has begun anew behind it: what comes now has numbers below `after`.
        """
        wire, now = self._bus.wire, asyncio.get_running_loop().time
        news = asyncio.Event()
        found_at, doubtful, links = now(), False, wire.reconnects
        heard = await self._bus.listen(self._subjects if subject == ">" else subject, lambda _: news.set())
        try:
            pauses: tuple[float, ...] = AT_ONCE
            while True:
                for pause in pauses:
                    await asyncio.sleep(pause)
                    news.clear()
                    while page := await self._page(after, PAGE, subject):
                        found_at, doubtful = now(), False
                        for stored in page:
                            after = stored.sequence
                            yield stored
                    if news.is_set():
                        break
                if doubtful and now() - found_at > LOOK_AGAIN_S:
                    await self._reaches(after)
                    doubtful = False
                told = await _within(news, LOOK_AGAIN_S)
                doubtful = doubtful or told or wire.reconnects != links
                links = wire.reconnects
                pauses = SETTLING_S if told else AT_ONCE
        finally:
            try:
                await self._bus.wire.leave(heard)
            except Failure as failure:
                log.debug("a follower left without an echo: %s", failure)

    async def _reaches(self, sequence: int) -> None:
        """Something was heard of and is not found: is it the same log? Raises Failure("unavailable") when it is shorter."""
        _, last = await self.bounds()
        if last < sequence:
            raise Failure("unavailable", f"the event log has begun anew: it ends with {last}, and {sequence} has been read")

    async def page(self, after: int, batch: int, *, subject: str = ">") -> list[Msg]:
        """Some messages above `after` on `subject`, as the server sends them (see `stored`); none only when there is none."""
        return await self._messages({"seq": after + 1, "next_by_subj": subject, "batch": batch, "max_bytes": PAGE_BYTES})

    async def pick(self, sequences: Sequence[int]) -> list[Msg]:
        """The messages with these sequences, in that order, less those that are not there any more; all asked for at once."""
        found = await asyncio.gather(*(self._messages({"seq": sequence}) for sequence in sequences))
        return [msg for page in found for msg in page]

    async def first_since(self, moment: str) -> int:
        """The sequence of the first message that was stored at `moment` (RFC 3339) or later; 0 when there is none yet."""
        found = await self._messages({"start_time": moment, "next_by_subj": ">", "batch": 1})
        return sequence_of(found[0]) if found else 0

    async def last(self, subject: str) -> int:
        """The sequence of the last message on `subject`; 0 when there is none."""
        found = await self._messages({"last_by_subj": subject})
        return sequence_of(found[0]) if found else 0

    async def _messages(self, wanted: Mapping[str, object]) -> list[Msg]:
        """What the server sends for one direct get. Raises Failure("unavailable") when it breaks off."""
        page = _Page(one="batch" not in wanted)
        token, reply = self._bus.wire.await_answer(page.heard)
        try:
            with self._bus.unless_lost(page.done):
                self._bus.wire.send(self._get, json.dumps(wanted).encode(), reply=reply)
                while not page.done.done():
                    had = len(page.found)
                    await asyncio.wait((page.done,), timeout=READ_S)
                    if not page.done.done() and len(page.found) == had:
                        raise Failure("unavailable", f"the event log did not answer in {READ_S:g} s")
                return page.done.result()
        finally:
            self._bus.wire.forget_answer(token)
            if not page.done.cancel() and not page.done.cancelled():
                page.done.exception()  # somebody has seen it, also when the reader was cancelled meanwhile

    async def _page(self, after: int, batch: int, subject: str) -> list[Stored]:
        return [stored(msg) for msg in await self.page(after, batch, subject=subject)]


class _Page:
    """Collects what one direct get brings: messages, and the server's word that these were all. `one`: there is no such word."""

    def __init__(self, *, one: bool) -> None:
        self.found: list[Msg] = []
        self.done: asyncio.Future[list[Msg]] = asyncio.get_running_loop().create_future()
        self._one = one

    def heard(self, msg: Msg) -> None:
        if self.done.done():
            return
        status = "" if msg.data else status_of(msg)
        if not status:
            self.found.append(msg)
            if self._one:
                self.done.set_result(self.found)
        elif status in ("204", "404"):
            self.done.set_result(self.found)
        else:
            told = (msg.headers or {}).get("Description", "no stream answers")
            self.done.set_exception(Failure("unavailable", f"the event log cannot be read: {status} {told}"))


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def sequence_of(msg: Msg) -> int:
    """Of a message as a direct get brings it."""
    return int((msg.headers or {})["Nats-Sequence"])


def stored(msg: Msg) -> Stored:
    """A message as a direct get brings it, without what the server has added."""
    headers = msg.headers or {}
    own = {name: value for name, value in headers.items() if not name.startswith("Nats-")}
    moment = datetime.fromisoformat(headers["Nats-Time-Stamp"])
    return Stored(int(headers["Nats-Sequence"]), headers["Nats-Subject"], moment.timestamp(), own, msg.data)


def _unreadable(failure: Failure) -> Failure:
    if failure.code in ("unavailable", "timeout", "not_found"):
        return Failure("unavailable", f"the event log cannot be read: {failure.message}")
    return failure
