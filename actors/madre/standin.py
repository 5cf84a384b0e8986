"""The stand-in of one actor: its place in the queue group, the requests it takes, the answers it gives for a sleeper."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from functools import cached_property

from actors.madre.effects import Held
from actors.madre.kept import KeptCard
from bus import call
from bus.client import Bus
from bus.recorder import Recorder
from bus.users import answerable
from bus.wire import Msg, Subscription
from schemas.card import DescribeReply
from schemas.errors import Failure
from schemas.message import VERB_NAME

log = logging.getLogger("vx11.madre.standin")

PLAIN_HELD_S = 4.5
"""A stock client waits 5 s: what it asked without a deadline is answered before."""
MARGIN_S = 0.05
"""An answer that madre gives instead of the actor leaves this long before the caller's deadline."""
AGAIN_S = 0.2
STAMPS_BYTES = 1_024
"""What a request may grow by when it is forwarded: how long it was held, and where it is acknowledged."""


class StandIn:
    """Subscribes and leaves in the order it is told; `knock` gets each request, stamped, as a `Held`."""

    def __init__(self, bus: Bus, name: str, knock: Callable[[Held], None], state: Callable[[], str]) -> None:
        self.name = name
        self.card: KeptCard | None = None
        self._bus = bus
        self._knock = knock
        self._state = state
        self._subscription: Subscription | None = None
        self._turn: asyncio.Task[None] | None = None

    @cached_property
    def _recorder(self) -> Recorder:
        """Made with the first record: most sleepers never need one."""
        return Recorder(self._bus.wire, self.name, "madre")

    def open(self, proven: Callable[[], None]) -> None:
        self._then(self._open, proven)

    def close(self, proven: Callable[[], None]) -> None:
        self._then(self._close, proven)

    def _then(self, move: Callable[[], object], proven: Callable[[], None]) -> None:
        """One move after the other; a barrier that times out is asked again, for ever: without it nothing is proven."""
        before = self._turn

        async def turn() -> None:
            if before:
                await asyncio.wait([before])
            while True:
                try:
                    await move()  # type: ignore[misc]
                    break
                except Failure as failure:
                    log.warning("the stand-in of %s: %s", self.name, failure)
                    await asyncio.sleep(AGAIN_S)
            proven()

        self._turn = asyncio.get_running_loop().create_task(turn())

    async def _open(self) -> None:
        if self._subscription is None:
            self._subscription = await self._bus.listen(f"vx11.{self.name}.>", self._heard, queue=self.name)
        await self._bus.wire.barrier()

    async def _close(self) -> None:
        if self._subscription is not None:
            await self._bus.wire.leave(self._subscription)
            self._subscription = None

    async def leave(self) -> None:
        """Take nothing more; returns when all that was routed here has been handed over."""
        if self._turn:
            await asyncio.wait([self._turn])
        await self._close()

    def _heard(self, msg: Msg) -> None:
        verb = msg.subject.split(".", 2)[2]
        msg.reply = answerable(msg.reply)
        if verb == "describe" and self.card:
            reply = DescribeReply(card=self.card.whole(), state=self._state())
            headers = {call.CORRELATION: call.call_from(msg.headers).correlation_id}
            self.reply(msg.reply, reply.model_dump_json().encode(), headers)
            return
        if not VERB_NAME.fullmatch(verb) or (self.card and not self.card.error and self.card.verb(verb) is None):
            verbs = sorted([v.name for v in self.card.verbs] + ["describe"]) if self.card else []
            failure = Failure("endpoint_not_found", f"{self.name} has no verb {verb!r}", verbs=verbs)
            self.refuse(verb, msg.reply, msg.headers, failure, known=False)
            return
        if self.card and self.card.error:
            failure = Failure("unavailable", f"{self.name} cannot be loaded: {self.card.error}")
            self.refuse(verb, msg.reply, msg.headers, failure, known=False)  # nor are its verbs
            return
        held = self._held(msg, verb)
        if held.size > self._bus.wire.max_payload - STAMPS_BYTES:
            told = f"{held.size} bytes are more than can be held for a sleeper; ask again when {self.name} is awake"
            self.refuse(verb, msg.reply, held.headers, Failure("too_large", told), arrived=held.arrived)
            return
        self._knock(held)

    def _held(self, msg: Msg, verb: str) -> Held:
        """Stamp what a plain request lacks, before it is held: an id, a conversation, a deadline."""
        now = time.time()
        circumstances = call.call_from(msg.headers)
        known = self.card.verb(verb) if self.card else None
        deadline = circumstances.deadline
        if not deadline:
            deadline = now + min(known.timeout if known else PLAIN_HELD_S, PLAIN_HELD_S)
        headers = dict(msg.headers or {})
        headers[call.CORRELATION] = circumstances.correlation_id
        headers[call.TRACEPARENT] = call.traceparent_of(headers)
        headers[call.DEADLINE] = str(int(deadline * 1000))
        headers[call.REQUEST_ID] = circumstances.request_id or call.new_request_id()
        return Held(
            verb=verb,
            reply=msg.reply,
            body=msg.data,
            headers=headers,
            expires=deadline - MARGIN_S,
            arrived=now,
            deadline=deadline,
            request_id=headers[call.REQUEST_ID],
            idempotent=bool(known and known.idempotent),
            again=call.AGAIN in headers,
            nested=self.name in circumstances.path.split(","),
        )

    def refuse(
        self,
        verb: str,
        reply: str,
        headers: Mapping[str, str] | None,
        failure: Failure,
        *,
        arrived: float = 0.0,
        known: bool = True,
    ) -> None:
        """Answer an error in the actor's place, and record it. `arrived`: 0 is just now; `known`: the actor has the verb."""
        circumstances = call.call_from(headers)
        made = {
            call.CORRELATION: circumstances.correlation_id,
            call.ERROR: f"{failure.code}: {failure.message}"[:300],
            call.ERROR_CODE: str(failure.status),
        }
        if (headers or {}).get(call.STREAM) == "1":
            made[call.END] = "error"
        self.reply(reply, json.dumps(failure.document(circumstances.correlation_id)).encode(), made)
        self._record(verb, circumstances, failure.code, arrived or time.time(), known=known)

    def _record(self, verb: str, circumstances: call.Call, code: str, arrived: float, *, known: bool) -> None:
        ids = {
            "request_id": circumstances.request_id,
            "correlation_id": circumstances.correlation_id,
            "traceparent": circumstances.traceparent,
            "parent": circumstances.parent,
            "caller": circumstances.caller,
        }
        held_ms = int((time.time() - arrived) * 1000)
        self._recorder.record(verb, ids, received=arrived, took_ms=0.0, held_ms=held_ms, code=code, known=known)

    def reply(self, reply: str, body: bytes, headers: dict[str, str]) -> None:
        if not reply:
            return
        try:
            self._bus.wire.send(reply, body, headers=headers)
        except Failure as failure:
            log.warning("an answer for %s could not be sent: %s", self.name, failure)
