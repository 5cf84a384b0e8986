"""A connection to the NATS server that is found again, for ever, when it is lost.

It knows the protocol and nothing of what is said over it; `bus.wire` does. Decision 0012 says why it is our own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import logging
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import unquote

import nkeys

from bus.protocol import Msg, Reader, Subscription, address_of
from schemas.errors import Failure

log = logging.getLogger("vx11.link")

PORT = 4222
PING_S = 5.0
"""A dead peer is noticed after PING_S * (PINGS_OUT + 1) seconds at most."""
PINGS_OUT = 2
PENDING_BYTES = 8 * 1024 * 1024
"""What may wait to be sent while there is no server."""
CONNECT_S = 5.0
CLOSE_S = 1.0
"""For what the system still has to send when a connection is closed."""
MIB = 1024 * 1024
LINE_BYTES = 64 * 1024


class Link(ABC):
    """Sends without a suspension point, in the order of the calls. Who inherits it is told what happens."""

    def __init__(self) -> None:
        self.is_connected = False
        self.is_closed = False
        self.max_payload = MIB
        self.reconnects = 0
        self.last_error: object = ""
        self.loop: asyncio.AbstractEventLoop
        self._url, self._name, self._seed = "", "", ""
        self._pause_s = 0.0
        self._buffered = True
        self._line: _Line | None = None
        self._subs: dict[int, Subscription] = {}
        self._sids = itertools.count(1)
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._flushing = self._held = False
        """`_flushing`: at the end of this turn of the loop. `_held`: the system takes no more for now."""
        self._pings_out = 0
        self._pinging: asyncio.TimerHandle | None = None
        self._reconnecting: asyncio.Task[None] | None = None

    async def dial(
        self, url: str, *, name: str, seed: str, reconnect_s: float, buffered: bool = True, eager: bool = False
    ) -> None:
        """Connect. `seed`: an NKey's, or empty. `buffered`: what is sent without a server waits for one.

        `eager`: for a process that has nothing else to do yet. Hold the loop, say who we are and with it all that has been
        sent until now, and return; being refused is then being closed. Raises OSError, TimeoutError, and
        Failure("forbidden") when the server does not let us in.
        """
        self._url, self._name, self._seed = url, name, seed
        self.loop = asyncio.get_running_loop()  # asked once: each asking is a call into the kernel
        self._pause_s, self._buffered = reconnect_s, buffered
        async with asyncio.timeout(CONNECT_S):
            if not eager or not await self._burst_in():
                await self._connect()
                self._resume()

    async def close(self) -> None:
        """For good. What has been sent is still written, if the server takes it within CLOSE_S."""
        if self.is_closed:
            return
        self.flush()
        self.is_closed, self.is_connected = True, False
        if self._reconnecting:
            self._reconnecting.cancel()
        if self._pinging:
            self._pinging.cancel()
        line, self._line = self._line, None
        if line is not None:
            line.transport.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await line.gone.wait()
            line.transport.abort()
        self._closed()

    @property
    def unsent(self) -> int:
        """Messages that have not been handed to the system yet."""
        return len(self._pending)

    @property
    def pending_data_size(self) -> int:
        """Bytes that have not left this process."""
        return self._pending_size + (self._line.transport.get_write_buffer_size() if self._line else 0)

    def write(self, command: bytes, *, now: bool = False) -> None:
        """Queue one command; all of one turn of the loop go out together, or `now`. Raises Failure("unavailable")."""
        if not self.is_connected and (self.is_closed or not self._buffered or self._pending_size + len(command) > PENDING_BYTES):
            raise Failure("unavailable", "there is no connection to the NATS server just now")
        self._pending.append(command)
        self._pending_size += len(command)
        if now and not self._held:
            self.flush()
        elif not self._flushing and not self._held and self.is_connected:
            self._flushing = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Hand what waits to the system now, not at the end of this turn of the loop."""
        self._flushing = False
        if self._line is None or not self.is_connected or not self._pending:
            return
        data = b"".join(self._pending)
        self._pending.clear()
        self._pending_size = 0
        self._line.transport.write(data)

    def subscribe(self, subject: str, heard: Callable[[Msg], None], queue: str = "") -> Subscription:
        """It is there again after every reconnect, until `forget`."""
        subscription = Subscription(next(self._sids), subject, queue, heard)
        self._subs[subscription.sid] = subscription
        if self._line is not None:  # else it is sent with the others
            self.write(subscription.command)
        return subscription

    def unsubscribe(self, sid: int) -> None:
        """Ask the server to send no more; what is on its way still comes until `forget`."""
        if self.is_connected:
            self.write(f"UNSUB {sid}\r\n".encode())

    def forget(self, sid: int) -> None:
        self._subs.pop(sid, None)

    def flush_held(self, *, held: bool) -> None:
        """The system takes no more for now, or again."""
        self._held = held
        if not held:
            self.flush()

    def lost(self, line: _Line, error: Exception | None) -> None:
        """`line` has ended."""
        if line is not self._line:
            return
        self._line, self.is_connected, self._flushing, self._held = None, False, False, False
        if self._pinging:
            self._pinging.cancel()
        if error:
            self.last_error = error
        if self.is_closed:
            return
        if not line.welcome.done() or line.welcome.exception():  # it was eager, and has never been let in
            self.is_closed = True
            self._closed()
            return
        if not self._buffered:
            self._pending.clear()
        self._pending = [said for said in self._pending if not said.startswith((b"SUB ", b"UNSUB "))]  # all are sent anew
        self._pending_size = sum(map(len, self._pending))
        self._disconnected()
        self._reconnecting = asyncio.get_running_loop().create_task(self._reconnect())

    def complained(self, told: str) -> None:
        """The server's `-ERR`; most of them it lets follow by hanging up."""
        if not self.is_connected:
            return  # who dials is told, and says so once
        self.last_error = told
        if "permissions violation" in told.lower():
            self._denied(told)
        else:
            log.info("the server says: %s", told)

    def pong(self) -> None:
        self._pings_out = 0

    async def _connect(self) -> None:
        line, where = _Line(self), address_of(self._url)
        await asyncio.get_running_loop().create_connection(lambda: line, str(where.hostname), where.port or PORT)
        try:
            info = await line.info
            if where.scheme == "tls" or info.get("tls_required"):
                await line.secure(str(where.hostname))
            line.transport.write(self._introduction(info))
            await line.welcome
        except BaseException:
            line.transport.abort()
            raise
        self._line = line

    async def _burst_in(self) -> bool:
        """Connect and be heard within one turn of the loop. False: the server wants TLS, which takes its time."""
        line, where = _Line(self), address_of(self._url)
        sock = socket.create_connection((where.hostname, where.port or PORT), CONNECT_S)
        try:
            info = line.greeted(sock)
            if where.scheme == "tls" or info.get("tls_required"):
                sock.close()
                return False
            sock.sendall(self._introduction(info) + self._first_words())
            sock.setblocking(False)
            self._line = line
            await asyncio.get_running_loop().create_connection(lambda: line, sock=sock)
        except BaseException:
            self._line = None
            sock.close()
            raise
        self._begin()
        return True

    def _introduction(self, info: dict[str, Any]) -> bytes:
        """Who we are; the PONG says that we are let in."""
        self.max_payload = int(info.get("max_payload", MIB))
        where = address_of(self._url)
        told: dict[str, Any] = {
            "verbose": False,
            "pedantic": False,
            "protocol": 1,
            "headers": True,
            "no_responders": True,
            "lang": "python-vx11",
            "version": "1",
            "name": self._name,
        }
        if self._seed and "nonce" in info:
            keys = nkeys.from_seed(self._seed.encode())
            told["nkey"] = keys.public_key.decode()
            told["sig"] = base64.b64encode(keys.sign(info["nonce"].encode())).decode()
        elif where.password is not None:
            told |= {"user": unquote(where.username or ""), "pass": unquote(where.password)}
        elif where.username:
            told["auth_token"] = unquote(where.username)
        return f"CONNECT {json.dumps(told)}\r\nPING\r\n".encode()

    def _first_words(self) -> bytes:
        """All subscriptions, and what has waited for a server."""
        words = b"".join([*(subscription.command for subscription in self._subs.values()), *self._pending])
        self._pending.clear()
        self._pending_size = 0
        return words

    def _resume(self) -> None:
        if self._line is not None:
            self._line.transport.write(self._first_words())
            self._begin()

    def _begin(self) -> None:
        self._pings_out, self._flushing, self.is_connected = 0, False, True
        self._pinging = asyncio.get_running_loop().call_later(PING_S, self._ping)
        self.flush()

    async def _reconnect(self) -> None:
        while True:
            try:
                async with asyncio.timeout(CONNECT_S):
                    await self._connect()
                break
            except (OSError, TimeoutError, Failure) as error:
                if str(error) != str(self.last_error):
                    log.info("no connection: %s", error)
                self.last_error = error
                await asyncio.sleep(self._pause_s)
        self.reconnects += 1
        self._resume()
        self._reconnected()

    def _ping(self) -> None:
        if self._line is None:
            return
        if self._pings_out >= PINGS_OUT:
            log.warning("the NATS server is silent")
            self._line.transport.abort()
            return
        self._pings_out += 1
        self._line.transport.write(b"PING\r\n")
        self._pinging = asyncio.get_running_loop().call_later(PING_S, self._ping)

    @abstractmethod
    def _came(self, sid: int, subject: bytes, reply: bytes, head: bytes, body: bytes) -> None:
        """A message has come; must not raise."""

    @abstractmethod
    def _denied(self, told: str) -> None:
        """The server's permissions have refused something."""

    @abstractmethod
    def _disconnected(self) -> None:
        """The server is lost, and will be looked for."""

    @abstractmethod
    def _reconnected(self) -> None:
        """It has been found; all subscriptions are there again."""

    @abstractmethod
    def _closed(self) -> None:
        """For good."""


