"""The typed client: requests with a deadline and exactly one answer, streams of frames, events that are stored."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from bus import call, dead
from bus.asking import CRASHES_MOST, NOBODY_MOST_S, Answer, Asking, failure_of
from bus.cloudevents import stamped
from bus.plain import Plain
from bus.publisher import Publisher
from bus.redaction import redacted_event, stored
from bus.unread import Unread
from bus.wire import FAST_RECONNECT_S, RECONNECT_S, Msg, Subscription, Wire, status_of
from schemas.errors import Failure
from schemas.message import Event, Message, Request, Streamed

__all__ = ["Answer", "Bus"]

R = TypeVar("R", bound=Message)
C = TypeVar("C", bound=Message)

log = logging.getLogger("vx11.client")

LAST_MOMENT_S = 0.002
"""What cannot be answered before the deadline is not sent again."""
CRASH_GRACE_S = 0.06
"""The host's report of an exit may overtake the last answers of the instance."""
UNKNOWN_ACTOR_AFTER = 6
"""So often nobody listened (about 0.6 s) before madre is asked whether the actor exists at all."""
ENDED_MOST = 256
"""Deaths that are remembered, so that each counts once."""
EXITED = "vx11.events.power.exited.*"
MADRE_STARTED = "vx11.events.madre.started"


