"""Who pays for an answer: reserved before the provider is asked, settled after it, never forgotten in between."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from actors.switch.configured.lines import Misconfigured
from actors.switch.configured.traits import Traits
from actors.switch.paying import budget
from actors.switch.paying.budget import Account, Budgets, Line, Used
from schemas.errors import Failure
from schemas.message import Event
from schemas.switch import ModelAnswered

log = logging.getLogger("vx11.switch.ledger")

COUNT_MOST = 1_000_000_000
"""Tokens of one answer; a provider that tells more, or less than none, has told nothing."""

State = Literal["open", "settled", "unknown", "void", "lost"]
"""`unknown`: the provider did not say what it used, and what was reserved is billed. `lost`: so is what was open when the
process ended without a word."""


@dataclass(frozen=True)
class Payer:
    """`holder`: of the token, or the actor that asks. `session_id`: empty outside of a session."""

    holder: str
    session_id: str = ""


class Book(Protocol):
    """Where bills are written: `actors.switch.store.Store`. All raise Failure when that cannot be done."""

    def used(self, accounts: list[Account]) -> list[Used]: ...

    def reserve(self, day: str, payer: Payer, provider: str, model: str, reserved: Used) -> int:
        """The number of the bill, which is on disk now."""
        ...

    def close(self, number: int, billed: Used, state: State) -> None: ...

    def kept(self, kind: Literal["budgets"]) -> dict[str, Any]: ...

    def keep(self, kind: Literal["budgets"], documents: dict[str, Any]) -> None: ...


class Bill:
    """One question to one provider. What is left without a word is billed as it was reserved.

    `max_tokens`: to be sent to the provider; None when neither a budget nor the caller bounds the answer.
    """

    def __init__(self, traits: Traits, prompt: int, answer: int, max_tokens: int | None) -> None:
        self.max_tokens = max_tokens
        self.state: State = "open"
        self.tokens: int | None = None
        """As the provider counted them."""
        self._traits = traits
        self.reserved = self.billed = Used(prompt + answer, budget.cost(traits, prompt, answer))

    def settle(self, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """The answer is over. What the provider did not say, or cannot have meant, is billed as it was reserved."""
        prompt, answer = _counted(prompt_tokens), _counted(completion_tokens)
        if not prompt or answer is None:  # no prompt has no tokens: so do servers that did not count
            self.state, self.tokens, self.billed = "unknown", None, self.reserved
            return
        self.state, self.tokens = "settled", prompt + answer
        self.billed = Used(self.tokens, budget.cost(self._traits, prompt, answer))

    def void(self) -> None:
        """Surely nothing was generated: nothing is billed."""
        self.state, self.billed, self.tokens = "void", Used(), None


class Ledger:
    """`written`: the table `[budgets]` as it is now, None while it cannot be read: then the last one holds.

    `tell`: is told of each answer. `clock`: seconds since the epoch.
    """

    def __init__(
        self,
        book: Book,
        written: Callable[[], Mapping[str, Any] | None] = dict,
        tell: Callable[[Event], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._book, self._written, self._tell, self._clock = book, written, tell, clock
        self._table: Mapping[str, Any] | None = None
        self._budgets = Budgets()

    @property
    def budgets(self) -> Budgets:
        """As they are written now. Raises Failure: nothing is spent while nobody knows how much may be."""
        last = self._table if self._table is not None else self._book.kept("budgets").get("table", {})
        written = self._written()
        table = last if written is None else written
        if table is not self._table:
            try:
                self._budgets = budget.parse(table)
            except Misconfigured as wrong:
                told = f"providers.toml, [budgets]: {wrong}; no model is asked until that is mended"
                raise Failure("unavailable", told) from None
            if table != last:
                self._book.keep("budgets", {"table": dict(table)})
            self._table = table
        return self._budgets

    @contextmanager
    def bill(
        self, payer: Payer, provider: str, model: str, traits: Traits, prompt_bound: int, answer_bound: int | None = None
    ) -> Iterator[Bill]:
        """Leave to ask once. `prompt_bound`: tokens that the prompt has at most. `answer_bound`: what the caller allows.

        Raises Failure: `over_budget`, and `unavailable` or `storage_full` when nothing can be written down.
        """
        day = budget.day_of(self._clock())
        prompt = min(prompt_bound, traits.context or prompt_bound)
        standing = [line for line in self.standing(payer, day) if line.limit != budget.Limit()]
        answer = budget.granted(standing, traits, prompt, answer_bound, budget.usual(traits, prompt_bound))
        bounded = any(budget.bounds(line.limit, traits) for line in standing)
        bill = Bill(traits, prompt, answer, answer if bounded else answer_bound)
        number = self._book.reserve(day, payer, provider, model, bill.reserved)
        try:
            yield bill
        finally:
            if bill.state == "open":
                bill.state = "unknown"
            self._close(number, bill, payer, provider, model)

    def standing(self, payer: Payer, day: str) -> list[Line]:
        """The budgets of this payer as they stand."""
        budgets, found = self.budgets, budget.accounts(payer.holder, payer.session_id, day)
        return [Line(one, budget.limit(budgets, one), used) for one, used in zip(found, self._book.used(found), strict=True)]

    def _close(self, number: int, bill: Bill, payer: Payer, provider: str, model: str) -> None:
        """An answer that was given is not taken back because it cannot be written down: its reservation stays billed."""
        try:
            self._book.close(number, bill.billed, bill.state)
        except Failure as failure:
            log.error("the bill of %s with %s stays as it was reserved: %s", provider, model, failure)
            bill.billed = bill.reserved
        if bill.state == "void":
            return
        spent = {"tokens": bill.tokens, "billed": bill.billed.tokens, "money": bill.billed.money / budget.MICRO}
        who = {"holder": payer.holder, "session_id": payer.session_id}
        self._tell(ModelAnswered(provider=provider, model=model, **who, **spent))


def _counted(tokens: int | None) -> int | None:
    return tokens if tokens is not None and 0 <= tokens <= COUNT_MOST else None
