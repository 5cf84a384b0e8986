"""Answering a conversation: the chosen providers are asked one after the other, until one has begun to answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from actors.switch.board import Board, Client
from actors.switch.choice import Choice
from actors.switch.dialect import Piece
from actors.switch.failure import ProviderFailed
from schemas.errors import Failure
from schemas.switch import Chat, ModelChunk, ModelFailed, ModelReply

ANSWER_MAX_CHARS = 150_000
"""Of the whole text, and of one piece: a bus message has 1 MB at most. 32,768 tokens have some 130,000."""
MARGIN_S = 0.25
"""A failure is told this long before the caller's deadline, so that it arrives."""

Report = Callable[[ModelFailed], None]


@dataclass
class Said:
    """What one provider has said so far."""

    text: list[str] = field(default_factory=list)
    characters: int = 0
    begun: bool = False
    """A chunk was sent on, which cannot be taken back."""
    finish_reason: str = ""
    model: str = ""
    usage: dict[str, int] | None = None

    def add(self, piece: Piece) -> None:
        """Raises ProviderFailed when it is too much."""
        self.characters += len(piece.text)
        if max(self.characters, len(piece.reasoning)) > ANSWER_MAX_CHARS:
            raise ProviderFailed(f"its answer has more than {ANSWER_MAX_CHARS} characters")
        self.text.append(piece.text)
        self.finish_reason = piece.finish_reason or self.finish_reason
        self.model = piece.model or self.model
        self.usage = piece.usage or self.usage


@dataclass(frozen=True)
class Miss:
    """A provider that gave no answer."""

    choice: Choice
    why: ProviderFailed


async def relay(request: Chat, board: Board, seconds: float, report: Report) -> AsyncGenerator[ModelChunk | ModelReply, None]:
    """Chunks, then the whole reply. `seconds`: until the caller's deadline. `report`: told of each failure.

    The next provider is asked only as long as no chunk was sent. Raises Failure: `unavailable` when nobody is
    configured or nobody answered, `not_found` for an unknown model, `invalid` when all said that the request is at
    fault, `timeout` when time was up, `crashed` when an answer that had begun was cut off.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    until = begun + seconds - MARGIN_S
    if not board.entries():
        raise await board.nobody()
    misses: list[Miss] = []
    for choice in board.choices(request.model):
        if loop.time() >= until:
            break
        said = Said()
        try:
            async with aclosing(_asked(request, choice, board, until, said, report)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except ProviderFailed as why:
            if said.begun:
                raise _cut_off(choice, said, why) from why
            misses.append(Miss(choice, why))
            continue
        yield _reply(choice, said, misses, (loop.time() - begun) * 1000)
        return
    raise _unanswered(misses, board.rest(), late=loop.time() >= until)


async def _asked(
    request: Chat, choice: Choice, board: Board, until: float, said: Said, report: Report
) -> AsyncGenerator[ModelChunk, None]:
    """The chunks of one provider, whose circuit learns how it ended. Raises ProviderFailed."""
    with board.attempt(choice.provider) as attempt:
        try:
            async with aclosing(_heard(request, choice, board.client, until, said)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except ProviderFailed as why:
            attempt.failed(why, board.clock())
            report(ModelFailed(provider=choice.provider.name, model=choice.model, reason=why.reason))
            raise
        attempt.answered()


async def _heard(request: Chat, choice: Choice, client: Client, until: float, said: Said) -> AsyncGenerator[ModelChunk, None]:
    """The chunks, each noted in `said` before it is sent on. Raises ProviderFailed, also for an empty answer."""
    async with aclosing(client.stream(choice.provider, choice.model, request, until)) as pieces:
        async for piece in pieces:
            said.add(piece)
            if piece.says:
                said.begun = True
                yield ModelChunk(text=piece.text, reasoning=piece.reasoning)
    if not said.begun:
        raise ProviderFailed("it ended without a word")


def _reply(choice: Choice, said: Said, misses: Sequence[Miss], latency_ms: float) -> ModelReply:
    missed = "".join(f"; {miss.choice.provider.name}: {miss.why.reason}" for miss in misses)
    return ModelReply(
        text="".join(said.text),
        model=said.model or choice.model,
        provider=choice.provider.name,
        finish_reason=said.finish_reason,
        latency_ms=round(latency_ms, 1),
        usage=said.usage,
        reason=choice.reason + missed,
    )


def _cut_off(choice: Choice, said: Said, why: ProviderFailed) -> Failure:
    name = choice.provider.name
    told = f"{name} was cut off after {said.characters} characters: {why.told}"
    return Failure("crashed", told, provider=name, model=said.model or choice.model, characters=said.characters)


def _unanswered(misses: Sequence[Miss], rest: float, *, late: bool) -> Failure:
    """What became of a request that no provider answered."""
    attempts = [{"provider": m.choice.provider.name, "model": m.choice.model, "reason": m.why.reason} for m in misses]
    told = "; ".join(f"{m.choice.provider.name}: {m.why.told}" for m in misses)
    details: dict[str, Any] = {"attempts": attempts}
    if late:
        told = told or "there was no time to ask"
        return Failure("timeout", f"no language model answered in time; {told}", **details)
    if all(miss.why.blame == "caller" for miss in misses):
        return Failure("invalid", f"the request cannot be answered as it is; {told}", **details)
    if rest > 0:
        details["retry_after"] = max(1, round(rest))
    return Failure("unavailable", f"no language model answered; {told}", **details)
