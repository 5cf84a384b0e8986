"""Answering a conversation: the chosen models are asked one after the other; where one is cut off, the next goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from actors.switch.answer import Answer
from actors.switch.asking.failure import ProviderFailed
from actors.switch.choosing import window
from actors.switch.choosing.board import Attempt, Board
from actors.switch.choosing.choice import Choice
from actors.switch.configured.traits import Traits
from actors.switch.outcome import Miss, cut_off, reply, unanswered
from actors.switch.paying import budget
from actors.switch.paying.ledger import Bill, Payer
from schemas.errors import Failure
from schemas.switch import Chat, ModelChunk, ModelFailed, ModelReply

MARGIN_S = 0.25
"""A failure is told this long before the caller's deadline, so that it arrives."""
SMALLER = 2
"""A conversation that a model found too long is sent once more with this part of it."""

Report = Callable[[ModelFailed], None]
Chunks = AsyncGenerator[ModelChunk, None]


class Purse(Protocol):
    """Who pays: `actors.switch.paying.ledger.Ledger`."""

    def bill(
        self, payer: Payer, provider: str, model: str, traits: Traits, prompt_bound: int, answer_bound: int | None = None
    ) -> AbstractContextManager[Bill]: ...


@dataclass
class Relay:
    """One request. `until`: the moment, on the loop's clock, when all must be told. `report`: told of each failure."""

    request: Chat
    board: Board
    purse: Purse
    payer: Payer
    until: float
    report: Report
    answer: Answer = field(init=False)
    misses: list[Miss] = field(default_factory=list)
    first_at: float | None = None
    """When the first chunk was there."""

    def __post_init__(self) -> None:
        self.answer = Answer(self.request)

    async def ask(self, choice: Choice) -> Chunks:
        """The chunks of one choice, once more with less of the conversation if that may be. Raises ProviderFailed."""
        try:
            async with aclosing(self._attempt(choice)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except ProviderFailed as why:
            smaller = self._smaller(choice) if why.too_long and self.request.trim else None
            if smaller is None:
                raise
        else:
            return
        async with aclosing(self._attempt(smaller)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _attempt(self, choice: Choice) -> Chunks:
        """The chunks of one question, whose circuit and whose bill learn how it ended. Raises ProviderFailed, Failure."""
        sent = self._sent(choice)
        bound = budget.prompt_bound(sent)
        with (
            self.board.attempt(choice, sent) as attempt,
            self.purse.bill(self.payer, choice.provider.name, choice.model, choice.traits, bound, sent.max_tokens) as bill,
        ):
            if bill.max_tokens != sent.max_tokens:
                sent = sent.model_copy(update={"max_tokens": bill.max_tokens})
            try:
                async with aclosing(self._heard(choice, sent, attempt)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except ProviderFailed as why:
                if why.unspent:
                    bill.void()
                attempt.failed(why, self.board.clock())
                self.report(ModelFailed(provider=choice.provider.name, model=choice.model, reason=why.reason))
                raise
            usage = self.answer.usage or {}
            attempt.answered(usage)
            bill.settle(usage.get("prompt_tokens"), usage.get("completion_tokens"))

    async def _heard(self, choice: Choice, sent: Chat, attempt: Attempt) -> Chunks:
        """The chunks, each noted in the answer before it is sent on. Raises ProviderFailed."""
        async with aclosing(self.board.client.stream(choice.provider, choice.model, sent, self.until)) as pieces:
            async for piece in pieces:
                if piece.says:
                    attempt.heard()
                chunk = self.answer.hear(piece)
                if chunk is not None:
                    yield chunk
        chunk = self.answer.end()
        if chunk is not None:
            yield chunk

    def _sent(self, choice: Choice) -> Chat:
        """What to ask: it must leave neither the question out nor what was said of the answer. Raises ProviderFailed."""
        asked = self.answer.begin(choice)
        try:
            sent = self.board.fitted(asked, choice)
        except Failure as failure:
            raise ProviderFailed(failure.message, blame="nobody", too_long=True, unspent=True) from failure
        last = min(len(self.request.messages), len(asked.messages)) - 1
        if any(all(turn is not kept for kept in sent.messages) for turn in asked.messages[last:]):
            raise ProviderFailed("what was said already leaves no room in its window", blame="nobody", unspent=True)
        return sent

    def _smaller(self, choice: Choice) -> Choice | None:
        """The same with a smaller window than the conversation takes; None when nothing can be left out, or was said."""
        if self.answer.begun:
            return None
        factor = self.board.memory.observed(choice.provider, choice.model).factor
        try:
            sent = self.board.fitted(self.request, choice)
            context = window.tokens(sent.messages, factor) // SMALLER
            smaller = replace(choice, traits=replace(choice.traits, context=context))
            fitted = self.board.fitted(self.request, smaller)
        except Failure:
            return None
        return smaller if len(fitted.messages) < len(sent.messages) else None


async def relay(
    request: Chat, board: Board, purse: Purse, payer: Payer, seconds: float, report: Report
) -> AsyncGenerator[ModelChunk | ModelReply, None]:
    """Chunks, then the whole reply. `seconds`: until the caller's deadline. `report`: told of each failure.

    Raises Failure: `unavailable` when nobody is configured or nobody answered, `not_found` for an unknown model,
    `invalid` and `too_large` when all said that the request is at fault, `over_budget`, `timeout` when time was up,
    `crashed` when an answer that had begun was cut off and nobody could go on with it.
    """
    clock = asyncio.get_running_loop().time
    begun = clock()
    one = Relay(request, board, purse, payer, begun + seconds - MARGIN_S, report)
    chosen = board.choices(request)
    if not chosen:
        raise await board.nobody()
    for choice in chosen:
        if clock() >= one.until or one.answer.stuck:
            break
        try:
            async with aclosing(one.ask(choice)) as chunks:
                async for chunk in chunks:
                    if one.first_at is None:
                        one.first_at = clock()
                    yield chunk
        except (ProviderFailed, Failure) as why:
            if isinstance(why, Failure) and why.code != "over_budget" and not one.answer.begun:
                raise
            one.misses.append(Miss(choice, why, one.answer.spoke, len(one.answer.text)))
            continue
        yield reply(choice, one.answer, one.misses, begun, one.first_at, clock())
        return
    if one.answer.begun:
        raise cut_off(one.answer, one.misses)
    raise unanswered(one.misses, board.rest(), late=clock() >= one.until)
