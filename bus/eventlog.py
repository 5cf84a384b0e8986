"""The stored events, read in order: a page of them, or all that come."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping
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

    async def read(self, after: int, limit: int) -> list[Stored]:
        """At most `limit` events with a sequence above `after`, oldest first. Fewer only at the end of the stream."""
        found: list[Stored] = []
        while len(found) < limit:
            page = await self._page(found[-1].sequence if found else after, min(limit - len(found), PAGE))
            if not page:
                break
            found += page
        return found

    async def follow(self, after: int) -> AsyncGenerator[Stored, None]:
        """What is stored above `after`, and then what comes, without an end."""
        news = asyncio.Event()
        heard = await self._bus.listen(self._subjects, lambda _: news.set())
        try:
            pauses: tuple[float, ...] = AT_ONCE
            while True:
                for pause in pauses:
                    await asyncio.sleep(pause)
                    news.clear()
                    while page := await self._page(after, PAGE):
                        for stored in page:
                            after = stored.sequence
                            yield stored
                    if news.is_set():
                        break
                pauses = SETTLING_S if await _within(news, LOOK_AGAIN_S) else AT_ONCE
        finally:
            try:
                await self._bus.wire.leave(heard)
            except Failure as failure:
                log.debug("a follower left without an echo: %s", failure)

    async def _page(self, after: int, batch: int) -> list[Stored]:
        """Some events above `after`; none only when there is none."""
        arrived: asyncio.Queue[Msg] = asyncio.Queue()
        token, reply = self._bus.wire.await_answer(arrived.put_nowait)
        wanted = {"seq": after + 1, "next_by_subj": ">", "batch": batch, "max_bytes": PAGE_BYTES}
        found: list[Stored] = []
        try:
            self._bus.wire.send(self._get, json.dumps(wanted).encode(), reply=reply)
            while True:
                async with asyncio.timeout(READ_S):
                    msg = await arrived.get()
                status = status_of(msg)
                if status in ("204", "404"):
                    return found
                if status:
                    told = (msg.headers or {}).get("Description", "no stream answers")
                    raise Failure("unavailable", f"the event log cannot be read: {status} {told}")
                found.append(_stored(msg))
        except TimeoutError:
            raise Failure("unavailable", f"the event log did not answer in {READ_S:g} s") from None
        finally:
            self._bus.wire.forget_answer(token)


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def _stored(msg: Msg) -> Stored:
    headers = msg.headers or {}
    own = {name: value for name, value in headers.items() if not name.startswith("Nats-")}
    moment = datetime.fromisoformat(headers["Nats-Time-Stamp"])
    return Stored(int(headers["Nats-Sequence"]), headers["Nats-Subject"], moment.timestamp(), own, msg.data)


def _unreadable(failure: Failure) -> Failure:
    if failure.code in ("unavailable", "timeout", "not_found"):
        return Failure("unavailable", f"the event log cannot be read: {failure.message}")
    return failure
