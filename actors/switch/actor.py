"""switch: answer a conversation with the first language model, of those that are configured, that answers."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

from actors.switch.choosing.board import Board
from actors.switch.choosing.memory import Memory
from actors.switch.kind.embedding import Embedding, installed
from actors.switch.kind.kinds import Sorter
from actors.switch.kind.meaning import meanings
from actors.switch.kind.sorting import elsewhere, routed
from actors.switch.offline.local import PATIENT, Doors, Local, anticipate
from actors.switch.offline.local import opened as loaded
from actors.switch.paying.ledger import Ledger, Payer
from actors.switch.paying.usage import Teller, telling
from actors.switch.relay import relay
from actors.switch.store import Store
from bus import Actor, Bus, Call, Settings
from bus.bucket import Bucket
from bus.streams import USAGE
from schemas.message import Nothing
from schemas.models import ModelMemoryWanted
from schemas.switch import (
    Chat,
    Embed,
    Embeddings,
    ForgetLearned,
    ListModels,
    ListProviders,
    ModelChunk,
    ModelList,
    ModelReply,
    ProviderList,
    ProviderStatus,
    RemoveProvider,
    Route,
    Routed,
    SetProvider,
)

actor = Actor("switch", summary="routes prompts to language models", idle_after=300)
BELIEVED = "operator_backend"
"""Says for whom it asks; everybody else pays for oneself."""


@actor.resource
async def store(settings: Settings) -> AsyncIterator[Store]:
    """What is kept across sleep. What is wrong with the file is told to who asks a model."""
    kept = Store(settings)
    await kept.open()
    yield kept
    kept.shut()


@actor.resource
async def local(settings: Settings, bus: Bus) -> AsyncIterator[Local]:
    """The model on this machine, which is loaded at the first question."""
    async with loaded(settings, f"switch (pid {os.getpid()})", bus.tell) as model:
        yield model


@actor.resource
async def board(settings: Settings, store: Store, local: Local) -> AsyncIterator[Board]:
    """The configured providers, what is remembered of them, and the HTTP client that asks them."""
    from actors.switch.asking.endpoint import opened  # aiohttp costs 9 MB, which declaring an actor must not

    async with opened() as far, opened(PATIENT) as near:
        yield Board(settings, Doors(far, near, local), memory=Memory(store))


@actor.resource
async def ledger(store: Store, board: Board, bus: Bus) -> AsyncIterator[Ledger]:
    """The budgets, and who has used how much."""
    made = Ledger(store, board.budgets, bus.tell)
    async with telling(Teller(store, made, Bucket(bus, USAGE))):
        yield made


@actor.resource
async def embedding() -> AsyncIterator[Embedding]:
    """The model of meanings, which is loaded at the first text."""
    model = Embedding(installed())
    yield model
    await model.close()


@actor.resource
async def sorter(embedding: Embedding) -> AsyncIterator[Sorter]:
    """Finds out what a message is about."""
    yield Sorter(embedding)


@actor.handles
async def chat(
    request: Chat, board: Board, ledger: Ledger, sorter: Sorter, local: Local, bus: Bus, call: Call
) -> AsyncIterator[ModelChunk | ModelReply]:
    """Stream an answer, or say whose message this is. Closing the stream stops the provider, too."""
    if request.sort:
        anticipate(request, board, local)
        if reply := await elsewhere(request, sorter):
            yield reply
            return
    seconds = call.deadline - time.time() if call.deadline else request.timeout
    holder = request.holder if call.caller == BELIEVED else call.caller
    payer = Payer(holder or "bus", request.session_id)
    async with aclosing(relay(request, board, ledger, payer, seconds, bus.tell)) as answer:
        async for part in answer:
            yield part


@actor.handles
async def route(request: Route, sorter: Sorter, board: Board) -> Routed:
    """What a message is about, and which model would be asked. Asks none."""
    return await routed(request, sorter, board)


@actor.handles
async def embed(request: Embed, embedding: Embedding, call: Call) -> Embeddings:
    """Texts as vectors."""
    return await meanings(request, embedding, call.deadline - time.time() if call.deadline else request.timeout)


@actor.handles
async def list_providers(_request: ListProviders, board: Board, local: Local) -> ProviderList:
    """What is configured, what is configured wrongly, and what was found."""
    return local.described(await board.status())


@actor.handles
async def set_provider(request: SetProvider, settings: Settings, board: Board) -> ProviderStatus:
    """Describe a provider in the configuration; it may be asked at once."""
    from actors.switch.configured.editing import set_provider as describe  # which few need

    describe(settings, request.name, request.lines, request.key)
    return board.configured(request.name)


@actor.handles
async def remove_provider(request: RemoveProvider, settings: Settings, board: Board) -> ProviderList:
    """Take a provider out of the configuration."""
    from actors.switch.configured.editing import remove_provider as remove

    remove(settings, request.name)
    return await board.status()


@actor.handles
async def list_models(_request: ListModels, board: Board) -> ModelList:
    """What `chat` may be asked for by name."""
    return await board.models()


@actor.handles
async def forget_learned(_request: ForgetLearned, board: Board) -> Nothing:
    """Start anew with every model; budgets and what was spent of them stay."""
    board.forget()
    return Nothing()


@actor.on
async def let_go(event: ModelMemoryWanted, local: Local) -> None:
    """One model at a time: another one waits."""
    local.let_go(event.who)
