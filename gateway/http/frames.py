"""A response of server-sent events, written frame by frame."""

from __future__ import annotations

import asyncio

from aiohttp import web

from gateway.http.answer import COMMON
from gateway.http.exchange import EVENT_STREAM, Exchange
from schemas.errors import Failure


class _Together(web.StreamResponse):
    """Its head leaves with the first event, in one write."""

    _send_headers_immediately = False


class Frames:
    """Every method raises ConnectionError when the reader has gone, or has taken nothing for `write_s`."""

    def __init__(self, x: Exchange, *, together: bool = False) -> None:
        """`together`: the first event is there already, so the head need not go before it."""
        self._x = x
        self._write_s = x.parts.settings.write_s
        kind = _Together if together else web.StreamResponse
        self.response = kind(headers={**COMMON, "Content-Type": EVENT_STREAM, "X-Accel-Buffering": "no"})

    async def open(self) -> None:
        """Send the head. From here on every failure is an event, by default `error`."""
        self._x.begun = self
        self._x.stamp(self.response)
        await self.response.prepare(self._x.request)

    async def event(self, name: str, data: bytes, *, ident: str = "") -> None:
        """One event, unnamed (`onmessage`) without a name; `data` is one JSON document."""
        head = (f"id: {ident}\n" if ident else "") + (f"event: {name}\n" if name else "")
        lines = data.replace(b"\r", b"").replace(b"\n", b"\ndata: ")
        await self._write(f"{head}data: ".encode() + lines + b"\n\n")

    async def beat(self, ident: str) -> None:
        """A comment, and the id that the reader will come again with: no event is made of it."""
        await self._write(f": alive\nid: {ident}\n\n".encode())

    async def failure(self, failure: Failure) -> None:
        name, data = self._x.route.manner.event(failure, self._x.correlation_id)
        await self.event(name, data)

    async def _write(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(self._write_s):
                await self.response.write(data)
        except TimeoutError:
            self.response.force_close()
            raise ConnectionError("the reader takes nothing") from None
