"""Intents: a piece of work is submitted and followed by its id. Chat is the only kind that exists so far."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from gateway.http import chat
from gateway.http.body import message_of
from gateway.http.exchange import Exchange
from gateway.moment import rfc3339
from schemas.errors import Failure

KEPT_S = 3_600.0
KEY = "intent:"


CHAT_NEEDS_TEXT: dict[str, JsonValue] = {
    "if": {"properties": {"intent_type": {"const": "chat"}}},
    "then": {"required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}},
}


class Needs(BaseModel):
    """What must be there for this piece of work."""

    model_config = ConfigDict(extra="forbid")

    switch: bool = False
    spawner: bool = False


class IntentBody(BaseModel):
    """What is to be done. A chat needs a `text`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=CHAT_NEEDS_TEXT)

    intent_type: Literal["chat", "plan", "exec", "spawn"]
    text: str | None = None
    payload: dict[str, Any] | None = None
    require: Needs = Needs()
    priority: Literal["P0", "P1", "P2"] = "P2"
    correlation_id: str | None = None
    user_id: str | None = Field(default=None, max_length=128)
    metadata: dict[str, Any] | None = None


class Intent(BaseModel):
    """`status`: what became of it. `stored`: whether its id can be asked for later."""

    intent_id: str
    intent_type: str
    status: Literal["DONE", "REFUSED", "FAILED"]
    correlation_id: str
    degraded: bool
    response: dict[str, Any] | None
    error: str | None
    message: str | None
    submitted_at: str
    stored: bool


async def submit(x: Exchange) -> Intent:
    """Do it, and keep the outcome for KEPT_S. A refused or failed one is an error that carries its `intent_id`."""
    asked = message_of(IntentBody, x.body)
    x.honour(asked.correlation_id)
    ident, at = str(uuid.uuid4()), rfc3339(time.time())
    try:
        await _check(x, asked)
    except Failure as failure:
        await _keep(x, _ended(x, asked, ident, at, "REFUSED", failure))
        raise _with(failure, ident, "REFUSED") from None
    try:
        reply = json.loads(await chat.answer(x, chat.checked(x, _chat_of(asked))))
    except Failure as failure:
        await _keep(x, _ended(x, asked, ident, at, "FAILED", failure))
        raise _with(failure, ident, "FAILED") from None
    done = Intent(
        intent_id=ident,
        intent_type=asked.intent_type,
        status="DONE",
        correlation_id=x.correlation_id,
        degraded=bool(reply.get("degraded")),
        response=reply,
        error=None,
        message=None,
        submitted_at=at,
        stored=True,
    )
    return done if await _keep(x, done) else done.model_copy(update={"stored": False})


async def result(x: Exchange) -> Intent:
    """The outcome. Raises Failure("not_found") for an unknown id, also for somebody else's."""
    ident = x.named["id"]
    kept = await x.parts.cache.get(f"{KEY}{x.caller.id}:{ident}")
    if kept is None:
        raise Failure("not_found", f"there is no intent {ident}; outcomes are kept for {KEPT_S:g} s", intent_id=ident)
    return Intent.model_validate_json(kept)


async def _check(x: Exchange, asked: IntentBody) -> None:
    """Raises Failure for what is refused: a kind that nobody does yet, a switch that is needed and may not wake."""
    if asked.intent_type != "chat" or asked.require.spawner:
        wanted = asked.intent_type if asked.intent_type != "chat" else "spawner"
        raise Failure("not_installed", f"{wanted}: the colony that would do this is not built yet", service="hormiguero")
    if asked.require.switch:
        switch = (await x.parts.observed.look()).find("switch")
        if switch is not None and not switch.allowed:
            raise Failure("off_by_policy", f"switch may not wake: {switch.reason or switch.gate}", service="switch")


def _chat_of(asked: IntentBody) -> chat.ChatBody:
    payload = asked.payload or {}
    told = asked.text or payload.get("message") or payload.get("text") or payload.get("prompt")
    if not isinstance(told, str) or not told:
        raise Failure("invalid", "text: a chat needs something that is said", field="text")
    return chat.ChatBody(message=told, user_id=asked.user_id, metadata=asked.metadata)


def _ended(x: Exchange, asked: IntentBody, ident: str, at: str, status: Literal["REFUSED", "FAILED"], failure: Failure) -> Intent:
    return Intent(
        intent_id=ident,
        intent_type=asked.intent_type,
        status=status,
        correlation_id=x.correlation_id,
        degraded=False,
        response=None,
        error=failure.code,
        message=failure.message,
        submitted_at=at,
        stored=True,
    )


def _with(failure: Failure, ident: str, status: str) -> Failure:
    return Failure(failure.code, failure.message, **{**failure.details, "intent_id": ident, "intent_status": status})


async def _keep(x: Exchange, intent: Intent) -> bool:
    """False when Redis is away: then the answer says that it cannot be asked for later."""
    try:
        await x.parts.cache.put(f"{KEY}{x.caller.id}:{intent.intent_id}", intent.model_dump_json(), ttl=KEPT_S)
    except Failure as failure:
        if failure.code not in ("unavailable", "storage_full"):
            raise
        return False
    return True
