"""Who pays: reserved before, settled after, and nothing is forgotten in between, however switch ends."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.switch.choosing.board import Board, Client
from actors.switch.configured.providers import FILE_NAME
from actors.switch.configured.traits import Traits
from actors.switch.paying.budget import ANSWER_TOKENS
from actors.switch.paying.ledger import Bill, Payer
from bus.settings import Settings
from schemas.errors import Failure
from tests.switch.accounting import ALICE, BOB, DAY_S, NOON, PAID, Accounts, check_books
from tests.switch.staging import NOBODY

ROOT = Path(__file__).parents[2]
LONG = bool(os.environ.get("VX11_LONG_SWITCH"))
KILLS, EXAMPLES = (300, 1_500) if LONG else (12, 40)


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Accounts]:
    made = Accounts(tmp_path)
    yield made
    made.close()
    again = Accounts(tmp_path)
    check_books(again.store)
    again.close()


def standing(books: Accounts, payer: Payer = ALICE) -> list[tuple[str, int, int]]:
    return [(one.account.kind, *one.used) for one in books.ledger.standing(payer, "2026-11-23")]


def test_while_an_answer_is_under_way_the_most_it_can_cost_is_taken(books: Accounts) -> None:
    with books.ledger.bill(ALICE, "cloud", "big", PAID, 100, 50) as bill:
        assert standing(books) == [("day", 150, 700), ("holder", 150, 700), ("session", 150, 700)]
        bill.settle(80, 20)
    assert standing(books) == [("day", 100, 360), ("holder", 100, 360), ("session", 100, 360)]
    [told] = books.answers
    assert (told.holder, told.session_id, told.tokens, told.billed, told.money) == ("alice", "s1", 100, 100, 0.00036)


def test_what_the_provider_does_not_say_is_billed_as_it_was_reserved(books: Accounts) -> None:
    assert books.ask(used=None).state == "unknown"
    assert standing(books)[0] == ("day", 150, 700)
    assert (books.answers[0].tokens, books.answers[0].billed) == (None, 150)


@pytest.mark.parametrize("said", [(30, None), (None, 30), (0, 0), (0, 30), (-5, 10), (10, -5), (10**30, 10), (10, 10**30)])
def test_a_count_that_cannot_be_is_none(books: Accounts, said: tuple[int | None, int | None]) -> None:
    """A provider must not be able to pay a budget back, nor to empty it for ever."""
    assert books.ask(used=said).state == "unknown"
    assert standing(books)[0] == ("day", 150, 700)


def test_what_was_surely_not_generated_costs_nothing(books: Accounts) -> None:
    with books.ledger.bill(ALICE, "cloud", "big", PAID, 100, 50) as bill:
        bill.void()
    assert standing(books)[0] == ("day", 0, 0)
    assert books.answers == []


def test_a_provider_that_counts_more_than_was_reserved_is_paid(books: Accounts) -> None:
    """The reservation is raised with it, so that reserved is never below settled."""
    books.ask(used=(900, 100))
    assert standing(books)[0] == ("day", 1_000, 2_800)
    assert books.store.vault.rows("SELECT reserved_tokens, tokens FROM bill") == [(1_000, 1_000)]


def test_an_answer_that_ends_by_an_error_is_billed_as_it_was_reserved(books: Accounts) -> None:
    """Its caller went away, or the stream was cut: something was generated, and nobody says how much."""
    with pytest.raises(KeyError), books.ledger.bill(ALICE, "cloud", "big", PAID, 100, 50):
        raise KeyError
    assert standing(books)[0] == ("day", 150, 700)


def test_the_window_of_a_model_bounds_what_a_prompt_can_take(books: Accounts) -> None:
    with books.ledger.bill(ALICE, "local", "small", Traits(context=2_048), 100_000, 50) as bill:
        assert bill.reserved.tokens == 2_098


def test_the_provider_is_told_a_bound_when_there_is_a_budget(books: Accounts) -> None:
    assert books.ask(answer=None).max_tokens is None
    assert books.ask(answer=77).max_tokens == 77
    books.budgets = {"holder": {"tokens": 1_000}}
    assert books.ask(Payer("carol"), answer=None).max_tokens == 900


def test_a_budget_of_money_bounds_no_answer_that_is_free(books: Accounts) -> None:
    """Or else the answers of a model at home would end in the middle because a paid one has a budget."""
    books.budgets = {"day": {"money": 1}}
    with books.ledger.bill(ALICE, "ollama", "llama3.2", Traits(price_in=1.0), 100) as bill:
        assert bill.max_tokens is None
    assert books.ask(answer=None).max_tokens == ANSWER_TOKENS


@pytest.mark.parametrize(("prompt", "allowed"), [(100, 4_046), (2_000, 3_096), (8_000, 1_024), (90_000, 1_024)])
def test_the_bound_of_a_budget_fits_into_the_window_beside_the_prompt(books: Accounts, prompt: int, allowed: int) -> None:
    """vLLM refuses a question whose tokens and `max_tokens` together are more than its window."""
    books.budgets = {"day": {"tokens": 1_000_000}}
    with books.ledger.bill(ALICE, "vllm", "small", Traits(context=4_096), prompt) as bill:
        assert bill.max_tokens == allowed


@pytest.mark.parametrize("scope", ["day", "session", "holder"])
@pytest.mark.parametrize("of", ["tokens", "money"])
def test_a_budget_stops_hard(books: Accounts, scope: str, of: str) -> None:
    """Ten answers of 15 tokens and 70 micro-dollars, and the reservation of the eleventh does not fit any more."""
    books.budgets = {scope: {of: 9 * 15 + 150 if of == "tokens" else (9 * 70 + 700) / 1e6}}
    assert [books.may() for _ in range(12)] == [True] * 10 + [False] * 2
    assert books.may(BOB) == (scope != "day")


def test_one_of_many_holders_has_a_budget_of_its_own(books: Accounts) -> None:
    books.budgets = {"holder": {"tokens": 0}, "holders": {"alice": {"tokens": 1_000}}}
    assert books.may(ALICE)
    assert not books.may(BOB)


def test_many_at_once_cannot_spend_more_than_there_is(books: Accounts) -> None:
    """All reserve before one settles."""
    books.budgets = {"day": {"tokens": 1_000}}
    with ExitStack() as open_:
        for _ in range(6):
            open_.enter_context(books.ledger.bill(ALICE, "cloud", "big", PAID, 100, 50))
        with pytest.raises(Failure, match="of which 100 tokens are left"):
            open_.enter_context(books.ledger.bill(BOB, "cloud", "big", PAID, 100, 50))
    assert standing(books)[0] == ("day", 900, 4_200)


def test_a_day_is_over_at_midnight_but_a_session_is_not(books: Accounts) -> None:
    books.budgets = {"day": {"tokens": 150}, "session": {"tokens": 300}}
    assert [books.may(used=None), books.may(used=None)] == [True, False]
    books.now += DAY_S
    assert [books.may(used=None), books.may(used=None)] == [True, False]
    books.now += DAY_S
    assert not books.may(used=None), "the session has used its 300"
    assert books.may(BOB)


def test_an_answer_over_midnight_belongs_to_the_day_on_which_it_was_asked(books: Accounts) -> None:
    with books.ledger.bill(ALICE, "cloud", "big", PAID, 100, 50) as bill:
        books.now += DAY_S
        bill.settle(10, 5)
    assert standing(books)[0] == ("day", 15, 70)
    assert books.store.totals.days(9) == ["2026-11-23"]


def test_a_clock_that_goes_back_opens_no_second_budget(books: Accounts) -> None:
    books.budgets = {"day": {"tokens": 150}}
    assert books.may(used=None)
    books.now += DAY_S
    assert books.may(used=None)
    books.now -= DAY_S
    assert not books.may(used=None)
    books.now += DAY_S
    assert not books.may(used=None)


def test_a_budget_that_is_changed_counts_at_once(books: Accounts) -> None:
    books.budgets = {"day": {"tokens": 150}}
    assert [books.may(used=None), books.may(used=None)] == [True, False]
    books.budgets = {"day": {"tokens": 300}}
    assert [books.may(used=None), books.may(used=None)] == [True, False]
    books.budgets = {"day": {"tokens": 0}}
    assert not books.may(used=None)
    books.budgets = {}
    assert books.may(used=None)


def test_budgets_that_are_wrong_stop_everything_and_say_why(books: Accounts) -> None:
    books.budgets = {"day": {"tokns": 150}}
    with pytest.raises(Failure, match=r"providers.toml, \[budgets\]: day: unknown line tokns; did you mean tokens"):
        books.ask()


def test_while_the_file_cannot_be_read_the_last_budgets_hold(books: Accounts, tmp_path: Path) -> None:
    """An editor may have written half of it, and that half is no permission to spend. Also across sleep."""
    books.budgets = {"day": {"tokens": 150}}
    assert books.may(used=None)
    books.budgets = None
    assert not books.may(used=None)
    books.close()
    awake = Accounts(tmp_path, None)
    assert not awake.may(used=None)
    awake.close()


def test_sleep_and_wake_keep_what_was_used(books: Accounts, tmp_path: Path) -> None:
    books.budgets = {"day": {"tokens": 300}}
    assert books.may(used=None)
    books.close()
    awake = Accounts(tmp_path, books.budgets)
    assert [awake.may(used=None), awake.may(used=None)] == [True, False]
    awake.close()


def test_an_answer_that_was_given_stays_given_when_it_cannot_be_written_down(
    books: Accounts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its reader has it already: it is billed as it was reserved, which is on disk."""
    with books.ledger.bill(ALICE, "cloud", "big", PAID, 100, 50) as bill:
        books.close()
        bill.settle(10, 5)
    assert "stays as it was reserved" in caplog.text
    assert books.answers[0].billed == 150
    awake = Accounts(tmp_path)
    assert awake.store.vault.rows("SELECT tokens, state FROM bill") == [(150, "lost")]
    awake.close()


