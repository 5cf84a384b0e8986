"""The messages of one durable consumer: pulled a few at a time, kept in hand by heartbeats, handed back on leaving.

It outlives deleted consumers, deleted streams and dead servers: it makes its consumer again at the first message that
has not been settled. It knows no framework: `fetch` never raises and never returns without having let others run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bus.streams import ACK_WAIT_S, NS, Api, Outcome, consumer_info, ensure_consumer, stream_info
from bus.wire import Msg, Subscription, Wire, status_of
from schemas.errors import Failure

log = logging.getLogger("vx11.pull")

FETCH_S = 1.0
"""A request for messages dies unnoticed with a server: so long is nothing heard at most."""
LATE_S = 0.25
"""The server's word that a request has run out may be this late."""
AGAIN_S = 0.25
"""Pause after trouble of any kind."""
BEATS = 3
"""Heartbeats in an ack wait: two may be late."""
UNSETTLED_MOST = 1_000
"""Sequences remembered for making the consumer again; only the lowest counts."""
CANCEL_S = 1.0
"""For a cancelled handler to end."""

ACK = b"+ACK"
NAK = b"-NAK"
TERM = b"+TERM"
WORKING = b"+WPI"

_ENDED = ("404", "408")
_IDLE = "100"

Key = tuple[int, datetime]
"""Sequence and time, because a stream that was made again counts from 1 again."""


@dataclass(slots=True)
class _Held:
    msg: Msg
    task: asyncio.Task[Any] | None = None
    """Who handles it; None until it is begun."""


