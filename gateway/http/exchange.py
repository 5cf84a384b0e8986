"""One request and all that its answer needs: who asks, in which conversation, and the way to the bus."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from bus import call as calls
from bus.call import Call
from gateway.http.answer import Response, Whole
from gateway.http.guard import ANYONE, Caller
from gateway.http.parts import Answered, Parts
from schemas.errors import Failure
from schemas.message import Message, Request

if TYPE_CHECKING:
    from gateway.http.frames import Frames
    from gateway.http.routes import Route

CORRELATION = "X-Correlation-Id"
WAKE = "X-Vx11-Wake-Ms"
EVENT_STREAM = "text/event-stream"
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
"""What an Idempotency-Key may be."""


class DoorCall(Call):
    """Notes whether anything was sent to the bus from inside it."""

    sent = False

    def headers(self, *, through: str = "") -> dict[str, str]:
        self.sent = True
        return super().headers(through=through)


@dataclass(slots=True)
class Exchange:
    """Made for each request by the handler, given to what composes the answer."""

    parts: Parts
    request: web.BaseRequest
    route: Route
    call: DoorCall
    named: Mapping[str, str]
    """The parameters in the path."""
    loop: asyncio.AbstractEventLoop
    caller: Caller = ANYONE
    body: bytes = b""
    wake_ms: int = 0
    task: asyncio.Task[object] | None = None
    """What works on it, once it has a place among the requests under way."""
    begun: Frames | None = None
    """The event stream, once the answer has begun as one."""
    code: str = "ok"
    """How it ended: `ok`, or the code of the failure that was its answer."""

    @property
    def correlation_id(self) -> str:
        return self.call.correlation_id

    def honour(self, correlation_id: str | None) -> None:
        """Take over the conversation that the body names, unless the header named one already."""
        told = calls.CORRELATION_FORM.fullmatch(self.request.headers.get(CORRELATION, ""))
        if not told and correlation_id and calls.CORRELATION_FORM.fullmatch(correlation_id):
            self.call = self.call._replace(correlation_id=correlation_id)
            calls.current.set(self.call)

    def headers(self, *, passive: bool = False) -> Mapping[str, str]:
        """For a message to the bus: who asks. The conversation is added by the bus itself."""
        return {**self.caller.headers, calls.PASSIVE: "1"} if passive else self.caller.headers

    @property
    def request_id(self) -> str:
        """The client's Idempotency-Key, or empty. Raises Failure("invalid")."""
        key = self.request.headers.get("Idempotency-Key", "")
        if key and not REQUEST_ID.fullmatch(key):
            raise Failure("invalid", "an Idempotency-Key has 1 to 128 visible ASCII characters", field="Idempotency-Key")
        return key

    async def ask(
        self, subject: str, body: bytes, *, timeout: float, idempotent: bool = False, passive: bool = False
    ) -> Answered:
        """One request, its answer untouched. Raises Failure."""
        try:
            answer = await self.parts.bus.ask(
                subject,
                body,
                timeout=timeout,
                idempotent=idempotent,
                request_id=self.request_id,
                headers=self.headers(passive=passive),
            )
        except Failure as failure:
            self.note_wake(failure.details.get("wake_ms"))
            raise
        self.note_wake(answer.headers.get(calls.WAKE_MS))
        return answer

    async def send(self, message: Request[Any]) -> Answered:
        kind = type(message)
        body = message.model_dump_json(by_alias=True).encode()
        return await self.ask(kind.subject, body, timeout=kind.timeout, idempotent=kind.idempotent, passive=kind.passive)

    async def reply(self, message: Request[Any]) -> Message:
        """The reply as its class."""
        answer = await self.send(message)
        return type(message).reply_type().model_validate_json(answer.body)

    async def ask_stream(self, subject: str, body: bytes, *, timeout: float) -> AsyncGenerator[Answered, None]:
        """The frames of a streamed answer. Raises Failure, also in the middle."""
        frames = self.parts.bus.ask_stream(subject, body, timeout=timeout, request_id=self.request_id, headers=self.headers())
        try:
            async for frame in frames:
                self.note_wake(frame.headers.get(calls.WAKE_MS))
                yield frame
        except Failure as failure:
            self.note_wake(failure.details.get("wake_ms"))
            raise
        finally:
            if isinstance(frames, AsyncGenerator):  # whoever stops listening early lets go of the answer at once
                await frames.aclose()

    def note_wake(self, told: object) -> None:
        """Remember how long this request waited for somebody to wake."""
        if told is not None:
            self.wake_ms = max(self.wake_ms, calls.milliseconds(str(told)))

    def stamp(self, response: Response) -> None:
        """The headers that every answer carries."""
        response.headers[CORRELATION] = self.call.correlation_id
        response.headers["traceparent"] = self.call.traceparent
        if isinstance(response, Whole):
            response.write_s = self.parts.settings.write_s
        if self.wake_ms:
            response.headers[WAKE] = str(self.wake_ms)
        response.headers.update(self.route.manner.headers(self))
        if self.parts.stopping.is_set() or not self.request.content.is_eof():
            response.force_close()  # no more requests on this connection: we are leaving, or its body is still coming

    def wants_stream(self) -> bool:
        return EVENT_STREAM in self.request.headers.get("Accept", "") and self.request.method != "HEAD"

    def give_place_back(self) -> None:
        """An event stream does so at once, all others at their end."""
        if self.task is not None:
            self.parts.places.leave(self.task)


def call_of(headers: Mapping[str, str]) -> DoorCall:
    """The conversation and a new span of the trace that the headers tell of; made up where they tell of none."""
    told, parent = headers.get(CORRELATION), headers.get("traceparent")
    known = parent if parent is not None and calls.TRACEPARENT_FORM.fullmatch(parent) else ""
    origin = known or calls.new_traceparent()
    return DoorCall(
        told if told is not None and calls.CORRELATION_FORM.fullmatch(told) else calls.new_correlation_id(),
        calls.child_of(origin),
        calls.tracestate_of(headers) if known else "",
        parent=calls.parent_in(origin),
    )


def address_of(request: web.BaseRequest, proxies: frozenset[str]) -> str:
    """Where the request comes from; what a trusted proxy says of it is believed."""
    peer = request.remote or ""
    if peer in proxies and (told := request.headers.get("X-Forwarded-For", "")):
        return told.rsplit(",", 1)[-1].strip()
    return peer
