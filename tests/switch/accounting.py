"""A ledger on a real encrypted file, and what must be true of every such file at any moment."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.switch.configured.traits import Traits
from actors.switch.paying.ledger import Bill, Ledger, Payer
from actors.switch.store import Store
from bus.settings import Settings
from schemas.errors import Failure
from schemas.message import Event
from schemas.switch import ModelAnswered

NOON = 1_795_435_200.0
"""2026-11-23T12:00:00Z"""
DAY_S = 86_400
PAID = Traits(price_in=2.0, price_out=10.0)
ALICE, BOB = Payer("alice", "s1"), Payer("bob", "s2")


@dataclass
class Accounts:
    """`now`, `budgets`: may be changed at any time. `told`: what the bus heard."""

    home: Path
    budgets: Mapping[str, Any] | None = field(default_factory=dict)
    now: float = NOON
    told: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = Store(Settings(self.home), lambda: self.now)
        self.ledger = Ledger(self.store, lambda: self.budgets, self.told.append, lambda: self.now)

    def ask(
        self, payer: Payer = ALICE, *, prompt: int = 100, answer: int | None = 50, used: tuple[int, int] | None = (10, 5)
    ) -> Bill:
        """One question that is answered; `used`: as the provider counts it, None when it does not say."""
        with self.ledger.bill(payer, "cloud", "big", PAID, prompt, answer) as bill:
            if used:
                bill.settle(*used)
        return bill

    def may(self, payer: Payer = ALICE, **more: Any) -> bool:
        try:
            self.ask(payer, **more)
        except Failure as failure:
            if failure.code != "over_budget":
                raise
            return False
        return True

    @property
    def answers(self) -> list[ModelAnswered]:
        return [one for one in self.told if isinstance(one, ModelAnswered)]

    def close(self) -> None:
        self.store.shut()


def check_books(store: Store) -> None:
    """What is told are the sums of bills, what is in the file the sums of closed ones. Nothing is negative, what was void leaves
    no name, reserved is never below billed.
    """
    sums: dict[tuple[str, str, str], list[int]] = {}
    closed: dict[tuple[str, str, str], list[int]] = {}
    rows = store.vault.rows(
        "SELECT day, holder, session, provider || '/' || model, reserved_tokens, reserved_money, tokens, money, state FROM bill"
    )
    for day, holder, session, model, reserved_tokens, reserved_money, tokens, money, state in rows:
        assert 0 <= tokens <= reserved_tokens
        assert 0 <= money <= reserved_money
        if state in ("open", "unknown", "lost"):
            assert (tokens, money) == (reserved_tokens, reserved_money)
        if state == "void":
            assert (tokens, money) == (0, 0)
        keys = [("day", day, ""), ("holder", day, holder), ("model", day, model), ("model", "", model)]
        keys += [("session", day, session), ("session", "", session)] * bool(session)
        for key, each in itertools.product(keys, (sums, closed) if state != "open" else (sums,)):
            one = each.setdefault(key, [0, 0, 0])
            one[0] += state != "void"
            one[1] += tokens
            one[2] += money
    written = {
        (kind, day, name): [answers, tokens, money]
        for kind, day, name, answers, tokens, money in store.vault.rows(
            "SELECT kind, day, name, answers, tokens, money FROM total"
        )
    }
    assert written == {key: one for key, one in closed.items() if one[0]}
    told = {
        (kind, day, one.name): [*one[1:]]
        for kind in ("day", "holder", "session", "model")
        for day in ("", *store.totals.days(1_000))
        for one in store.totals.listed(kind, day, 1_000)
    }
    assert told == {key: one for key, one in sums.items() if one[0]}