def board_of(home: Path, text: str) -> Board:
    (home / FILE_NAME).write_text(text)
    return Board(Settings(home, NOBODY), cast(Client, None))


def test_the_budgets_are_those_of_the_file(tmp_path: Path) -> None:
    board = board_of(tmp_path, "[budgets]\nday = { tokens = 5 }\n")
    assert board.budgets() == {"day": {"tokens": 5}}
    assert board.budgets() is board.budgets(), "what has not changed is not read again"
    (tmp_path / FILE_NAME).write_text("[budgets]\nday = { tokens = 1000 }\n")
    assert board.budgets() == {"day": {"tokens": 1000}}
    (tmp_path / FILE_NAME).write_text("[budgets]\nday = { tok")
    assert board.budgets() is None
    (tmp_path / FILE_NAME).unlink()
    assert board.budgets() == {}


@pytest.mark.parametrize(
    "text",
    ["budgets = 5\n", "[budgets]\nday = { tokns = 5 }\n", "[budget]\nday = { tokens = 5 }\n", "[Budgets.day]\ntokens = 5\n"],
)
def test_wrong_budgets_are_told_to_who_looks_and_to_who_asks(tmp_path: Path, text: str) -> None:
    """Nothing that stands there for a budget may pass for none."""
    board = board_of(tmp_path, text)
    with pytest.raises(Failure, match="no model is asked until that is mended"):
        board.budgets()
    assert [fault.name for fault in board.faults] == ["budgets"]


