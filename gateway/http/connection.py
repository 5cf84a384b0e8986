"""One TCP connection: a clock for the head of a request, a place among the connections, errors in the one shape."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy
from aiohttp.web_protocol import RequestHandler

from gateway.http.answer import failure_response
from gateway.http.limits import Connections
from gateway.http.settings import HttpSettings, Misconfigured
from schemas.errors import Failure

LINGER_S = 1.0
"""So long the rest of a body that nobody wants is read, so that the client sees the answer."""
FULL = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"


def check_parser() -> None:
    """Raises Misconfigured when aiohttp has only its Python parser, which has let smuggled requests through."""
    if HttpRequestParser is HttpRequestParserPy:
        raise Misconfigured("aiohttp is without its C parser; install a wheel of it and leave AIOHTTP_NO_EXTENSIONS unset")


class Connection(RequestHandler):
    """aiohttp's connection with the clock that it has not: a request's head must be whole in `header_s` seconds.

    The clock runs from the connection, later from the first byte of a request.
    """

    def __init__(self, server: web.Server, places: Connections, header_s: float, refused: Counter[str], **options: Any) -> None:
        super().__init__(server, **options)
        self._places = places
        self._refused = refused
        self._header_s = header_s
        self._head_clock: asyncio.TimerHandle | None = None
        self._address: str | None = None
        self._has_place = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if peer else ""
        self._has_place = self._places.enter(self._address)
        if self._has_place:
            super().connection_made(transport)
            self._wind()
        else:
            full = cast("asyncio.WriteTransport", transport)  # uvloop's are no subclass
            self._refused["connections"] += 1
            full.write(FULL)
            full.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_clock()
        if self._has_place and self._address is not None:
            self._has_place = False
            self._places.leave(self._address)
            task = self._task_handler if self._current_request is None else None
            super().connection_lost(exc)
            if task is not None:
                task.cancel()  # else it would wait LINGER_S for the rest of a body that cannot come

    def data_received(self, data: bytes) -> None:
        if not self._has_place:
            return
        super().data_received(data)
        if self._messages or self._current_request is not None:
            self._stop_clock()
        elif self._head_clock is None:
            self._wind()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What the parser refused, in the shape of every other error."""
        if request.writer.output_size > 0 or self.transport is None:
            raise ConnectionError("the answer has begun, or nobody is there for it")
        if status != 400:
            self.log_exception("a request could not be handled", exc_info=exc)
            failure = Failure("internal", "something went wrong inside the gateway")
        else:
            failure = Failure(
                "invalid", f"this is no HTTP request: {(message or '').strip().splitlines()[0] if message else status}"
            )
        self._refused["not_http"] += 1
        response = failure_response(failure, "")
        response.force_close()
        return cast("web.StreamResponse", response)  # what this class asks of one, it is

    def _wind(self) -> None:
        self._head_clock = self._loop.call_later(self._header_s, self._late)

    def _stop_clock(self) -> None:
        if self._head_clock is not None:
            self._head_clock.cancel()
            self._head_clock = None

    def _late(self) -> None:
        self._head_clock = None
        if not self._messages and self._current_request is None:
            self._refused["slow_head"] += 1
            self.force_close()


def factory(server: web.Server, places: Connections, settings: HttpSettings, refused: Counter[str]) -> Callable[[], Connection]:
    """What makes the protocol of each new connection; it counts in `refused` what never became a request."""
    loop = asyncio.get_running_loop()

    def make() -> Connection:
        return Connection(
            server,
            places,
            settings.header_s,
            refused,
            loop=loop,
            keepalive_timeout=settings.keepalive_s,
            lingering_time=LINGER_S,
            auto_decompress=False,
            access_log=None,
        )

    return make