class Bus(Plain):
    """One connection's client. Made by `Bus.connect`, which also closes it."""

    def __init__(self, wire: Wire, *, name: str) -> None:
        super().__init__(wire)
        self.name = name
        """The actor that sends, or empty: becomes `vx11-caller` and a part of `vx11-path`."""
        self._publisher = Publisher(self)
        self._asked: dict[str, tuple[Asking, Callable[[Msg | Failure], None]]] = {}
        self._ended: deque[str] = deque(maxlen=ENDED_MOST)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        *,
        user: str,
        seed: Path | None,
        name: str,
        actor: str = "",
        fast: bool = False,
        buffered: bool = True,
        eager: bool = False,
    ) -> AsyncIterator[Bus]:
        """Open a connection as `user`. `fast`: reconnects after 0.05 s instead of 0.25 s. `eager`: see `Wire.open`."""
        wire = Wire()
        pause = FAST_RECONNECT_S if fast else RECONNECT_S
        await wire.open(url, user=user, seed=seed, name=name, reconnect_s=pause, buffered=buffered, eager=eager)
        bus = cls(wire, name=actor)
        try:
            yield await bus.start()
        finally:
            await bus._publisher.aclose()
            await wire.aclose()

    async def start(self) -> Bus:
        """Listen for what ends the wait for an answer: exits, a new madre, a reconnect."""
        await self.wire.hear(EXITED, self._heard_exit)
        await self.wire.hear(MADRE_STARTED, self._heard_madre)
        self.wire.on_reconnect.append(lambda: self._ask_again(lambda _: True, crash=False))
        return self

    @property
    def connected(self) -> bool:
        return bool(self.wire.is_connected)

    async def request(
        self,
        message: Request[R],
        *,
        timeout: float | None = None,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> R:
        """Ask and wait for the reply. Raises Failure: whatever went wrong, before `timeout` seconds have passed."""
        kind = type(message)
        answer = await self.ask(
            kind.subject,
            message.model_dump_json(by_alias=True).encode(),
            timeout=kind.timeout if timeout is None else timeout,
            idempotent=kind.idempotent,
            request_id=request_id,
            headers=_with_passive(kind, headers),
        )
        reply: R = _parsed(kind.reply_type(), answer.body, kind)  # type: ignore[assignment]
        return reply

    async def stream(
        self,
        message: Streamed[C, R],
        *,
        timeout: float | None = None,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[C | R, None]:
        """The chunks as they come, and the whole reply as the last item. Raises Failure, also in the middle."""
        kind = type(message)
        frames = self.ask_stream(
            kind.subject,
            message.model_dump_json(by_alias=True).encode(),
            timeout=kind.timeout if timeout is None else timeout,
            request_id=request_id,
            headers=_with_passive(kind, headers),
        )
        async with aclosing(frames):
            async for frame in frames:
                last = call.END in frame.headers or call.SEQ not in frame.headers
                made = kind.reply_type() if last else kind.chunk_type()
                yield _parsed(made, frame.body, kind)  # type: ignore[misc]

    async def ask(
        self,
        subject: str,
        body: bytes,
        *,
        timeout: float,
        idempotent: bool = False,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The untyped request. Raises Failure; `timeout` in seconds, shortened to the deadline of the call one is in."""
        loop = self.wire.loop
        done: asyncio.Future[Answer] = loop.create_future()

        def heard(msg: Msg | Failure) -> None:
            if done.done():
                self.wire.strays += isinstance(msg, Msg)
                return
            failure = msg if isinstance(msg, Failure) else failure_of(msg.headers or {}, msg.data)
            if failure:
                done.set_exception(failure)
            elif isinstance(msg, Msg):
                done.set_result(Answer(msg.data, msg.headers or {}))

        token, asking = self._open(subject, body, timeout, idempotent, request_id, headers, heard)
        left = max(0.0, asking.deadline - time.time())
        clock = loop.call_later(left, lambda: heard(asking.late()))  # a fifth of what asyncio.timeout costs
        try:
            return await done
        finally:
            clock.cancel()
            self._settle(token)

    async def ask_stream(
        self,
        subject: str,
        body: bytes,
        *,
        timeout: float,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Answer, None]:
        """Frames with the header `vx11-seq`, the last one with `vx11-end: ok`; one frame without both when nothing streamed.

        Raises Failure("crashed") when a frame is missing or the instance dies in the middle, and Failure("busy") when the
        frames come faster than they are read.
        """
        frames = Unread(lambda: self._settle(token))
        more = {**(headers or {}), call.STREAM: "1", call.PROBE: "1"}
        token, asking = self._open(subject, body, timeout, False, request_id, more, frames.put)
        try:
            async with asyncio.timeout(max(0.0, asking.deadline - time.time())) as clock:
                while True:
                    frame = await frames.get()
                    if isinstance(frame, Failure):
                        raise frame
                    answer = asking.take(frame.headers or {}, frame.data)
                    ended = call.END in answer.headers or call.SEQ not in answer.headers
                    clock.reschedule(None)  # the reader's own time between two frames is not ours to count
                    yield answer
                    if ended:
                        return
                    clock.reschedule(asyncio.get_running_loop().time() + max(0.0, asking.deadline - time.time()))
        except TimeoutError:
            raise asking.late() from None
        finally:
            self._settle(token)

    async def publish(self, event: Event, *, message_id: str = "") -> int:
        """Store an event; returns its sequence once it is on disk. Raises Failure("unavailable" | "storage_full")."""
        return await self.publish_raw(event.subject, stored(event), message_id=message_id)

    async def publish_raw(
        self, subject: str, body: bytes, *, message_id: str = "", headers: Mapping[str, str] | None = None
    ) -> int:
        """Store a message, an event together with those that are published at the same time; see `Publisher.publish`."""
        ident = message_id or call.new_request_id()
        made = stamped(subject, {**self._inherited(), **(headers or {}), "Nats-Msg-Id": ident}, ident)
        return await self._publisher.publish(subject, redacted_event(body), made)

    def tell(self, event: Event, *, subject: str = "", message_id: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Publish and forget: heard by whoever listens, stored if the stream takes it."""
        subject = subject or event.subject
        made = stamped(subject, {**self._inherited(), **(headers or {})}, message_id or call.new_request_id())
        if message_id:
            made["Nats-Msg-Id"] = message_id
        self.wire.send(subject, stored(event), headers=made)

    async def listen(self, subject: str, heard: Callable[[Msg], None], *, queue: str = "") -> Subscription:
        return await self.wire.hear(subject, heard, queue=queue)

    def _inherited(self) -> dict[str, str]:
        circumstances = call.current.get()
        if circumstances is None:
            circumstances = call.Call(call.new_correlation_id(), call.new_traceparent())
        headers = circumstances.headers(through=self.name)
        if self.name:
            headers[call.CALLER] = self.name
        return headers

    def _open(
        self,
        subject: str,
        body: bytes,
        timeout: float,
        idempotent: bool,
        request_id: str,
        headers: Mapping[str, str] | None,
        heard: Callable[[Msg | Failure], None],
    ) -> tuple[str, Asking]:
        now = time.time()
        inside = call.current.get()
        deadline = now + timeout
        if inside and inside.deadline:
            deadline = min(deadline, inside.deadline)
        made = self._inherited()
        made[call.REQUEST_ID] = request_id or call.new_request_id()
        made[call.DEADLINE] = str(int(deadline * 1000))
        made[call.SENT] = str(int(now * 1000))
        if headers:
            made.update(headers)
        asking = Asking(subject, body, made, idempotent, deadline, now)
        token, reply = self.wire.await_answer(lambda msg: self._heard(token, msg))
        self._asked[token] = (asking, heard)
        try:
            self.wire.send(subject, body, reply=reply, headers=made)
        except BaseException:
            self._settle(token)
            raise
        return token, asking

    def _settle(self, token: str) -> None:
        self.wire.forget_answer(token)
        self._asked.pop(token, None)

    def _heard(self, token: str, msg: Msg) -> None:
        if (entry := self._asked.get(token)) is None:
            return
        asking, heard = entry
        if status_of(msg) != "503":
            heard(msg)
            return
        pause = asking.nobody_listens(time.time())
        if asking.nobody % UNKNOWN_ACTOR_AFTER == 0:
            asyncio.get_running_loop().create_task(self._check_exists(token, asking.actor))
        asyncio.get_running_loop().call_later(pause, self._send_again, token)

    async def _check_exists(self, token: str, actor: str) -> None:
        """Nobody listens for long: an actor that madre does not know never will."""
        try:
            msg = await self.raw(
                "vx11.madre.get_actor", json.dumps({"name": actor}).encode(), timeout=1.0, headers={call.PASSIVE: "1"}
            )
        except Failure:
            return
        failure = failure_of(msg.headers or {}, msg.data)
        if failure and failure.code == "not_found" and (entry := self._asked.get(token)):
            entry[1](Failure("not_found", failure.message, **failure.details))

    def _send_again(self, token: str) -> None:
        if (entry := self._asked.get(token)) is None:
            return
        asking, heard = entry
        if time.time() > asking.deadline - LAST_MOMENT_S:
            return
        out, asking.out = asking.out, True
        if not out:
            asking.sent_anew(time.time())
        try:
            self.wire.send(asking.subject, asking.body, reply=f"{self.wire.inbox}.{token}", headers=asking.headers)
        except Failure as failure:
            if failure.code != "unavailable":
                heard(failure)
            elif not out:
                asking.out = False
                asyncio.get_running_loop().call_later(NOBODY_MOST_S, self._send_again, token)
            # else the reconnect asks again

    def _heard_exit(self, msg: Msg) -> None:
        try:
            exit_ = json.loads(msg.data)
        except ValueError:
            return
        run = exit_.get("run", "")
        if exit_.get("clean") or run in self._ended:
            return
        if run:  # hosts tell of a death again when they are asked
            self._ended.append(run)
        actor, before = exit_.get("actor"), time.time()
        self._later(lambda asking: asking.actor == actor and asking.sent_at <= before, crash=True)

    def _heard_madre(self, msg: Msg) -> None:
        """Another madre. What was sent before she said so, and by nobody else lost sight of, was at most held."""
        told = _number(msg.data, "at")
        before = told or time.time()
        self._later(lambda asking: asking.sent_at <= before and not asking.chunks, crash=False, held=bool(told))

    def _later(self, concerns: Callable[[Asking], bool], *, crash: bool, held: bool = False) -> None:
        if self._asked:
            loop = asyncio.get_running_loop()
            loop.call_later(CRASH_GRACE_S, lambda: self._ask_again(concerns, crash=crash, held=held))

    def _ask_again(self, concerns: Callable[[Asking], bool], *, crash: bool, held: bool = False) -> None:
        for token, (asking, heard) in list(self._asked.items()):
            if not asking.out or not concerns(asking):
                continue  # what nobody has is sent again plainly, in its time
            if failure := asking.lost_sight(crash=crash, held=held):
                heard(failure)
                if asking.crashes >= CRASHES_MOST and self.name:  # only who has a name may write letters
                    asyncio.get_running_loop().create_task(self._bury(asking, failure.message))
            else:
                self._send_again(token)

    async def _bury(self, asking: Asking, told: str) -> None:
        """What has killed those who had it is kept for people to look at."""
        actor, verb = asking.actor, asking.subject.rpartition(".")[2]
        letter = dead.request_letter(actor, verb, asking.body, asking.headers, told, await self._schema_of(asking))
        try:
            if letter:
                self.wire.send(letter.subject, letter.body, headers=letter.headers)
        except Failure as failure:
            log.error("the dead letter of %s is not stored: %s", asking.subject, failure)

    async def _schema_of(self, asking: Asking) -> Mapping[str, Any] | None:
        """What the actor's card says of the request; None when that cannot be had."""
        try:
            told = await self.raw(
                "vx11.madre.get_actor", json.dumps({"name": asking.actor}).encode(), timeout=1.0, headers={call.PASSIVE: "1"}
            )
            verbs = json.loads(told.data)["card"]["verbs"]
        except (Failure, ValueError, KeyError):
            return None
        return next((verb["request"] for verb in verbs if verb["subject"] == asking.subject), None)


def _with_passive(kind: type[Request[Any]], headers: Mapping[str, str] | None) -> Mapping[str, str] | None:
    return {call.PASSIVE: "1", **(headers or {})} if kind.passive else headers


def _number(data: bytes, field: str) -> float:
    """A number in a stranger's document; 0.0 when there is none."""
    try:
        found = json.loads(data).get(field)
    except (ValueError, AttributeError):
        return 0.0
    return float(found) if isinstance(found, int | float) else 0.0


def _parsed(made: type[Message], body: bytes, kind: type[Request[Any]]) -> Message:
    try:
        return made.model_validate_json(body)
    except ValidationError as error:
        wrong = ", ".join(".".join(str(part) for part in e["loc"]) or "body" for e in error.errors(include_url=False))
        raise Failure("internal", f"the answer to {kind.subject} is no {made.__name__}: {wrong}") from None
