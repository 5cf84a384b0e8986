"""The two doors as aiohttp applications over the same parts: the entrypoint and the control plane's loopback alias."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from gateway.http import handler, openapi
from gateway.http.cards import Cards
from gateway.http.connection import check_parser
from gateway.http.guard import KeyRing
from gateway.http.limits import Connections, Places, Rates, Streams
from gateway.http.metrics import Meter
from gateway.http.observed import Observed
from gateway.http.parts import BusLike, CacheLike, EventLog, Parts
from gateway.http.routes import TABLE, Route, check, nowhere
from gateway.http.settings import HttpSettings, Misconfigured
from gateway.tokens import TokenFile
from schemas.errors import Failure


def make_parts(
    bus: BusLike, cache: CacheLike, log: EventLog, settings: HttpSettings, *, routes: tuple[Route, ...] = TABLE
) -> Parts:
    """Everything but the sockets. Raises Misconfigured for what must not be started."""
    check_parser()
    check(routes)
    try:
        keys = KeyRing(TokenFile(settings.home), settings.token)
    except Failure as failure:
        raise Misconfigured(failure.message) from failure
    ports = {"tentaculo_link": settings.public.port}
    if settings.control:
        ports["madre"] = settings.control.port
    return Parts(
        bus=bus,
        cache=cache,
        log=log,
        settings=settings,
        keys=keys,
        observed=Observed(bus, cache),
        cards=Cards(bus),
        meter=Meter(),
        rates=Rates(settings.rate, settings.burst),
        places=Places(int(settings.in_flight)),
        streams=Streams(int(settings.streams), int(settings.token_streams)),
        ports=ports,
        connections=Connections(int(settings.connections), int(settings.address_connections), settings.proxies),
        routes=routes,
        documents={"openapi": openapi.document(routes)},
    )


def make_app(parts: Parts) -> web.Application:
    """The entrypoint."""
    return _application(parts, parts.routes, handler.public)


def make_control_app(parts: Parts) -> web.Application:
    """The loopback alias of the control plane."""
    return _application(parts, tuple(route for route in parts.routes if route.control), handler.control)


def _application(parts: Parts, routes: tuple[Route, ...], door: Callable[[Parts, Route], handler.Handle]) -> web.Application:
    app = web.Application()
    for route in (*routes, nowhere(routes)):
        app.router.add_route(route.method, route.path, door(parts, route), expect_handler=_continue)
    return app


async def _continue(request: web.Request) -> None:
    """Tell a client that waits for it to send the body; other expectations are not looked at."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # nothing of the answer itself has been sent