def test_a_provider_may_be_called_nearly_like_the_budgets(tmp_path: Path) -> None:
    board = board_of(tmp_path, '[budget]\nurl = "http://127.0.0.1:1/v1"\nmodel = "cheap"\n')
    assert board.budgets() == {}
    assert [one.provider.name for one in board.entries()] == ["budget"]


CRASHING = """
import os, random, signal, sys
from pathlib import Path
from tests.switch.accounting import Accounts, Payer, PAID

home, seed, at = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
books, chance = Accounts(home), random.Random(seed)
statements = 0

def step(statement):
    global statements
    statements += 1
    if statements == at:
        os.kill(os.getpid(), signal.SIGKILL)

books.store.vault._connection.set_trace_callback(step)
bills = []
for number in range(40):
    asked = books.ledger.bill(Payer(chance.choice("abc"), chance.choice(["", "s1"])), "cloud", "big", PAID, 100, 50)
    print("asking", flush=True)
    bills.append((asked, asked.__enter__()))
    print("reserved", flush=True)
    if chance.random() < 0.7:
        asked, bill = bills.pop(chance.randrange(len(bills)))
        how = chance.randrange(4)
        if how == 0:
            bill.void()
        elif how < 3:
            bill.settle(chance.randrange(300), chance.randrange(300))
        asked.__exit__(None, None, None)
        print("closed", bill.billed.tokens, flush=True)
print("statements", statements, flush=True)
"""


