"""The chat: operator_backend answers, and madre when it cannot, who says so and why."""

from __future__ import annotations

import time
import uuid
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from gateway.http.body import message_of
from gateway.http.exchange import Exchange
from gateway.http.streams import relay
from schemas import madre, operator_backend
from schemas.errors import Failure
from schemas.operator_backend import MESSAGE_MAX_CHARS, ChatChunk, ChatReply

MADRE = "madre"
OPERATOR = "operator_backend"
INSTEAD = frozenset({"off_by_policy", "unavailable", "waking", "crashed", "not_installed", "not_found"})
"""operator_backend may not, cannot or did not answer: then madre does. `timeout` is not among them: no time is left."""


class ChatBody(BaseModel):
    """What a client may send. With `stream` the answer comes as server-sent events."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    message: str = Field(min_length=1, description=f"at most {MESSAGE_MAX_CHARS} characters; more is 413")
    session_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    user_id: str | None = Field(default=None, max_length=128)
    metadata: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    correlation_id: str | None = None
    stream: bool = False


async def chat(x: Exchange) -> bytes | web.StreamResponse:
    """The answer as JSON or as a stream. Raises Failure("too_large") for a message that is too long."""
    asked = message_of(ChatBody, x.body)
    x.honour(asked.correlation_id)
    message = checked(x, asked)
    if asked.stream or x.wants_stream():
        return await _streamed(x, message)
    return await answer(x, message)


def checked(x: Exchange, asked: ChatBody) -> operator_backend.Chat:
    """The request to operator_backend; a session is begun for who brings none."""
    session = asked.session_id or _new_session(x)
    if len(asked.message) > MESSAGE_MAX_CHARS:
        told = f"a message may have {MESSAGE_MAX_CHARS} characters, this one has {len(asked.message)}"
        raise Failure("too_large", told, message_length=len(asked.message), max_length=MESSAGE_MAX_CHARS, session_id=session)
    return operator_backend.Chat(
        message=asked.message,
        session_id=session,
        user_id=asked.user_id,
        metadata=asked.metadata or {},
        context=asked.context or {},
    )


def _new_session(x: Exchange) -> str:
    """The same one when the request is made again under its Idempotency-Key: with another it were another request."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"vx11:{x.caller.id}:{key}") if (key := x.request_id) else uuid.uuid4())


async def answer(x: Exchange, message: operator_backend.Chat) -> bytes:
    """The whole reply, as it came from operator_backend, or madre's."""
    began = time.monotonic()
    try:
        reply = await x.send(message)
    except Failure as failure:
        return await _madre(x, message, failure, began)
    x.parts.meter.chats[OPERATOR] += 1
    return reply.body


async def _streamed(x: Exchange, message: operator_backend.Chat) -> web.StreamResponse:
    began = time.monotonic()
    failed = False

    async def instead(failure: Failure, begun: bool) -> tuple[bytes, bytes] | None:
        nonlocal failed
        failed = True
        if failure.code not in INSTEAD:
            return None
        try:
            reply = await _madre(x, message, failure, began)
        except Failure:
            return None  # the first failure is the one to tell
        text = ChatReply.model_validate_json(reply).response
        return ChatChunk(text=text, restart=begun).model_dump_json().encode(), reply

    kind = type(message)
    body = message.model_dump_json(by_alias=True).encode()
    response = await relay(x, kind.subject, body, timeout=kind.timeout, instead=instead)
    if not failed:
        x.parts.meter.chats[OPERATOR] += 1
    return response


async def _madre(x: Exchange, message: operator_backend.Chat, failure: Failure, began: float) -> bytes:
    """The answer of madre in the same form. Raises the failure itself when she is not to answer, or cannot."""
    if failure.code not in INSTEAD:
        raise failure
    try:
        said = await x.reply(madre.Chat(message=message.message, session_id=message.session_id or ""))
    except Failure as hers:
        raise Failure(failure.code, failure.message, **{**failure.details, "madre": f"{hers.code}: {hers.message}"}) from hers
    x.parts.meter.chats[MADRE] += 1
    return _reply(x, message, madre.MadreChatReply.model_validate(said), failure, began).model_dump_json().encode()


def _reply(x: Exchange, message: operator_backend.Chat, said: madre.MadreChatReply, failure: Failure, began: float) -> ChatReply:
    return ChatReply(
        response=said.response,
        model_used=MADRE,
        model=MADRE,
        provider=MADRE,
        latency_ms=round((time.monotonic() - began) * 1e3, 3),
        correlation_id=x.correlation_id,
        session_id=message.session_id or "",
        message_id=str(uuid.uuid4()),
        status="degraded",
        degraded=True,
        fallback_source=MADRE,
        reason=f"operator_backend did not answer: {failure.code}: {failure.message}",
        history="unavailable",
    )
