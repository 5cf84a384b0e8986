"""The live stream of what happens, and its one-use tokens."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import NamedTuple

from aiohttp import web
from pydantic import BaseModel

from bus.cloudevents import MEDIA
from gateway.http.answer import Response
from gateway.http.body import query_of
from gateway.http.events import SEQUENCE_DIGITS_MOST, Wanted, list_cloudevents, list_events
from gateway.http.exchange import Exchange
from gateway.http.frames import Frames
from gateway.http.guard import Caller
from gateway.http.lines import line_of
from gateway.http.parts import StoredLike
from gateway.tokens import SCOPES, digest
from schemas.errors import Failure

TOKEN_BYTES = 32
TOKEN_TTL_S = 60
KEY = "sse:"


class SseToken(BaseModel):
    """Good once, for `GET /operator/api/events/stream?token=`, within `ttl_sec`."""

    sse_token: str
    ttl_sec: int
    correlation_id: str


class StreamQuery(Wanted):
    token: str | None = None
    last_event_id: str | None = None


async def events(x: Exchange) -> BaseModel | Response:
    """A page of events, as CloudEvents when the client wants those; the live stream when it asks for that."""
    if x.wants_stream():
        return await follow(x)
    return await list_cloudevents(x) if MEDIA in x.request.headers.get("Accept", "").lower() else await list_events(x)


async def make_token(x: Exchange) -> SseToken:
    """For a browser's EventSource, which cannot send headers. Raises Failure("unavailable") without Redis."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    caller = {"id": x.caller.id, "scopes": sorted(x.caller.scopes)}
    await x.parts.cache.put(KEY + digest(token), json.dumps(caller), ttl=TOKEN_TTL_S)
    return SseToken(sse_token=token, ttl_sec=TOKEN_TTL_S, correlation_id=x.correlation_id)


async def stream_by_token(x: Exchange) -> web.StreamResponse:
    """The live stream for whoever brings a one-use token in the query string."""
    token = query_of(StreamQuery, x.request).token
    if not token:
        raise Failure("auth_required", "this stream needs ?token= from POST /operator/api/events/sse-token", field="token")
    kept = await x.parts.cache.take(KEY + digest(token))
    if kept is None:
        raise Failure("forbidden", "this stream token has been used, has expired, or never was")
    caller = json.loads(kept)
    x.caller = Caller(caller["id"], frozenset(caller["scopes"]) & frozenset(SCOPES))
    return await follow(x)


async def follow(x: Exchange) -> web.StreamResponse:
    """Events as they come, from `Last-Event-ID` or `after` on. Ends with the event `end`, which says why, or `error`.

    What was asked for and is not there any more is told by the event `gap`.
    """
    query = query_of(StreamQuery, x.request)
    start = await _start(x, query)
    x.give_place_back()
    frames = Frames(x)
    with x.parts.streams.one(x.caller.id):
        await frames.open()
        reason = await _Pump(x, frames, query, start).run()
        await frames.event("end", json.dumps({"reason": reason}).encode())
    return frames.response


class Gap(NamedTuple):
    """Numbers of events that cannot be told. `trimmed`: they were; `renewed`: the log is another one, and begins anew."""

    first: int
    last: int
    reason: str

    @property
    def data(self) -> bytes:
        return json.dumps({"from": self.first, "to": self.last, "reason": self.reason}).encode()


class Start(NamedTuple):
    """The number after which to begin, and what is missing before it."""

    after: int
    gap: Gap | None = None


async def _start(x: Exchange, query: StreamQuery) -> Start:
    """Where to begin. Raises Failure("invalid") for an id that is no number."""
    told = x.request.headers.get("Last-Event-ID") or query.last_event_id
    if told is not None and not (told.isascii() and told.isdigit() and len(told) <= SEQUENCE_DIGITS_MOST):
        raise Failure("invalid", "Last-Event-ID is the number of an event", field="Last-Event-ID")
    first, last = await x.parts.log.bounds()
    after = int(told) if told is not None else query.after
    if after is None:
        return Start(last)
    if after > last:
        return Start(first - 1, Gap(last + 1, after, "renewed"))
    return Start(first - 1, Gap(after + 1, first - 1, "trimmed")) if after < first - 1 else Start(after)


class _Pump:
    """Sends what is stored to one reader, who holds up nobody else: no more than a page is read ahead of him."""

    def __init__(self, x: Exchange, frames: Frames, query: StreamQuery, start: Start) -> None:
        self._x, self._frames, self._query = x, frames, query
        self._at, self._gap = start
        """The number of the last event that has been looked at."""
        self._clock = asyncio.get_running_loop().time
        self._wrote = self._clock()

    async def run(self) -> str:
        """Send until something ends it; the reason."""
        loop, settings = asyncio.get_running_loop(), self._x.parts.settings
        end = self._clock() + settings.stream_s
        stopping = loop.create_task(self._x.parts.stopping.wait())
        coming: asyncio.Task[StoredLike] | None = None
        async with aclosing(self._x.parts.log.follow(self._at)) as stored:
            try:
                await self._tell_gap()
                while (now := self._clock()) < end:
                    coming = coming or loop.create_task(_next(stored))
                    pause = max(0.0, min(settings.heartbeat_s, end - now))
                    await asyncio.wait({coming, stopping}, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                    if stopping.done():
                        return "stopping"
                    if self._x.parts.guarded:
                        self._x.parts.keys.check(self._x.caller, time.time())
                    if coming.done():
                        found, coming = coming.result(), None
                        await self._tell(found)
                    if self._clock() - self._wrote >= settings.heartbeat_s:
                        await self._beat()
                return "time"
            finally:
                stopping.cancel()
                if coming is not None:
                    coming.cancel()
                    await asyncio.gather(coming, return_exceptions=True)

    async def _tell(self, stored: StoredLike) -> None:
        if stored.sequence > self._at + 1:
            self._gap = Gap(self._at + 1, stored.sequence - 1, "trimmed")
            await self._tell_gap()
        self._at = stored.sequence
        if self._query.matches(stored):
            self._wrote = self._clock()
            await self._frames.event("", line_of(stored).model_dump_json().encode(), ident=str(self._at))

    async def _tell_gap(self) -> None:
        """Its id is its end, so that it is told once."""
        if self._gap is None:
            return
        gap, self._gap = self._gap, None
        self._at = max(self._at, gap.last) if gap.reason == "trimmed" else self._at
        await self._frames.event("gap", gap.data, ident=str(self._at))

    async def _beat(self) -> None:
        """A sign of life, and how far was looked: whoever comes again with a filter need not begin at its last match."""
        self._wrote = self._clock()
        await self._frames.beat(str(self._at))


async def _next(items: AsyncIterator[StoredLike]) -> StoredLike:
    try:
        return await anext(items)
    except StopAsyncIteration:
        raise Failure("unavailable", "the event log has ended") from None
