"""What the two doors have in common, put together: the entrypoint and the control plane's loopback alias."""

from __future__ import annotations

from gateway.http import openapi
from gateway.http.cards import Cards
from gateway.http.connection import check_parser
from gateway.http.guard import KeyRing
from gateway.http.limits import Connections, Places, Rates, Streams
from gateway.http.metrics import Meter
from gateway.http.observed import Observed
from gateway.http.parts import BusLike, CacheLike, EventLog, Parts
from gateway.http.routes import TABLE, Route, check
from gateway.http.settings import HttpSettings, Misconfigured
from gateway.tokens import TokenFile
from schemas.errors import Failure

DOCUMENT = openapi.document(TABLE)
"""Made with the import, before the process is forked: made later it would be memory of its own."""


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
        observed=Observed(bus, cache, settings.reserve),
        cards=Cards(bus),
        meter=Meter(),
        rates=Rates(settings.rate, settings.burst),
        places=Places(int(settings.in_flight)),
        streams=Streams(int(settings.streams), int(settings.token_streams)),
        reserve=settings.reserve,
        ports=ports,
        connections=Connections(int(settings.connections), int(settings.address_connections), settings.proxies),
        routes=routes,
        documents={"openapi": DOCUMENT if routes is TABLE else openapi.document(routes)},
    )
