"""Answers the requests of one actor in one process: always an answer, at most one execution per request id."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import aclosing, nullcontext
from contextvars import copy_context
from functools import partial
from typing import Any

from pydantic import ValidationError

from bus import call
from bus.actor import Actor, Handler
from bus.bodies import Bodies
from bus.call import Call
from bus.chunks import Chunks, asks_stream
from bus.doubts import Doubts
from bus.recorder import Recorder
from bus.redaction import secrets_of
from bus.refusal import invalid, refusal
from bus.replies import KEPT_S, Key, Replies
from bus.resources import Resources
from bus.stats import Stats
from bus.users import answerable
from bus.wire import Msg, Wire
from schemas.errors import Failure
from schemas.message import Message

log = logging.getLogger("vx11.responder")

FROZEN_S = 5.0
"""A gap in the own clock that is longer: the process was stopped, and what waited meanwhile has been given up."""
DESCRIBE = "describe"
DOUBT_MARGIN_S = 0.05
"""Its answer leaves so long before its deadline."""
FIRST_COPY_S = 1.0
"""What a repeat waits for its first copy, which may be in madre's hands: her orders are repeated every 0.25 s."""


class Responder:
    """`receive` is called in wire order and returns at once; handlers run as tasks, `actor.concurrency` at a time."""

    def __init__(
        self,
        actor: Actor,
        wire: Wire,
        resources: Resources,
        *,
        run: str,
        describe: Callable[[], bytes],
        alone_since: float = math.inf,
    ) -> None:
        """`alone_since`: nobody else has begun a request that was sent later than this, seconds since the epoch.

        Made inside the running loop, and after the actor has been declared whole.
        """
        self._loop = asyncio.get_running_loop()  # asked once: each asking is a call into the kernel
        self._context = copy_context()
        self._looking = {DESCRIBE, *(verb for verb, handler in actor.requests.items() if handler.message.passive)}
        """Verbs that only look."""
        self.actor = actor
        self._full = actor.record == "full"
        self.run = run
        self._shared, self._private = f"vx11.{actor.name}.", f"vx11.inst.{actor.name}.{run}."
        """What stands before the verb in the subjects of its requests."""
        self._alone_since = alone_since
        self._wire = wire
        self._resources = resources
        self._describe = describe
        self._waiting: deque[tuple[Msg, Handler, Call, Message]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._replies = Replies()
        self._doubts = Doubts()
        self._promised_until = 0.0
        self._idle = asyncio.Event()
        self._idle.set()
        self._stale = False
        self._tick = self.last_active = time.monotonic()
        self.answered = 0
        self.on_first_answer: Callable[[], None] = lambda: None
        self.stats = Stats()
        self.recorder = Recorder(wire, actor.name, run)

    @property
    def in_flight(self) -> int:
        return len(self._tasks) + len(self._waiting)

    def idle_s(self) -> float:
        """Seconds without work; 0.0 while there is some, or while an answer may still be asked for again."""
        if self.in_flight or self._doubts or time.time() < self._promised_until:
            return 0.0
        return time.monotonic() - self.last_active

    async def idle(self) -> None:
        """Return once nothing is in hand."""
        await self._idle.wait()

    def tick(self) -> None:
        """To be called every few seconds: the own clock is watched by it, and the reply cache trimmed."""
        self._check_frozen()  # after a stop this may run before the first request that waited
        self._tick = time.monotonic()
        self._replies.trim(time.time())

    def receive(self, msg: Msg) -> None:
        """One request, direct or forwarded."""
        headers: Mapping[str, str] = msg.headers or call.NO_HEADERS
        msg.reply = answerable(msg.reply)
        subject, _, number = headers.get(call.FORWARD, "").partition(" ")
        if answerable(subject):
            self._wire.send(subject, f"{self.actor.name} {number}".encode())
        circumstances = call.call_from(headers)
        verb = msg.subject.removeprefix(self._shared).removeprefix(self._private)
        self._touch(circumstances, verb)
        self._check_frozen()
        if self._stale and not circumstances.deadline:
            self._refuse(msg, verb, circumstances, Failure("timeout", "this process was stopped while the request waited"))
            return
        if self._joined(msg, headers, circumstances, verb):
            return
        try:
            self._accept(msg, verb, circumstances)
        except Failure as failure:
            self._refuse(msg, verb, circumstances, failure)

    def _touch(self, circumstances: Call, verb: str) -> None:
        """Start the idle clock again, unless this is only a look."""
        if not self._looks(circumstances, verb):
            self.last_active = time.monotonic()

    def _looks(self, circumstances: Call, verb: str) -> bool:
        """By its header or by its class."""
        return circumstances.passive or verb in self._looking

    def _accept(self, msg: Msg, verb: str, circumstances: Call) -> None:
        if verb == DESCRIBE:
            self._send(msg.reply, self._describe(), self._headers(circumstances))
            return
        handler = self.actor.requests.get(verb)
        if handler is None:
            verbs = sorted([*self.actor.requests, DESCRIBE])
            raise Failure("endpoint_not_found", f"{self.actor.name} has no verb {verb!r}", verbs=verbs)
        message = _parse(handler, msg.data)
        if self.in_flight >= self.actor.concurrency + self.actor.queue:
            raise Failure("busy", f"{self.in_flight} requests wait already", retry_after=1)
        if circumstances.request_id:
            deadline = circumstances.deadline or time.time() + handler.message.timeout
            self._replies.begin(_key(circumstances, verb), time.time(), deadline, msg.reply, msg.data)
        self._idle.clear()
        if len(self._tasks) >= self.actor.concurrency:
            self._waiting.append((msg, handler, circumstances, message))
        else:
            self._start(msg, handler, circumstances, message)

    def _start(self, msg: Msg, handler: Handler, circumstances: Call, message: Message) -> None:
        run = self._run(msg, handler, circumstances, message)
        self._tasks.add(self._loop.create_task(run, context=self._context.copy()))

    def _ended(self) -> None:
        self._tasks.discard(asyncio.current_task(self._loop))
        if self._waiting:
            self._start(*self._waiting.popleft())
        elif not self._tasks:
            self._idle.set()

    async def _run(self, msg: Msg, handler: Handler, circumstances: Call, message: Message) -> None:
        """Run the handler and answer, whatever happens in it."""
        call.current.set(circumstances)
        begun, received = time.perf_counter(), time.time()
        failed: Failure | None = None
        try:
            try:
                body = await self._execute(msg, handler, circumstances, message)
            except Failure as failure:
                failed = failure
            except asyncio.CancelledError:
                failed = Failure("cancelled", "the handler was cancelled")
            except Exception:
                where = self.actor.name, handler.name, circumstances.correlation_id
                log.exception("%s.%s failed (correlation id %s)", *where, extra=secrets_of(message))
                failed = Failure("internal", "the handler failed; its log has the reason under this correlation id")
            took, headers = time.perf_counter() - begun, self._headers(circumstances)
            if failed:
                body = self._refusal(failed, circumstances, headers, streamed=_streamed(msg, handler))
            self._answer(msg, circumstances, handler, body, headers)
            self.stats.count(handler.verb, took, failed.code if failed else "")
            bodies = Bodies(handler.message, msg.data, body, failed is None) if self._full else None
            self._record(handler.verb, circumstances, received, took, failed.code if failed else "ok", bodies)
        finally:
            self._ended()

    async def _execute(self, msg: Msg, handler: Handler, circumstances: Call, message: Message) -> bytes:
        if circumstances.deadline and time.time() > circumstances.deadline:
            raise Failure("timeout", "the deadline had passed before the handler could start")
        wanted = self._resources.give(handler.wants, circumstances)
        if handler.streams:
            return await self._stream(msg, handler, circumstances, message, wanted)
        reply: Message = await handler.run(message, **wanted)
        return reply.model_dump_json(by_alias=True).encode()

    async def _stream(self, msg: Msg, handler: Handler, circumstances: Call, message: Message, wanted: dict[str, Any]) -> bytes:
        """Send the chunks if a stream was asked for; the whole reply, which comes last, is the answer either way."""
        chunk_type, whole = handler.message.chunk_type(), None
        chunks = Chunks(self._wire, msg, self.run, circumstances.correlation_id) if _streamed(msg, handler) else None
        joined = partial(self._replies.joined, _key(circumstances, handler.verb))
        with chunks.while_read(unless=joined) if chunks else nullcontext():
            async with aclosing(handler.run(message, **wanted)) as items:
                async for item in items:
                    if not isinstance(item, chunk_type):
                        whole = item
                    elif chunks:
                        await chunks.send(item.model_dump_json(by_alias=True).encode())
        if whole is None:
            raise Failure("internal", f"{handler.name} ended without its reply")
        body: bytes = whole.model_dump_json(by_alias=True).encode()
        if chunks:
            head = {**self._headers(circumstances), call.SEQ: str(chunks.sent), call.END: "ok"}
            self._send(msg.reply, body, head)
            for reply in self._remember_stream(circumstances, handler):
                if reply != msg.reply:  # a copy that joined: the whole is its answer
                    self._send(reply, body, self._headers(circumstances))
        return body

    def _answer(self, msg: Msg, circumstances: Call, handler: Handler, body: bytes, headers: dict[str, str]) -> None:
        verb = handler.verb
        self.answered += 1
        self._touch(circumstances, verb)
        if call.ERROR in headers or not _streamed(msg, handler):
            if not handler.message.idempotent and not self._looks(circumstances, verb) and circumstances.request_id:
                promised = min(self._replies.awaited_until(_key(circumstances, verb)), time.time() + KEPT_S)
                self._promised_until = max(self._promised_until, promised)
            self._settle(msg, circumstances, verb, body, headers)
        if self.answered == 1:
            self._loop.call_soon(self.on_first_answer)

    def _settle(self, msg: Msg, circumstances: Call, verb: str, body: bytes, headers: dict[str, str]) -> None:
        """Send the answer to all that wait for it, and keep it if it has an id."""
        replies = []
        if circumstances.request_id:
            replies = self._replies.end(_key(circumstances, verb), time.time(), body, headers, self._connection)
        for reply in dict.fromkeys([msg.reply, *replies]):
            self._send(reply, body, headers)

    def _remember_stream(self, circumstances: Call, handler: Handler) -> list[str]:
        """Its pieces are not kept; that it has been is, so that no copy of the request runs it again.

        Returns the subjects that wait for it.
        """
        failure = Failure("crashed", "the answer was a stream that has ended; its pieces are not kept")
        head = self._headers(circumstances)
        body = self._refusal(failure, circumstances, head, streamed=True)
        return self._replies.end(_key(circumstances, handler.verb), time.time(), body, head, self._connection)

    @property
    def _connection(self) -> int:
        return self._wire.reconnects

    def _joined(self, msg: Msg, headers: Mapping[str, str], circumstances: Call, verb: str) -> bool:
        """A copy of a request that is known here joins its first; a repeat whose first is unknown is doubted."""
        if not circumstances.request_id:
            return False
        key = _key(circumstances, verb)
        if outcome := self._replies.find(key):
            late_receipt = call.FORWARD in headers and call.AGAIN not in headers and outcome.connection == self._connection
            if outcome.asked != hash(msg.data):
                told = f"the request id {circumstances.request_id} belongs to another request of {verb}, with another body"
                self._refuse(msg, verb, circumstances, Failure("conflict", told))
            elif outcome.body is None and msg.reply not in outcome.replies:
                outcome.replies.append(msg.reply)
            elif outcome.body is not None and not late_receipt:  # else only the receipt was slow, the answer is there
                self._send(msg.reply, outcome.body, outcome.headers or {})
            return True
        handler = self.actor.requests.get(verb)
        if call.AGAIN not in headers or handler is None or handler.message.idempotent:
            self._doubts.resolve(key)
            return False
        return not self._surely_unbegun(headers) and self._doubted(key, msg, circumstances)

    def _surely_unbegun(self, headers: Mapping[str, str]) -> bool:
        """Whether nobody else can have begun it: it was sent when all before us were gone, and we have forgotten nothing.

        A time of sending that is still to come is a clock that was set back, and proves nothing.
        """
        sent = call.milliseconds(headers.get(call.SENT)) / 1000
        since = max(self._alone_since, self._replies.complete_since)
        return headers[call.AGAIN] == call.AGAIN_HELD and since < sent <= time.time()

    def _doubted(self, key: Key, msg: Msg, circumstances: Call) -> bool:
        """Let a repeat wait for its first copy, unless that is lost for sure."""
        if key not in self._doubts:
            left = circumstances.deadline - time.time() if circumstances.deadline else FIRST_COPY_S
            lost = (msg.headers or {}).get(call.AGAIN) == call.AGAIN_HELD
            pause = 0.0 if lost else max(0.0, min(FIRST_COPY_S, left - DOUBT_MARGIN_S))
            self._doubts.add(key, pause, partial(self._disown, key, msg, circumstances))
        return True

    def disown_doubts(self) -> None:
        """This instance is leaving: no first copy comes here any more."""
        self._doubts.disown_all()

    def _disown(self, key: Key, msg: Msg, circumstances: Call) -> None:
        """The first copy has not come: it may have been begun elsewhere, and is not begun here, not even if it comes later."""
        failure = Failure("crashed", "an instance died that may have begun this request; it is not executed twice")
        head = self._headers(circumstances)
        body = self._refusal(failure, circumstances, head, streamed=asks_stream(msg))
        self._replies.begin(key, time.time(), circumstances.deadline, msg.reply, msg.data)
        self._replies.end(key, time.time(), body, head, self._connection)
        self._send(msg.reply, body, head)
        self._record(key[1], circumstances, time.time(), 0.0, failure.code)

    def _refuse(self, msg: Msg, verb: str, circumstances: Call, failure: Failure) -> None:
        headers = self._headers(circumstances)
        self._send(msg.reply, self._refusal(failure, circumstances, headers, streamed=asks_stream(msg)), headers)
        if verb in self.actor.requests:
            self.stats.count(verb, 0.0, failure.code)
        self._record(verb, circumstances, time.time(), 0.0, failure.code)

    def _refusal(self, failure: Failure, circumstances: Call, headers: dict[str, str], *, streamed: bool) -> bytes:
        """The body of an error; `headers` are told of it."""
        head, body = refusal(failure, circumstances.correlation_id)
        headers.update(head)
        if streamed:
            headers[call.END] = "error"
        return body

    def _record(
        self, verb: str, circumstances: Call, received: float, took: float, code: str, bodies: Bodies | None = None
    ) -> None:
        ids = {
            "request_id": circumstances.request_id,
            "correlation_id": circumstances.correlation_id,
            "traceparent": circumstances.traceparent,
            "parent": circumstances.parent,
            "caller": circumstances.caller,
        }
        held, known = circumstances.held_ms, verb in self.actor.requests or verb == DESCRIBE
        self.recorder.record(
            verb, ids, received=received, took_ms=took * 1000, held_ms=held, code=code, known=known, bodies=bodies
        )

    def _headers(self, circumstances: Call) -> dict[str, str]:
        return {
            call.CORRELATION: circumstances.correlation_id,
            call.TRACEPARENT: circumstances.traceparent,
            call.WAKE_MS: str(circumstances.held_ms),
            call.RUN: self.run,
        }

    def _send(self, reply: str, body: bytes, headers: Mapping[str, str]) -> None:
        if not reply:
            return
        try:
            self._wire.send(reply, body, headers=headers)
        except Failure as failure:
            if failure.code != "too_large":
                log.warning("an answer could not be sent: %s", failure)
                return
            head, small = refusal(Failure("too_large", f"the answer has {len(body)} bytes"), headers[call.CORRELATION])
            self._wire.send(reply, small, headers={**headers, **head})

    def _check_frozen(self) -> None:
        if time.monotonic() - self._tick > FROZEN_S and not self._stale:
            self._stale = True
            self._tick = time.monotonic()
            self._loop.create_task(self._thaw())

    async def _thaw(self) -> None:
        """What was buffered while the process was stopped comes before the echo."""
        try:
            await self._wire.barrier()
        except Failure as failure:
            log.warning("after a stop: %s", failure)
        finally:
            self._stale = False


def _parse(handler: Handler, body: bytes) -> Message:
    try:
        parsed: Message = handler.message.model_validate_json(body or b"{}")
        return parsed
    except ValidationError as error:
        raise invalid(error) from None


def _key(circumstances: Call, verb: str) -> Key:
    return circumstances.caller, verb, circumstances.request_id


def _streamed(msg: Msg, handler: Handler) -> bool:
    """Whether the answer goes out in pieces: they are asked for, and there is somewhere to send them."""
    return handler.streams and bool(msg.reply) and asks_stream(msg)
