"""switch: answer a conversation with the first language model, of those that are configured, that answers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing

from actors.switch.board import Board
from actors.switch.relay import relay
from bus import Actor, Bus, Call, Settings
from schemas.switch import Chat, ListModels, ListProviders, ModelChunk, ModelList, ModelReply, ProviderList

actor = Actor("switch", summary="routes prompts to language models", idle_after=300)


@actor.resource
async def board(settings: Settings) -> AsyncIterator[Board]:
    """The configured providers, and the HTTP client that asks them."""
    from actors.switch.endpoint import opened  # aiohttp costs 9 MB, which declaring an actor must not

    async with opened() as endpoint:
        yield Board(settings, endpoint)


@actor.handles
async def chat(request: Chat, board: Board, bus: Bus, call: Call) -> AsyncIterator[ModelChunk | ModelReply]:
    """Stream an answer. Closing the stream stops the provider, too."""
    seconds = call.deadline - time.time() if call.deadline else request.timeout
    async with aclosing(relay(request, board, seconds, bus.tell)) as answer:
        async for part in answer:
            yield part


@actor.handles
async def list_providers(_request: ListProviders, board: Board) -> ProviderList:
    """What is configured, what is configured wrongly, and what was found."""
    return await board.status()


@actor.handles
async def list_models(_request: ListModels, board: Board) -> ModelList:
    """What `chat` may be asked for by name."""
    return await board.models()
