"""One connection to the server: messages are handed over in the order of the wire, and a barrier that is one.

Every subscription calls a plain function as the bytes are cut, so that the echo of a message to oneself proves that
everything before it, on all subscriptions, has been taken. nats-py queues per subscription and its `flush` overtakes what is
still unsent; both lost requests when an actor changed hands.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from random import getrandbits
from typing import Any

from bus import call
from bus.link import Link
from bus.protocol import Msg, Subscription, head_of, headers_of, publication
from bus.refusal import refusal
from bus.users import answerable, inbox_prefix, may_answer
from schemas.errors import Failure

__all__ = ["Heard", "Msg", "Subscription", "Wire", "status_of"]

log = logging.getLogger("vx11.wire")

Heard = Callable[[Msg], None]

RECONNECT_S = 0.25
"""Pause between attempts to reconnect; the gateway and madre use FAST_RECONNECT_S."""
FAST_RECONNECT_S = 0.05
BARRIER_S = 5.0


class Wire(Link):
    """A connection with an inbox of its own, answers to what was asked over it, and a barrier."""

    def __init__(self) -> None:
        super().__init__()
        self.inbox = ""
        self._user = ""
        self._tokens = itertools.count(1)
        self._answers: dict[str, Heard] = {}
        self._barriers: dict[str, asyncio.Future[None]] = {}
        self._leaving: set[int] = set()
        self.on_reconnect: list[Callable[[], None]] = []
        self.on_disconnect: list[Callable[[], None]] = []
        self.on_close: list[Callable[[], None]] = []
        self.on_denied: list[Callable[[str], None]] = []
        self.strays = 0
        """Messages to our inbox that nothing waits for any more: late answers, and second ones."""
        self.unreadable = 0
        """Messages whose subject is no UTF-8."""
        self.denied = 0
        """Publishes and subscriptions that the server refused: always a fault of ours."""

    async def open(
        self,
        url: str,
        *,
        user: str,
        seed: Path | None,
        name: str,
        reconnect_s: float = RECONNECT_S,
        buffered: bool = True,
        eager: bool = False,
    ) -> None:
        """Connect. `buffered=False`: what is sent while there is no server raises `unavailable` at once.

        `eager`: see `Link.dial`; `on_close` is called when we are not welcome. Raises Failure("unavailable")
        when there is no server, Failure("forbidden") when it refuses the seed.
        """
        key = seed.read_text().strip() if seed else ""  # noqa: ASYNC240 - 58 bytes, once
        if not self.inbox:
            self.be(user)
        try:
            await self.dial(url, name=name, seed=key, reconnect_s=reconnect_s, buffered=buffered, eager=eager)
        except Failure as refused:
            await self.close()
            told = f"the server at {url} refuses the user {user}" if refused.code == "forbidden" else f"no connection to {url}"
            raise Failure(refused.code, f"{told}: {refused.message}") from None
        except (TimeoutError, OSError) as error:
            await self.close()
            raise Failure("unavailable", f"no NATS server answers at {url}: {str(error) or 'it is silent'}") from error

    def be(self, user: str) -> None:
        """Have an inbox. Before `open` only by who wants to send before it."""
        self._user = user
        self.inbox = self.new_inbox()
        self.subscribe(f"{self.inbox}.*", self._heard_inbox)

    def new_inbox(self) -> str:
        """A subject that nobody else has, of those that our user may subscribe."""
        return f"{inbox_prefix(self._user)}.{getrandbits(128):032x}"

    def send(
        self, subject: str, data: bytes = b"", *, reply: str = "", headers: Mapping[str, str] | None = None, now: bool = False
    ) -> None:
        """Queue one message; never suspends, so that order is the order of the calls. `now`: for one that somebody waits for
        while we go on working.

        Raises Failure("too_large"), Failure("invalid") for what is no subject, and Failure("unavailable") (no server, and
        nothing may wait for it).
        """
        self.write(publication(subject, reply, data, head_of(headers) if headers else b"", self.max_payload), now=now)

    async def hear(self, subject: str, heard: Heard, *, queue: str = "") -> Subscription:
        """Subscribe; `heard` is called for each message in wire order and must not block."""
        return self.subscribe(subject, heard, queue)

    async def leave(self, subscription: Subscription) -> None:
        """Unsubscribe and return once nothing more can come: all that was routed to us has been handed over.

        However long the server takes: what it routed meanwhile is ours. Without a server BARRIER_S is enough, for nothing
        is routed to us then. Raises Failure when the connection was closed.
        """
        sid = subscription.sid
        if sid not in self._subs:
            return
        self._leaving.add(sid)
        try:
            self.unsubscribe(sid)
            while not await self._echoed() and self.is_connected:
                log.info("leaving %s: the server is slow", subscription.subject)
        finally:
            self._leaving.discard(sid)
            self.forget(sid)

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
            self._stray(msg)
        elif not barrier.done():
            barrier.set_result(None)

    def _stray(self, msg: Msg) -> None:
        """Who still works for an answer that has been given up, and asks whether it is wanted, is told."""
        self.strays += call.PROBE not in (msg.headers or call.NO_HEADERS)
        if msg.reply and may_answer(self._user):
            self.send(answerable(msg.reply))

    def _came(self, sid: int, subject: bytes, reply: bytes, head: bytes, body: bytes) -> None:
        """Hand a message over. One whose subject cannot be read is counted and left out."""
        subscription = self._subs.get(sid)
        if subscription is None:
            return  # we have left
        try:
            msg = Msg(subject.decode(), reply.decode(), body, headers_of(head))
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

    def _denied(self, told: str) -> None:
        self.denied += 1
        log.error("refused by the server's permissions: %s", told)
        for heard in self.on_denied:
            heard(told)

    def _disconnected(self) -> None:
        for sid in self._leaving:  # else they would be subscribed again
            self.forget(sid)
        for told in self.on_disconnect:
            told()

    def _reconnected(self) -> None:
        for sid in self._leaving:  # who left while there was no server has been subscribed again
            self.unsubscribe(sid)
        for token in self._barriers:
            self.send(f"{self.inbox}.{token}")
        for told in self.on_reconnect:
            told()

    def _closed(self) -> None:
        for told in self.on_close:
            told()


def status_of(msg: Msg) -> str:
    """The server's inline status, `503` for "no responders"; empty on an ordinary message, and on a stored one: its headers
    are somebody's.
    """
    headers: dict[str, Any] | None = msg.headers
    return str(headers.get("Status", "")) if headers and not msg.data and "Nats-Sequence" not in headers else ""
