"""The sockets of the gateway: opened with their clocks, closed without cutting anybody off."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import uvloop
from aiohttp import web

from gateway.http import handler
from gateway.http.connection import factory
from gateway.http.parts import Parts
from gateway.http.settings import Address, HttpSettings, Misconfigured
from gateway.tokens import TokenFile

log = logging.getLogger("vx11.gateway")

BACKLOG = 512
CANCEL_S = 2.0
"""For the last bytes of connections that have been told to close."""

new_loop = uvloop.new_event_loop
"""The loop that the gateway runs on: `asyncio.Runner(loop_factory=new_loop)`."""


class Bound(NamedTuple):
    """Where the gateway listens."""

    public: Address
    control: Address | None


def first_token(settings: HttpSettings) -> str:
    """Make the first token when there is none at all; its text, to be shown once, or empty."""
    if settings.auth_mode != "token" or settings.token:
        return ""
    return TokenFile(settings.home).ensure()


async def run(parts: Parts, stop: asyncio.Event, *, ready: Callable[[Bound], None] | None = None) -> None:
    """Serve until `stop` is set. `ready` is told where. Raises Misconfigured when a door cannot be opened."""
    async with serving(parts) as bound:
        if ready is not None:
            ready(bound)
        await stop.wait()


@asynccontextmanager
async def serving(parts: Parts) -> AsyncIterator[Bound]:
    """Both doors open; on leaving: take nothing new, let what is under way finish, end event streams, close."""
    settings = parts.settings
    servers: list[asyncio.Server] = []
    try:
        async with contextlib.AsyncExitStack() as stack:
            public = await stack.enter_async_context(
                _door(parts, handler.entrypoint(parts), settings.public, "VX11_HTTP_BIND", servers)
            )
            control = None
            if settings.control is not None:
                handle = handler.control(parts)
                control = await stack.enter_async_context(_door(parts, handle, settings.control, "VX11_CONTROL_BIND", servers))
                parts.ports["madre"] = control.port
            parts.ports["tentaculo_link"] = public.port
            try:
                yield Bound(public, control)
            finally:
                parts.stopping.set()
                for server in servers:  # all of them, before the first one waits for what is under way
                    server.close()
    finally:
        await parts.observed.aclose()


@asynccontextmanager
async def _door(
    parts: Parts, handle: handler.Handle, at: Address, variable: str, servers: list[asyncio.Server]
) -> AsyncIterator[Address]:
    """Open one door; its server is added to `servers`."""
    listening = _listen(at, may_move=variable not in parts.settings.given)
    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=CANCEL_S)
    await runner.setup()
    assert runner.server is not None  # setup made it
    make = factory(runner.server, parts.connections, parts.settings, parts.meter.refused)
    server = await asyncio.get_running_loop().create_server(make, sock=listening, backlog=BACKLOG)
    servers.append(server)
    host, port = listening.getsockname()[:2]
    try:
        yield Address(host, port)
    finally:
        server.close()
        await _finish(parts)
        await runner.cleanup()


async def _finish(parts: Parts) -> None:
    """Wait for what is under way for as long as it is given, then cancel it."""
    try:
        async with asyncio.timeout(parts.settings.stop_s):
            await parts.places.emptied()
    except TimeoutError:
        log.warning("%d requests are cut off after %g s", parts.places.taken, parts.settings.stop_s)
        await parts.places.cut_off()


def _listen(at: Address, *, may_move: bool) -> socket.socket:
    """A listening socket; where nobody chose the port and it is taken, on another. Raises Misconfigured."""
    family = socket.AF_INET6 if ":" in at.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((at.host, at.port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not may_move:
                raise
            listening.bind((at.host, 0))
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise Misconfigured(f"the gateway cannot listen on {at}: {error.strerror or error}") from error
    return listening
