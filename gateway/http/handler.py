"""The one handler: it lets a request in, asks for its answer, and gives every outcome its HTTP form."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

from aiohttp import web
from pydantic import BaseModel

from bus import call as calls
from gateway.http import body, guard
from gateway.http.answer import Response, json_response
from gateway.http.exchange import Exchange, address_of, call_of
from gateway.http.guard import ANYONE, OPERATOR, Caller
from gateway.http.parts import Parts
from gateway.http.router import Router
from schemas.errors import Failure

if TYPE_CHECKING:
    from gateway.http.routes import Route

log = logging.getLogger("vx11.gateway")

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Admit = Callable[[Exchange], Awaitable[Caller]]
WITH_BODY = frozenset({"POST", "PUT"})


def entrypoint(parts: Parts) -> Handle:
    """The handler of everything that comes in at the front door."""
    return _door(parts, parts.routes, _admit_public)


def control(parts: Parts) -> Handle:
    """The handler of the loopback alias of the control plane: looks need no token there."""
    return _door(parts, tuple(route for route in parts.routes if route.control), _admit_control)


def _door(parts: Parts, routes: tuple[Route, ...], admit: Admit) -> Handle:
    router = Router(routes)
    loop = asyncio.get_running_loop()  # asked once: each asking is a call into the kernel

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        route, named = router.find(request.method, request.rel_url.raw_path)
        if "Expect" in request.headers:
            await _continue(request)
        response = await _handled(Exchange(parts, request, route, call_of(request.headers), named, loop), admit)
        return cast("web.StreamResponse", response)  # what a connection asks of one, `Whole` is, too

    return handle


async def _continue(request: web.BaseRequest) -> None:
    """Tell a client that waits for it to send the body; other expectations are not looked at."""
    if request.headers["Expect"].lower() == "100-continue" and request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # nothing of the answer itself has been sent


async def _handled(x: Exchange, admit: Admit) -> Response:
    parts = x.parts
    began = parts.meter.clock()
    calls.current.set(x.call)
    response: Response
    try:
        response = await _answered(x, admit)
    except Failure as failure:
        response = await _told(x, failure)
    except ConnectionError:
        if x.begun is None:
            raise
        response = x.begun.response  # the reader has gone
    except asyncio.CancelledError:
        if not parts.places.cut:
            raise
        response = await _told(x, _cut_off())
    except Exception:
        log.exception("%s %s failed, correlation id %s", x.request.method, x.route.path, x.correlation_id)
        response = await _told(x, Failure("internal", "something went wrong inside the gateway"))
    finally:
        x.give_place_back()
    if not response.prepared:
        x.stamp(response)
    if x.wake_ms:
        parts.meter.woke(x.wake_ms)
    took = parts.meter.done(x.route.name, x.request.method, response.status, began)
    if x.call.sent and parts.hops is not None:
        parts.hops.note(x, response.status, took)
    return response


async def _told(x: Exchange, failure: Failure) -> Response:
    """The failure as the answer, or, when that has begun as an event stream, as its last event."""
    x.code = failure.code
    if x.begun is None:
        return x.route.manner.failure(failure, x.correlation_id)
    try:
        await x.begun.failure(failure)
    except ConnectionError as error:
        log.debug("nobody is there to be told of %s: %s", failure, error)
    return x.begun.response


def _cut_off() -> Failure:
    """The gateway stops and has cancelled this request: its client is still to be told."""
    if (task := asyncio.current_task()) is not None:
        task.uncancel()
    return Failure("cancelled", "the gateway stopped before the answer came; it may have been carried out")


async def _answered(x: Exchange, admit: Admit) -> Response:
    try:
        x.caller = await admit(x)
        key = x.caller.id or address_of(x.request, x.parts.settings.proxies)
        x.parts.rates.take(key, x.parts.meter.clock())
        if (task := asyncio.current_task(x.loop)) is not None:
            x.parts.places.enter(task)
            x.task = task
        if x.route.stores:
            x.parts.reserve.check()
    except Failure as failure:
        x.parts.meter.refused[failure.code] += 1
        raise
    if x.request.method in WITH_BODY and not x.body:
        x.body = await body.read(x.request, x.parts.settings)
    try:
        answer = await x.route.compose(x)
    finally:
        if x.request.method in WITH_BODY:
            x.parts.observed.stale()
    return json_response(answer) if isinstance(answer, (bytes, BaseModel)) else answer


async def _admit_public(x: Exchange) -> Caller:
    return ANYONE if x.route.is_open else _by_token(x)


async def _admit_control(x: Exchange) -> Caller:
    guard.near(x.request.headers.get("Host", ""), x.request.headers.getall("Origin", ()))
    if x.route.is_open or x.route.method == "GET":
        return ANYONE
    if x.route.only_looks is not None:
        x.body = await body.read(x.request, x.parts.settings)
        if x.route.only_looks(x.body):
            return ANYONE
    return _by_token(x)


def _by_token(x: Exchange) -> Caller:
    headers = x.request.headers
    if not x.parts.guarded:
        guard.near(headers.get("Host", ""), x.route.manner.foreign(x), own_pages=True)
        return OPERATOR
    text = guard.presented(headers.getall("X-VX11-Token", ()), headers.getall("Authorization", ()))
    caller = guard.admitted(text, x.parts.keys.find, time.time())
    caller.needs(x.route.scope)
    return caller
