"""operator_backend: answer a person, remember what was said, and say honestly who answered."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing

from actors.operator_backend.conversation import Patience
from actors.operator_backend.exchange import Exchange
from actors.operator_backend.sessions import Sessions
from bus import Actor, Bus, Call, Settings
from schemas.message import Nothing
from schemas.operator_backend import (
    Chat,
    ChatChunk,
    ChatReply,
    DeleteSession,
    GetSession,
    ListSessions,
    RenameSession,
    Session,
    SessionList,
    SessionSummary,
)

actor = Actor("operator_backend", summary="what a human operator may ask: the chat and its sessions", idle_after=300)


@actor.resource
async def sessions(settings: Settings) -> AsyncIterator[Sessions]:
    """Connects with the first call: without Redis there is still a chat, but no history."""
    from bus.cache import open_cache  # redis is imported by who opens it, not by who declares the actor

    url = settings.get("VX11_REDIS_URL")
    if not url:
        yield Sessions(None)
        return
    async with open_cache(url) as cache:
        yield Sessions(cache)


@actor.resource
async def patience(settings: Settings) -> AsyncIterator[Patience]:
    """`VX11_CHAT_FIRST_WORD_S`: how long switch may take for its first word before madre answers."""
    default = Patience()
    yield Patience(first_word=settings.number("VX11_CHAT_FIRST_WORD_S", default.first_word))


@actor.handles
async def chat(
    request: Chat, bus: Bus, call: Call, sessions: Sessions, patience: Patience
) -> AsyncIterator[ChatChunk | ChatReply]:
    """Stream an answer: from switch, or from madre with the reason."""
    seconds = call.deadline - time.time() if call.deadline else request.timeout
    exchange = Exchange(bus, sessions, patience, call, seconds)
    async with aclosing(exchange.answer(request)) as parts:
        async for part in parts:
            yield part


@actor.handles
async def list_sessions(request: ListSessions, sessions: Sessions) -> SessionList:
    """Newest first."""
    found = await sessions.summaries(request.offset, request.limit)
    return SessionList(sessions=found, total=await sessions.count())


@actor.handles
async def get_session(request: GetSession, sessions: Sessions) -> Session:
    return await sessions.get(request.session_id)


@actor.handles
async def rename_session(request: RenameSession, sessions: Sessions) -> SessionSummary:
    return await sessions.rename(request.session_id, request.title)


@actor.handles
async def delete_session(request: DeleteSession, sessions: Sessions) -> Nothing:
    await sessions.delete(request.session_id)
    return Nothing()