class Pull:
    """At most `slots` messages in hand. Opened by `open`, closed by `release`, then `unsubscribe`."""

    def __init__(
        self,
        wire: Wire,
        api: Api,
        stream: str,
        name: str,
        subjects: Sequence[str],
        *,
        slots: int = 1,
        ack_wait_s: float = ACK_WAIT_S,
    ) -> None:
        self.stream, self.name = stream, name
        self.leaving = False
        self.on_settled: Callable[[], None] = lambda: None
        self.returned: Callable[[Msg], None] = lambda _: None
        """Told of each message that is handed back without having been begun: its delivery was no try."""
        self._wire, self._api, self._subjects = wire, api, subjects
        self._slots, self._ack_wait_s = slots, ack_wait_s
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"
        self._held: dict[Key, _Held] = {}
        self._arrived: list[Msg] = []
        self._unsettled: set[int] = set()
        self._seen = 0
        self._bound = False
        self._bound_at = ""
        self._asked, self._turn, self._until = 0, 0, 0.0
        self._trouble, self._told = "", ""
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._beating: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    @property
    def in_hand(self) -> int:
        return len(self._held)

    async def open(self) -> None:
        """Subscribe and begin to beat. The consumer is looked for by the first `fetch`, so that no server is needed."""
        self._inbox = self._wire.new_inbox()
        self._subscription = await self._wire.hear(f"{self._inbox}.*", self._heard)
        self._wire.on_reconnect.append(self._reconnected)
        self._beating = asyncio.create_task(self._beat(), name=f"heartbeat of {self.name}")

    async def fetch(self, batch: int = 1, timeout: float = FETCH_S) -> list[Msg]:
        """What has arrived, perhaps nothing. As many are asked for as there are free places: nothing waits in here."""
        del batch, timeout  # FastStream's; ours are `slots` and FETCH_S
        await asyncio.sleep(0)
        if not self._arrived or self.leaving:
            await self._more()
        if self.leaving:
            return []
        taken, self._arrived = self._arrived, []
        return taken

    def begin(self, msg: Msg) -> bool:
        """Whether `msg` may be handled now, by this task; False when it has been handed back."""
        held = self._held.get(key_of(msg))
        if held is None or held.task or self.leaving:
            return False
        held.task = asyncio.current_task()
        return True

    def done(self, msg: Msg, *, settled: bool) -> None:
        """`msg` is out of hand. `settled`: it will not come again."""
        self._held.pop(key_of(msg), None)
        if settled:
            self._unsettled.discard(msg.delivery.sequence)
            self.on_settled()
        self._news.set()

    def say(self, msg: Msg, word: bytes, *, delay_s: float = 0.0) -> None:
        """Tell the server what became of `msg`. When that cannot be said the message comes again after the ack wait."""
        if delay_s:
            word += b" " + json.dumps({"delay": int(delay_s * NS)}).encode()
        try:
            self._wire.send(msg.reply, word)
        except Failure as failure:
            log.warning("%s of %s/%d is not sent: %s", word.decode(), self.name, msg.delivery.sequence, failure)

    async def release(self) -> None:
        """Take no more; what is not begun goes back at once, what is begun stays in hand."""
        if self.leaving:
            return
        self.leaving = True
        self._news.set()
        with contextlib.suppress(ValueError):
            self._wire.on_reconnect.remove(self._reconnected)
        await self._unhear()
        for held in [h for h in self._held.values() if h.task is None]:
            self.returned(held.msg)
            self.say(held.msg, NAK)
            self.done(held.msg, settled=False)

    async def emptied(self) -> None:
        """Return once nothing is in hand."""
        while self._held:
            await self._wait(AGAIN_S)

    async def cancel(self) -> None:
        """Cancel what is being handled and hand it back."""
        for held in self._held.values():
            if held.task:
                held.task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_S):
                await self.emptied()
        for held in list(self._held.values()):
            log.error("a handler of %s does not end although it was cancelled", self.name)
            self.say(held.msg, NAK)
            self.done(held.msg, settled=False)

    async def unsubscribe(self) -> None:
        """The end; FastStream calls this."""
        await self.release()
        if self._beating:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
            self._beating = None

    async def _more(self) -> None:
        """Return once there may be something new, or after a pause."""
        if self.leaving or len(self._held) >= self._slots or not self._wire.is_connected:
            await self._wait(AGAIN_S)
            return
        try:
            await self._look()
        except Failure as failure:
            await self._stumble(str(failure))

    async def _look(self) -> None:
        if not self._bound:
            await self._bind()
        now = asyncio.get_running_loop().time()
        if not self._asked or now > self._until:
            self._ask(now)
        if not self._arrived:
            await self._wait(self._until - now)
        if self._trouble:
            raise Failure("unavailable", self._trouble)

    async def _stumble(self, trouble: str) -> None:
        if trouble != self._told:
            log.warning("consumer %s of %s: %s", self.name, self.stream, trouble)
        self._told, self._trouble, self._bound = trouble, "", False
        await self._wait(AGAIN_S)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()

    async def _bind(self) -> None:
        """Find the consumer or make it."""
        missing = await consumer_info(self._api, self.stream, self.name) is None
        start = await self._first_unsettled() if missing else 0
        made = await ensure_consumer(self._api, self.stream, self.name, self._subjects, ack_wait_s=self._ack_wait_s, start=start)
        self._remember(made)
        self._bound, self._asked = True, 0
        if made.did != "kept":
            log.warning("consumer %s of %s: %s %s", self.name, self.stream, made.did, dict(made.changed) or "")
        self._told = ""

    def _remember(self, made: Outcome) -> None:
        if not self._bound_at:
            self._seen = int(made.info["delivered"]["stream_seq"])
            if made.info["num_ack_pending"]:  # a former life's, it is not known which: all that is not below the floor
                self._unsettled.add(int(made.info["ack_floor"]["stream_seq"]) + 1)
        self._bound_at = str(made.info["ts"])

    async def _first_unsettled(self) -> int:
        """Where a consumer goes on that was deleted: rather twice than not at all. 0 when this was never bound."""
        if not self._bound_at:
            return 0
        stream = await stream_info(self._api, self.stream)
        if datetime.fromisoformat(stream["created"]) > datetime.fromisoformat(self._bound_at):
            self._unsettled.clear()  # it was made again: all of it is new
            self._seen = 0
        return min(self._unsettled, default=self._seen + 1)

    def _ask(self, now: float) -> None:
        self._turn += 1
        self._asked = self._slots - len(self._held)
        self._until = now + FETCH_S + LATE_S
        body = json.dumps({"batch": self._asked, "expires": int(FETCH_S * NS)}).encode()
        self._wire.send(self._next, body, reply=f"{self._inbox}.{self._turn}")

    def _heard(self, msg: Msg) -> None:
        """A message has an ack subject; everything else is the server talking, whatever headers a message may have."""
        if msg.reply.startswith("$JS.ACK."):
            self._asked = max(0, self._asked - 1)
            self._take(msg)
        elif msg.subject == f"{self._inbox}.{self._turn}" and (status := status_of(msg)) != _IDLE:
            self._asked = 0
            if status not in _ENDED:
                self._trouble = f"{status} {(msg.headers or {}).get('Description', '')}".strip()
        self._news.set()

    def _take(self, msg: Msg) -> None:
        key = key_of(msg)
        if key in self._held:
            return  # a second copy of what is in hand: the first one's outcome is for both
        self._held[key] = _Held(msg)
        self._arrived.append(msg)
        self._seen = max(self._seen, key[0])
        self._unsettled.add(key[0])
        if len(self._unsettled) > UNSETTLED_MOST:
            self._unsettled.remove(max(self._unsettled))

    def _reconnected(self) -> None:
        self._asked = 0  # what was asked died with the connection
        self._news.set()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._ack_wait_s / BEATS)
            if self._wire.is_connected:
                for held in list(self._held.values()):
                    self.say(held.msg, WORKING)

    async def _unhear(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        try:
            if self._wire.is_connected:
                await self._wire.leave(subscription)
            else:
                self._wire.forget(subscription.sid)
        except Failure as trouble:  # then nothing can have been sent to us either
            log.debug("leaving %s: %s", self.name, trouble)


def key_of(msg: Msg) -> Key:
    """Tells messages apart, also those of a stream that was made again."""
    return msg.delivery.sequence, msg.delivery.timestamp
