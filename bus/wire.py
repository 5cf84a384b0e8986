"""One connection to the server: messages are handed over in the order of the wire, and a barrier that is one.

nats-py queues incoming messages per subscription and its `flush` overtakes what is still unsent; both lose requests
when an actor changes hands. Here every subscription calls a plain function as the bytes are parsed, so that the echo of
a message to oneself proves that everything before it, on all subscriptions, has been taken. The names with an
underscore that this file uses of nats-py 2.16 are the seam; `tests/bus/test_wire.py` fails when they change.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bus.lean import absent
from bus.refusal import refusal
from bus.users import answerable, inbox_prefix
from schemas.errors import Failure

with absent("aiohttp"):  # for WebSockets: 9 MB and 120 ms
    import nats.aio.client
    import nats.js  # which imports it, too

import nats.errors
import nats.protocol.parser
import nkeys  # noqa: F401  # imported here so that forked children need not
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

__all__ = ["Heard", "Msg", "Subscription", "Wire", "status_of"]

log = logging.getLogger("vx11.wire")

# The server splits control lines at spaces and tabs only; nats-py also at what a stranger can put into a subject, and would
# take the rest of it for the number of another subscription.
nats.protocol.parser.MSG_RE = re.compile(rb"\AMSG[ \t]+([^ \t\r\n]+)[ \t]+(\d+)[ \t]+(([^ \t\r\n]+)[ \t]+)?(\d+)\r\n")
nats.protocol.parser.HMSG_RE = re.compile(
    rb"\AHMSG[ \t]+([^ \t\r\n]+)[ \t]+(\d+)[ \t]+(([^ \t\r\n]+)[ \t]+)?(\d+)[ \t]+(\d+)\r\n"
)

Heard = Callable[[Msg], None]

RECONNECT_S = 0.25
"""Pause between attempts to reconnect; the gateway and madre use FAST_RECONNECT_S."""
FAST_RECONNECT_S = 0.05
PING_S = 5
"""A dead peer is noticed after PING_S * (PINGS_OUT + 1) seconds at most."""
PINGS_OUT = 2
PENDING_BYTES = 8 * 1024 * 1024
"""What may wait to be sent while there is no server."""
BARRIER_S = 5.0
CONNECT_S = 5
LINE_BYTES_MOST = 4_000
"""The server closes a connection for good over a control line of 4 KB: subject, reply and sizes."""

VERSION_CHARS = len("NATS/1.0")
"""What a head begins with."""

_UNSAFE = str.maketrans({"\r": " ", "\n": " "})


class _Straight(Subscription):
    """A subscription that keeps no queue: what comes is handed over at once."""

    def __init__(self, wire: Wire, sid: int, subject: str, queue: str, heard: Heard) -> None:
        super().__init__(wire, sid, subject, queue=queue)
        self.heard = heard


class Wire(Client):
    """A nats-py client that hands over in order, sends without a suspension point and has a barrier."""

    def __init__(self) -> None:
        super().__init__()
        self.inbox = ""
        self._tokens = itertools.count(1)
        self._answers: dict[str, Heard] = {}
        self._barriers: dict[str, asyncio.Future[None]] = {}
        self._leaving: set[int] = set()
        self.on_reconnect: list[Callable[[], None]] = []
        self.on_disconnect: list[Callable[[], None]] = []
        self.on_close: list[Callable[[], None]] = []
        self.strays = 0
        """Messages to our inbox that nothing waits for any more: late answers, and second ones."""
        self.unreadable = 0
        """Messages whose subject is no UTF-8."""
        self.denied = 0
        """Publishes and subscriptions that the server refused: always a fault of ours."""
        self._opened = False

    async def open(
        self,
        url: str,
        *,
        user: str,
        seed: Path | None,
        name: str,
        reconnect_s: float = RECONNECT_S,
        buffered: bool = True,
    ) -> None:
        """Connect. `buffered=False`: what is sent while there is no server raises `unavailable` at once.

        Raises Failure("unavailable") when there is no server, Failure("forbidden") when it refuses the seed.
        """
        try:
            async with asyncio.timeout(CONNECT_S):  # nats-py would try for ever, the first time too
                await self.connect(
                    servers=[url],
                    name=name,
                    nkeys_seed_str=seed.read_text().strip() if seed else None,  # noqa: ASYNC240 - 58 bytes, once
                    inbox_prefix=inbox_prefix(user),
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    connect_timeout=CONNECT_S,
                    reconnect_time_wait=reconnect_s,  # type: ignore[arg-type]  # it goes to asyncio.sleep
                    ping_interval=PING_S,
                    max_outstanding_pings=PINGS_OUT,
                    pending_size=PENDING_BYTES if buffered else 0,
                    error_cb=self._told_error,
                    disconnected_cb=self._told_disconnected,
                    reconnected_cb=self._told_reconnected,
                    closed_cb=self._told_closed,
                )
        except Failure as refused:
            await self.close()
            raise Failure(refused.code, f"the server at {url} refuses the user {user}: {refused.message}") from None
        except (TimeoutError, OSError, nats.errors.Error) as error:
            await self.close()
            raise Failure("unavailable", f"no NATS server answers at {url}: {self.last_error or error}") from error
        self._opened = True
        self.inbox = f"{inbox_prefix(user)}.{self._nuid.next().decode()}"
        await self.hear(f"{self.inbox}.*", self._heard_inbox)

    def send(self, subject: str, data: bytes = b"", *, reply: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Queue one message; never suspends, so that order is the order of the calls.

        Raises Failure("too_large"), Failure("invalid") for what is no subject, and Failure("unavailable") (no server, and
        nothing may wait for it).
        """
        if not subject.isprintable() or not subject or " " in subject:
            raise Failure("invalid", f"{subject!r} is no subject")
        head = _head(headers) if headers else b""
        if len(head) + len(data) > self._max_payload:  # the server would close the connection, for good
            told = f"{len(head) + len(data)} bytes, {len(head)} of them headers"
            raise Failure("too_large", f"{told}, are more than a message may have ({self._max_payload})")
        command = _publication(subject, reply, data, head)
        if (line := len(command) - len(head) - len(data)) > LINE_BYTES_MOST:
            raise Failure("too_large", f"subject and reply have {line} bytes; {LINE_BYTES_MOST} may be")
        ready = self.is_connected
        if not ready and (self.is_closed or self._pending_data_size + len(command) > self._max_pending_size):
            raise Failure("unavailable", "there is no connection to the NATS server just now")
        self._pending.append(command)
        self._pending_data_size += len(command)
        if ready and self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    @property
    def unsent(self) -> int:
        """Messages that the server has not taken yet, at least."""
        return len(self._pending)

    async def hear(self, subject: str, heard: Heard, *, queue: str = "") -> Subscription:
        """Subscribe; `heard` is called for each message in wire order and must not block."""
        self._sid += 1
        subscription = self._subs[self._sid] = _Straight(self, self._sid, subject, queue, heard)
        if self.is_connected:  # while reconnecting nats-py sends it with the others
            await self._send_subscribe(subscription)
        return subscription

    async def leave(self, subscription: Subscription) -> None:
        """Unsubscribe and return once nothing more can come: all that was routed to us has been handed over.

        However long the server takes: what it routed meanwhile is ours. Without a server BARRIER_S is enough, for nothing
        is routed to us then. Raises Failure when the connection was closed.
        """
        sid = subscription._id
        if sid not in self._subs:
            return
        self._leaving.add(sid)
        try:
            if self.is_connected:
                await self._send_unsubscribe(sid)
            while not await self._echoed() and self.is_connected:
                log.info("leaving %s: the server is slow", subscription.subject)
        finally:
            self._leaving.discard(sid)
            self._remove_sub(sid)

    async def _echoed(self) -> bool:
        try:
            await self.barrier(BARRIER_S)
        except Failure:
            if self.is_closed:
                raise
            return False
        return True

    async def barrier(self, timeout: float = BARRIER_S) -> None:
        """Return once everything sent before has been taken by the server and everything it sent before its echo is here.

        Asked again after a reconnect. Raises Failure("timeout") when there is no echo in `timeout` seconds.
        """
        token = self.token()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._barriers[token] = done
        try:
            if self.is_connected:
                self.send(f"{self.inbox}.{token}")
            async with asyncio.timeout(timeout):
                await done
        except TimeoutError:
            raise Failure("timeout", f"no echo from the NATS server in {timeout:g} s") from None
        finally:
            del self._barriers[token]

    def token(self) -> str:
        return format(next(self._tokens), "x")

    def await_answer(self, heard: Heard) -> tuple[str, str]:
        """(token, reply subject); `heard` is called with whatever arrives there until `forget_answer(token)`."""
        token = self.token()
        self._answers[token] = heard
        return token, f"{self.inbox}.{token}"

    def forget_answer(self, token: str) -> None:
        self._answers.pop(token, None)

    async def aclose(self) -> None:
        """Send what waits, then close. Never raises for a server that is already gone."""
        if self.is_connected:
            try:
                await self.barrier(1.0)
            except Failure as failure:
                log.debug("closing without a last barrier: %s", failure)
        await self.close()

    def _heard_inbox(self, msg: Msg) -> None:
        token = msg.subject[len(self.inbox) + 1 :]
        if heard := self._answers.get(token):
            heard(msg)
        elif (barrier := self._barriers.get(token)) is None:
            self.strays += 1
        elif not barrier.done():
            barrier.set_result(None)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """Hand a message over. One whose subject cannot be read is counted and left out; nats-py would stop reading for 15 s."""
        subscription = self._subs.get(sid)
        if not isinstance(subscription, _Straight):
            return  # we have left
        try:
            msg = Msg(self, subject.decode(), reply.decode(), data, _headers_of(headers), None, False, sid)
        except UnicodeDecodeError as error:
            self.unreadable += 1
            log.warning("a message on %r cannot be read: %s", subject[:100], error)
            if subscription.queue:  # a request: whoever asks is answered
                self._refuse(reply)
            return
        try:
            subscription.heard(msg)
        except Exception:
            log.exception("the handler of %s raised", msg.subject)

    def _refuse(self, reply: bytes) -> None:
        headers, body = refusal(Failure("invalid", "the subject of this request is no UTF-8"))
        try:
            self.send(answerable(reply.decode(errors="replace")), body, headers=headers)
        except Failure as failure:
            log.debug("it could not be told: %s", failure)

    async def _told_error(self, error: Exception) -> None:
        if not self._opened and "authorization" in str(error).lower():
            raise Failure("forbidden", str(error))  # else nats-py would ask the same again and again
        if "permissions violation" in str(error).lower():
            self.denied += 1
            log.error("refused by the server's permissions: %s", error)
        else:
            log.info("connection: %r", error)

    async def _told_disconnected(self) -> None:
        for sid in self._leaving:  # else nats-py subscribes them again
            self._subs.pop(sid, None)
        for told in self.on_disconnect:
            told()

    async def _told_reconnected(self) -> None:
        for sid in self._leaving:  # who left while there was no server has been subscribed again
            await self._send_unsubscribe(sid)
        for token in self._barriers:
            self.send(f"{self.inbox}.{token}")
        for told in self.on_reconnect:
            told()

    async def _told_closed(self) -> None:
        for told in self.on_close:
            told()