class _Line(asyncio.Protocol):
    """One attempt at a connection, from its socket's birth to its end."""

    transport: asyncio.Transport
    say: Callable[[bytes], object]
    """To the server, at once."""

    def __init__(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        self.info: asyncio.Future[dict[str, Any]] = loop.create_future()
        self.welcome: asyncio.Future[None] = loop.create_future()
        """Done when the server has answered our first PING: we are let in."""
        self.gone = asyncio.Event()
        self._link = link
        self._reader = Reader(link._came, self._said)  # noqa: SLF001 - they are one thing in two lifetimes
        for future in (self.info, self.welcome):
            future.add_done_callback(lambda done: done.cancelled() or done.exception())  # whoever waits is told; perhaps nobody

    async def secure(self, host: str) -> None:
        """Go on over TLS, with the certificates that this machine trusts."""
        import ssl

        made = await asyncio.get_running_loop().start_tls(
            self.transport, self, ssl.create_default_context(), server_hostname=host
        )
        if made is None:
            raise ConnectionError("the server hung up before TLS")
        self.connection_made(made)

    def greeted(self, sock: socket.socket) -> dict[str, Any]:
        """The server's INFO, before there is a transport. Raises OSError and Failure("unavailable")."""
        self.say = sock.sendall
        while not self.info.done():
            if not (data := sock.recv(LINE_BYTES)):
                raise ConnectionError("the server hung up")
            self._feed(data)
        return self.info.result()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.say = self.transport.write

    def data_received(self, data: bytes) -> None:
        try:
            self._feed(data)
        except Failure as failure:
            self._fail(failure)
            self.transport.abort()

    def _feed(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
        except (ValueError, IndexError, TypeError) as error:
            raise Failure("unavailable", f"what answers there is no NATS server: {error}") from None

    def pause_writing(self) -> None:
        if self._link._line is self:  # noqa: SLF001 - as above
            self._link.flush_held(held=True)

    def resume_writing(self) -> None:
        if self._link._line is self:  # noqa: SLF001 - as above
            self._link.flush_held(held=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionError("the server hung up"))
        self.gone.set()
        self._link.lost(self, exc)

    def _said(self, line: bytes) -> None:
        if line == b"PING":
            self.say(b"PONG\r\n")
        elif line == b"PONG":
            self._link.pong()
            if not self.welcome.done():
                self.welcome.set_result(None)
        elif line.startswith(b"INFO "):
            if not self.info.done():
                self.info.set_result(dict(json.loads(line[5:])))
        elif line.startswith(b"-ERR"):
            told = line[4:].decode(errors="replace").strip(" '")
            self._link.complained(told)
            if not self.welcome.done():
                self._fail(Failure("forbidden" if "authorization" in told.lower() else "unavailable", told))
        elif line != b"+OK":
            raise ValueError(repr(line[:60]))

    def _fail(self, error: Exception) -> None:
        for future in (self.info, self.welcome):
            if not future.done():
                future.set_exception(error)
