"""The chat: operator_backend answers, and madre when it cannot, who says so and why."""

from __future__ import annotations

import time
import uuid
from contextlib import aclosing
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from gateway.http.body import message_of
from gateway.http.exchange import Exchange
from gateway.http.presence import watched
from gateway.http.streams import relay
from schemas import madre, operator_backend
from schemas.errors import Failure
from schemas.language import language_of
from schemas.operator_backend import MESSAGE_MAX_CHARS, MODEL_MAX_CHARS, ChatChunk, ChatReply
from schemas.switch import Speaker
from schemas.wording import unanswered

MADRE = "madre"
OPERATOR = "operator_backend"
HER = Speaker(provider=MADRE, model=MADRE)
INSTEAD = frozenset({"off_by_policy", "unavailable", "waking", "crashed", "not_installed", "not_found"})
"""operator_backend may not, cannot or did not answer: then madre does. `timeout` is not among them: no time is left."""


class ChatBody(BaseModel):
    """What a client may send. With `stream` the answer comes as server-sent events. `model`: the one that is wished for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    message: str = Field(min_length=1, description=f"at most {MESSAGE_MAX_CHARS} characters; more is 413")
    session_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    model: str | None = Field(default=None, min_length=1, max_length=MODEL_MAX_CHARS)
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
    if x.request_id:  # who names the request will ask for it again
        return await answer(x, message)
    async with watched(x):
        return await answer(x, message, unread=False)


def checked(x: Exchange, asked: ChatBody) -> operator_backend.Chat:
    """The request to operator_backend; a session is begun for who brings none."""
    session = asked.session_id or _new_session(x)
    if len(asked.message) > MESSAGE_MAX_CHARS:
        told = f"a message may have {MESSAGE_MAX_CHARS} characters, this one has {len(asked.message)}"
        raise Failure("too_large", told, message_length=len(asked.message), max_length=MESSAGE_MAX_CHARS, session_id=session)
    return operator_backend.Chat(
        message=asked.message,
        session_id=session,
        model=asked.model,
        user_id=asked.user_id,
        metadata=asked.metadata or {},
        context=asked.context or {},
    )


def _new_session(x: Exchange) -> str:
    """The same one when the request is made again under its Idempotency-Key: with another it were another request."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"vx11:{x.caller.id}:{key}") if (key := x.request_id) else uuid.uuid4())


async def answer(x: Exchange, message: operator_backend.Chat, *, unread: bool = True) -> bytes:
    """The whole reply, as it came from operator_backend, or madre's. `unread`: it is finished even when nobody is there."""
    began = time.monotonic()
    try:
        reply = (await x.send(message)).body if unread else await _whole(x, message)
    except Failure as failure:
        return await _madre(x, message, failure, began)
    x.parts.meter.chats[OPERATOR] += 1
    return reply


async def _whole(x: Exchange, message: operator_backend.Chat) -> bytes:
    """The reply as the end of a stream, which whoever speaks notices to be unread."""
    kind, reply = type(message), b""
    body = message.model_dump_json(by_alias=True).encode()
    async with aclosing(x.ask_stream(kind.subject, body, timeout=kind.timeout)) as frames:
        async for frame in frames:
            reply = frame.body
    return reply


async def _streamed(x: Exchange, message: operator_backend.Chat) -> web.StreamResponse:
    began = time.monotonic()
    failed = False

    async def instead(failure: Failure, begun: bool) -> tuple[bytes, bytes] | None:
        nonlocal failed
        failed = True
        if failure.code not in INSTEAD:
            return None
        try:
            reply = await _madre(x, message, failure, began, begun=begun)
        except Failure:
            return None  # the first failure is the one to tell
        chunk = ChatChunk(text=ChatReply.model_validate_json(reply).response, restart=begun, speaker=HER)
        return chunk.model_dump_json().encode(), reply

    kind = type(message)
    body = message.model_dump_json(by_alias=True).encode()
    response = await relay(x, kind.subject, body, timeout=kind.timeout, instead=instead)
    if not failed:
        x.parts.meter.chats[OPERATOR] += 1
    return response


async def _madre(x: Exchange, message: operator_backend.Chat, failure: Failure, began: float, *, begun: bool = False) -> bytes:
    """The answer of madre in the same form. Raises the failure itself when she is not to answer, or cannot."""
    if failure.code not in INSTEAD:
        raise failure
    try:
        said = await x.reply(madre.Chat(message=message.message, session_id=message.session_id or ""))
    except Failure as hers:
        raise Failure(failure.code, failure.message, **{**failure.details, "madre": f"{hers.code}: {hers.message}"}) from hers
    x.parts.meter.chats[MADRE] += 1
    reason = unanswered(language_of(message.message) or "en", OPERATOR, failure, begun=begun)
    took_ms = round((time.monotonic() - began) * 1e3, 3)
    return _reply(x, message, madre.MadreChatReply.model_validate(said), failure.code, reason, took_ms).model_dump_json().encode()


def _reply(
    x: Exchange, message: operator_backend.Chat, said: madre.MadreChatReply, code: str, reason: str, took_ms: float
) -> ChatReply:
    return ChatReply(
        response=said.response,
        model_used=MADRE,
        model=MADRE,
        provider=MADRE,
        latency_ms=took_ms,
        correlation_id=x.correlation_id,
        session_id=message.session_id or "",
        message_id=str(uuid.uuid4()),
        status="degraded",
        degraded=True,
        fallback_source=MADRE,
        fallback_code=code,
        reason=reason,
        speakers=[HER.model_copy(update={"characters": len(said.response)})],
        pending=said.pending,
        history="unavailable",
    )