def crash(home: Path, seed: int, at: int) -> list[str]:
    """Spend until killed before its statement number `at`; what it has said until then. 0: until the end."""
    words = [sys.executable, "-c", CRASHING, str(home), str(seed), str(at)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == (-signal.SIGKILL if at else 0), done.stderr
    return done.stdout.splitlines()


@pytest.mark.timeout(300)
def test_killed_at_any_point_nothing_that_was_reserved_is_forgotten(tmp_path: Path) -> None:
    """Killed with -9 before any statement: what was asked of a provider is on disk, billed at least as it was settled."""
    seed = random.randrange(10**6)
    last = int(crash(tmp_path / "whole", seed, 0)[-1].split()[1])
    points = random.Random(seed).sample(range(1, last), min(KILLS, last - 1))
    for at in points:
        home = tmp_path / str(at)
        said = crash(home, seed, at)
        after = Accounts(home)
        check_books(after.store)
        reserved, closed = said.count("reserved"), [int(one.split()[1]) for one in said if one.startswith("closed")]
        bills = after.store.vault.rows("SELECT tokens, state FROM bill")
        where = f"seed {seed}, statement {at}"
        assert reserved <= len(bills) <= reserved + 1, where
        assert {"open"}.isdisjoint(state for _, state in bills), where
        lost = [tokens for tokens, state in bills if state == "lost"]
        assert len(bills) - len(closed) - 1 <= len(lost) <= len(bills) - len(closed), where
        assert sum(tokens for tokens, _ in bills) >= sum(closed), where
        assert all(tokens == 150 for tokens in lost), where
        after.close()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "settle", "settle", "void", "leave", "restart", "tomorrow", "yesterday"]),
        st.integers(0, 400),
        st.integers(0, 400),
        st.sampled_from([ALICE, BOB, Payer("alice"), Payer("")]),
    ),
    max_size=40,
)


class Day:
    """A ledger that somebody uses in every way; `excess`: what providers counted above what they were allowed."""

    def __init__(self, home: Path, tokens: int) -> None:
        self.books = Accounts(home, {"day": {"tokens": tokens}})
        self.bills: list[tuple[ExitStack, Bill]] = []
        self.excess = 0

    def step(self, what: str, some: int, more: int, payer: Payer) -> None:
        books = self.books
        if what == "ask":
            place = ExitStack()
            with suppress(Failure):
                asked = books.ledger.bill(payer, "cloud", "big", PAID, some, more or None)
                self.bills.append((place, place.enter_context(asked)))
        elif what == "restart":
            books.close()
            self.books, self.bills = Accounts(books.home, books.budgets, books.now), []
        elif what in ("tomorrow", "yesterday"):
            books.now = max(NOON, books.now + DAY_S * (1 if what == "tomorrow" else -1))
        elif self.bills:
            self.close(what, some, more)

    def close(self, how: str, some: int, more: int) -> None:
        place, bill = self.bills.pop(some % len(self.bills))
        if how == "settle":
            bill.settle(some, more)
            self.excess += max(0, bill.billed.tokens - bill.reserved.tokens)
        elif how == "void":
            bill.void()
        place.close()


@pytest.mark.timeout(300)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(STEPS, st.integers(0, 3_000))
def test_whatever_happens_the_books_are_right(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int, Payer]], tokens: int
) -> None:
    """And a budget is overrun by nothing but a provider that counted more than it was allowed."""
    day = Day(tmp_path_factory.mktemp("books"), tokens)
    try:
        for step in steps:
            day.step(*step)
            store = day.books.store
            check_books(store)
            spent = [one.tokens for date in store.totals.days(99) for one in store.totals.listed("day", date)]
            assert all(one <= tokens + day.excess for one in spent)
    finally:
        for place, _ in day.bills:
            place.close()
        day.books.close()
