"""What was used, told to the bucket VX11_USAGE, so that everybody can see it without waking switch."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Protocol, get_args

from actors.switch.paying import budget
from actors.switch.paying.budget import MICRO, Account, Budgets, Line, Unit
from actors.switch.paying.ledger import Ledger
from actors.switch.paying.totals import Total
from actors.switch.store import Store
from bus.moment import rfc3339
from schemas.errors import Failure
from schemas.usage import BudgetUsed, Spent, UsageDay

log = logging.getLogger("vx11.switch.usage")

EVERY_S = 1.0
"""Between two writings at least."""
HOLDERS, MODELS, SESSIONS = 50, 100, 50
"""Told of a day at most: a document has 120 KB at the very most, and mostly 2."""


class Bucket(Protocol):
    """`bus.bucket.Bucket`."""

    async def put(self, key: str, document: dict[str, Any]) -> None: ...


def statement(store: Store, budgets: Budgets, day: str, now: float) -> UsageDay:
    """How the day stands. Raises Failure."""
    totals = store.totals
    holders, sessions = totals.listed("holder", day), totals.listed("session", day, SESSIONS)
    [total] = totals.listed("day", day) or [Total("", 0, 0, 0)]
    of_day = [Account(day, "day"), *(Account(day, "holder", name) for name in _holders(holders, budgets))]
    accounts = [*of_day, *(Account("", "session", one.name) for one in sessions)]
    standing = [Line(a, budget.limit(budgets, a), u) for a, u in zip(accounts, store.used(accounts), strict=True)]
    return UsageDay(
        day=day,
        observed_at=rfc3339(now),
        total=_spent(total),
        holders=[_spent(one) for one in holders[:HOLDERS]],
        models=[_spent(one) for one in totals.listed("model", day, MODELS)],
        sessions=[_spent(one) for one in sessions],
        budgets=[told for line in standing for told in _told(line)],
        ever=[_spent(one) for one in totals.settled("model", "", MODELS)],
    )


class Teller:
    """Writes the days that have changed. What cannot be written now is written with the next change."""

    def __init__(self, store: Store, ledger: Ledger, bucket: Bucket, clock: Callable[[], float] = time.time) -> None:
        self._store, self._ledger, self._bucket, self._clock = store, ledger, bucket, clock
        self._trouble = ""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._store.news.wait()
            await self.tell()
            await asyncio.sleep(EVERY_S)

    async def tell(self) -> None:
        """Write all that has changed."""
        days = self._store.changes()
        try:
            for day in self._today_last(days):
                document = statement(self._store, self._ledger.budgets, day, self._clock())
                await self._bucket.put(day, document.model_dump())
                days.discard(day)
            self._trouble = ""
        except Failure as failure:
            if failure.code != self._trouble:
                log.warning("the usage is not told: %s", failure)
            self._trouble = failure.code
        finally:
            self._store.changed |= days

    def _today_last(self, days: set[str]) -> list[str]:
        """Who reads only what was written last sees today, even if an answer of yesterday has just ended."""
        today = budget.day_of(self._clock())
        begun = days and self._store.totals.listed("day", today)
        return [*sorted(days - {today}), *([today] if begun else days & {today})]


@asynccontextmanager
async def telling(teller: Teller) -> AsyncIterator[None]:
    """Tells now and then, and once more at the end."""
    task = asyncio.create_task(teller.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        await teller.tell()


def _holders(seen: Iterable[Total], budgets: Budgets) -> list[str]:
    """Those with a budget of their own, and those who used most."""
    return list(dict.fromkeys([*budgets.holders, *(one.name for one in seen)]))[: HOLDERS + len(budgets.holders)]


def _spent(one: Total) -> Spent:
    return Spent(name=one.name, answers=one.answers, tokens=one.tokens, money=one.money / MICRO)


def _told(line: Line) -> Iterable[BudgetUsed]:
    for of in get_args(Unit):
        most, used = getattr(line.limit, of), getattr(line.used, of)
        if most is not None:
            account = line.account
            yield BudgetUsed(
                budget=account.kind, name=account.name, of=of,
                limit=budget.in_words(most, of), used=budget.in_words(used, of), resets_at=budget.resets_at(account),
            )  # fmt: skip