def _head(headers: Mapping[str, str]) -> bytes:
    lines = "\r\n".join([f"{name}: {value}" for name, value in headers.items()])
    if lines.count("\n") != len(headers) - 1 or lines.count("\r") != len(headers) - 1:  # a value that would say more than itself
        lines = "\r\n".join([f"{name}: {value.translate(_UNSAFE)}" for name, value in headers.items()])
    return f"NATS/1.0\r\n{lines}\r\n\r\n".encode(errors="replace")  # half a surrogate is no reason to answer nothing


def _headers_of(raw: bytes) -> dict[str, str] | None:
    """The header lines, and the status that the server may have put into the first one; what is no header is left out."""
    if not raw:
        return None
    first, *lines = raw.decode(errors="replace").split("\r\n")
    found: dict[str, str] = {}
    if len(first) > VERSION_CHARS:
        status, _, description = first[VERSION_CHARS:].strip().partition(" ")
        found = {"Status": status, "Description": description} if status.isdigit() else {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and name.isascii() and name and " " not in name:
            found[name] = value.strip()
    return found or None


def _publication(subject: str, reply: str, data: bytes, head: bytes) -> bytes:
    space = f"{subject} {reply} " if reply else f"{subject} "
    if not head:
        return b"".join((f"PUB {space}{len(data)}\r\n".encode(), data, b"\r\n"))
    return b"".join((f"HPUB {space}{len(head)} {len(head) + len(data)}\r\n".encode(), head, data, b"\r\n"))


def status_of(msg: Msg) -> str:
    """The server's inline status, `503` for "no responders"; empty on an ordinary message, and on a stored one: its headers
    are somebody's.
    """
    headers: dict[str, Any] | None = msg.headers
    return str(headers.get("Status", "")) if headers and not msg.data and "Nats-Sequence" not in headers else ""
