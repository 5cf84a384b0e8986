"""The live stream of what happens, and its one-use tokens."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

from aiohttp import web
from pydantic import BaseModel

from gateway.http.body import query_of
from gateway.http.events import SEQUENCE_DIGITS_MOST, Wanted, line_of, list_events
from gateway.http.exchange import Exchange
from gateway.http.frames import Frames
from gateway.http.guard import Caller
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


async def events(x: Exchange) -> BaseModel | web.StreamResponse:
    """A page of events, or the live stream when the client asks for one."""
    return await follow(x) if x.wants_stream() else await list_events(x)


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
    """Events as they come, from `Last-Event-ID` or `after` on. Ends with the event `end`, which says why, or `error`."""
    query = query_of(StreamQuery, x.request)
    after = await _start(x, query)
    x.give_place_back()
    frames = Frames(x)
    with x.parts.streams.one(x.caller.id):
        await frames.open()
        reason = await _pump(x, frames, query, after)
        await frames.event("end", json.dumps({"reason": reason}).encode())
    return frames.response


async def _start(x: Exchange, query: StreamQuery) -> int:
    """The sequence after which to begin. Raises Failure("invalid") for an id that is no number."""
    told = x.request.headers.get("Last-Event-ID") or query.last_event_id
    if told is not None:
        if not (told.isascii() and told.isdigit() and len(told) <= SEQUENCE_DIGITS_MOST):
            raise Failure("invalid", "Last-Event-ID is the number of an event", field="Last-Event-ID")
        return int(told)
    if query.after is not None:
        return query.after
    return (await x.parts.log.bounds())[1]


async def _pump(x: Exchange, frames: Frames, query: StreamQuery, after: int) -> str:
    """Send until something ends it; the reason."""
    settings = x.parts.settings
    loop = asyncio.get_running_loop()
    end = loop.time() + settings.stream_s
    stopping = loop.create_task(x.parts.stopping.wait())
    async with aclosing(x.parts.log.follow(after)) as stored:
        coming: asyncio.Task[StoredLike] | None = None
        try:
            while loop.time() < end:
                coming = coming or loop.create_task(_next(stored))
                pause = min(settings.heartbeat_s, end - loop.time())
                await asyncio.wait({coming, stopping}, timeout=max(0.0, pause), return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    return "stopping"
                if x.parts.guarded:
                    x.parts.keys.check(x.caller, time.time())
                if not coming.done():
                    await frames.comment("alive")
                    continue
                line = line_of(coming.result())
                coming = None
                if query.matches(line):
                    await frames.event("", line.model_dump_json().encode(), ident=str(line.id))
            return "time"
        finally:
            stopping.cancel()
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)


async def _next(items: AsyncIterator[StoredLike]) -> StoredLike:
    try:
        return await anext(items)
    except StopAsyncIteration:
        raise Failure("unavailable", "the event log has ended") from None
