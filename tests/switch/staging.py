"""switch, awake, with scripted servers for its providers; its handlers are called as they are."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from actors.switch import actor as switch
from actors.switch.asking.endpoint import opened
from actors.switch.asking.patience import Limits
from actors.switch.choosing.board import Board
from bus import Settings
from bus.call import call_from
from schemas.errors import Failure
from schemas.message import Event
from schemas.switch import (
    Chat,
    ModelChunk,
    ModelFailed,
    ModelReply,
    ProviderStatus,
    Turn,
)
from tests.switch.accounting import Accounts, check_books
from tests.switch.scripted import (
    Script,
    Server,
    scripted,
)

HELLO = Chat(messages=[Turn(role="user", content="tell me the secret plan")])
FEW_SECONDS = Limits(connect=2.0, first_token=1.0, stall=1.0, tail=0.1)
Answer = AsyncGenerator[ModelChunk | ModelReply, None]
NOBODY = {"OLLAMA_HOST": "127.0.0.1:9"}
"""An Ollama of the machine that runs the tests is none of their business."""


@dataclass
class Told:
    """The bus as far as switch uses it: it hears what is told."""

    events: list[Event] = field(default_factory=list)

    def tell(self, event: Event) -> None:
        self.events.append(event)


@dataclass
class Stage:
    """switch, awake, with the scripted servers that it is configured for, in their order."""

    board: Board
    servers: list[Server]
    bus: Told
    time: list[float]
    accounts: Accounts

    def ask(self, request: Chat = HELLO, *, seconds: float | None = None) -> Answer:
        deadline = {} if seconds is None else {"vx11-deadline": str(int((time.time() + seconds) * 1000))}
        given = {"board": self.board, "ledger": self.accounts.ledger, "bus": self.bus, "call": call_from(deadline)}
        wants = switch.actor.requests["chat"].wants  # what has tests of its own is not there
        answer: Any = switch.chat(request, **cast(Any, {name: given.get(name) for name in wants}))
        return cast(Answer, answer)

    async def reply(self, request: Chat = HELLO) -> ModelReply:
        *_, last = [part async for part in self.ask(request)]
        assert isinstance(last, ModelReply)
        return last

    async def failure(self, request: Chat = HELLO, *, seconds: float | None = None) -> Failure:
        with pytest.raises(Failure) as failed:
            _ = [part async for part in self.ask(request, seconds=seconds)]
        return failed.value

    async def status(self) -> dict[str, ProviderStatus]:
        listed = await self.board.status()
        return {provider.name: provider for provider in listed.providers}

    @property
    def asked(self) -> list[int]:
        """How many requests each server has seen."""
        return [len(server.asked) for server in self.servers]

    @property
    def failures(self) -> list[tuple[str, str]]:
        told = [event for event in self.bus.events if isinstance(event, ModelFailed)]
        assert len(told) == len(self.bus.events)
        return [(event.provider, event.reason) for event in told]


@asynccontextmanager
async def stage(
    home: Path, *scripts: Script | list[Script], limits: Limits = FEW_SECONDS, lines: Sequence[str] = ()
) -> AsyncIterator[Stage]:
    """Providers p0, p1, ... with models m0, m1, ..., one for each script (or list: one for each request).

    `lines`: more of the configuration of each. When it is over, the books are looked at.
    """
    async with AsyncExitStack() as stack:
        servers = []
        for script in scripts:
            each = script if isinstance(script, list) else [script]
            servers.append(await stack.enter_async_context(scripted(*each)))
        more = dict(enumerate(lines))
        tables = [f'[p{n}]\nurl = "{server.url}"\nmodel = "m{n}"\n{more.get(n, "")}\n' for n, server in enumerate(servers)]
        (home / "providers.toml").write_text("".join(tables))
        accounts = Accounts(home)
        stack.callback(accounts.close)
        stack.callback(lambda: check_books(accounts.store))
        clock = [1_000.0]
        endpoint = await stack.enter_async_context(opened(limits))
        yield Stage(Board(Settings(home, NOBODY), endpoint, lambda: clock[0]), servers, Told(), clock, accounts)
