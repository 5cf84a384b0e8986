"""What switch tells of the usage: bounded, not too often, and nothing is left untold when it goes to sleep."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actors.switch.paying import usage
from actors.switch.paying.budget import Budgets
from actors.switch.paying.ledger import Payer
from actors.switch.paying.usage import HOLDERS, SESSIONS, Teller, statement, telling
from schemas.errors import Failure
from schemas.usage import UsageDay
from tests.switch.accounting import ALICE, BOB, DAY_S, PAID, Accounts

TODAY, TOMORROW = "2026-11-23", "2026-11-24"
DOCUMENT_BYTES = 128 * 1024
"""400 of them fit into the bucket."""


class Written:
    """A bucket that notes what is put into it."""

    def __init__(self) -> None:
        self.puts: list[tuple[str, dict[str, Any]]] = []
        self.fault: Failure | None = None
        self.slow = asyncio.Event()
        self.slow.set()
        self.news = asyncio.Event()

    async def put(self, key: str, document: dict[str, Any]) -> None:
        self.news.set()
        await self.slow.wait()
        if self.fault:
            raise self.fault
        self.puts.append((key, document))

    @property
    def days(self) -> list[str]:
        return [key for key, _ in self.puts]


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Accounts]:
    made = Accounts(tmp_path)
    yield made
    made.close()


def teller(books: Accounts, bucket: Written) -> Teller:
    return Teller(books.store, books.ledger, bucket, lambda: books.now)


async def test_a_statement_says_who_used_what_and_how_the_budgets_stand(books: Accounts) -> None:
    books.budgets = {
        "day": {"money": 1},
        "session": {"tokens": 500},
        "holder": {"tokens": 300},
        "holders": {"carol": {"tokens": 7}},
    }
    books.ask(ALICE)
    books.ask(BOB, used=None)
    told = statement(books.store, books.ledger.budgets, TODAY, books.now)
    assert (told.day, told.observed_at) == (TODAY, "2026-11-23T12:00:00.000Z")
    assert (told.total.answers, told.total.tokens, told.total.money) == (2, 165, 0.00077)
    assert [(one.name, one.tokens) for one in told.holders] == [("bob", 150), ("alice", 15)]
    assert [(one.name, one.tokens) for one in told.models] == [("cloud/big", 165)]
    assert [(one.name, one.tokens) for one in told.sessions] == [("s2", 150), ("s1", 15)]
    assert [(one.budget, one.name, one.of, one.limit, one.used) for one in told.budgets] == [
        ("day", "", "money", 1.0, 0.00077),
        ("holder", "carol", "tokens", 7.0, 0.0),
        ("holder", "bob", "tokens", 300.0, 150.0),
        ("holder", "alice", "tokens", 300.0, 15.0),
        ("session", "s2", "tokens", 500.0, 150.0),
        ("session", "s1", "tokens", 500.0, 15.0),
    ]


async def test_what_was_used_before_today_is_in_the_counters(books: Accounts) -> None:
    books.ask()
    books.now += DAY_S
    books.ask()
    told = statement(books.store, books.ledger.budgets, TOMORROW, books.now)
    assert (told.total.tokens, told.ever[0].tokens) == (15, 30)


async def test_a_counter_never_falls(books: Accounts) -> None:
    """Prometheus takes a counter that falls for one that began anew, and adds all of it once more."""
    seen = [0]

    def look() -> None:
        seen.append(sum(one.answers + one.tokens for one in statement(books.store, Budgets(), TODAY, books.now).ever))

    for end in ("settle", "void", "leave"):
        with books.ledger.bill(ALICE, "cloud", "big", PAID, 100, 50) as bill:
            look()
            if end == "settle":
                bill.settle(10, 5)
            elif end == "void":
                bill.void()
        look()
    assert seen == [0, 0, 16, 16, 16, 16, 16 + 151]


async def test_a_document_is_bounded_whoever_asks(books: Accounts) -> None:
    books.budgets = {"day": {"tokens": 10**9, "money": 9}, "session": {"tokens": 10**6}, "holder": {"tokens": 10**6, "money": 9}}
    for number in range(120):
        with books.ledger.bill(Payer(f"{number:0>64}", f"{number:0>64}"), "cloud", f"{number:0>64}", PAID, 5, 5):
            pass
    told = statement(books.store, books.ledger.budgets, TODAY, books.now)
    assert (len(told.holders), len(told.sessions)) == (HOLDERS, SESSIONS)
    assert len(json.dumps(told.model_dump())) < DOCUMENT_BYTES


async def test_many_answers_are_told_at_once_and_again_only_after_a_while(
    books: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writing each second at most: here the second never ends."""
    monkeypatch.setattr(usage, "EVERY_S", 3_600.0)
    bucket = Written()
    async with telling(teller(books, bucket)):
        for _ in range(50):
            books.ask()
        await bucket.news.wait()
        for _ in range(50):
            books.ask()
            await asyncio.sleep(0)
        assert bucket.days == [TODAY]
    assert bucket.days == [TODAY, TODAY], "the rest is told on going to sleep"
    assert bucket.puts[-1][1]["total"]["answers"] == 100


async def test_nothing_is_told_when_nothing_was_used(books: Accounts) -> None:
    bucket = Written()
    async with telling(teller(books, bucket)):
        await asyncio.sleep(0)
    assert bucket.puts == []


async def test_both_days_are_told_when_midnight_lies_between(books: Accounts) -> None:
    bucket = Written()
    one = teller(books, bucket)
    books.ask()
    books.now += DAY_S
    books.ask()
    await one.tell()
    assert bucket.days == [TODAY, TOMORROW]


async def test_an_answer_of_yesterday_that_ends_does_not_hide_today(books: Accounts) -> None:
    """`/metrics` reads what was written last."""
    bucket = Written()
    one = teller(books, bucket)
    with books.ledger.bill(ALICE, "cloud", "big", PAID, 100, 50):
        books.now += DAY_S
        books.ask()
        await one.tell()
    await one.tell()
    assert bucket.days == [TODAY, TOMORROW, TODAY, TOMORROW]


async def test_what_could_not_be_told_is_told_later_and_said_once(books: Accounts, caplog: pytest.LogCaptureFixture) -> None:
    bucket = Written()
    one = teller(books, bucket)
    bucket.fault = Failure("storage_full", "no room")
    for _ in range(3):
        books.ask()
        await one.tell()
    assert caplog.text.count("the usage is not told") == 1
    bucket.fault = None
    await one.tell()
    assert bucket.puts[-1][1]["total"]["answers"] == 3


async def test_going_to_sleep_in_the_middle_of_a_writing_loses_nothing(books: Accounts) -> None:
    bucket = Written()
    bucket.slow.clear()
    async with telling(teller(books, bucket)):
        books.ask()
        await bucket.news.wait()
        asyncio.get_running_loop().call_soon(bucket.slow.set)
    assert bucket.puts[-1][1]["total"]["answers"] == 1


async def test_after_kill_9_the_last_day_is_told_again(books: Accounts, tmp_path: Path) -> None:
    """Its last second may not have been told."""
    books.ask()
    books.close()
    awake = Accounts(tmp_path)
    await awake.store.open()
    bucket = Written()
    async with telling(teller(awake, bucket)):
        await bucket.news.wait()
    assert UsageDay.model_validate(bucket.puts[0][1]).total.tokens == 15
    awake.close()
