"""Budgets: how they are written, what they grant, and what is said when they do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.switch.configured.lines import Misconfigured
from actors.switch.configured.traits import Traits
from actors.switch.paying.budget import (
    ANSWER_LEAST,
    ANSWER_TOKENS,
    Account,
    Budgets,
    Limit,
    Line,
    Used,
    accounts,
    cost,
    day_of,
    granted,
    limit,
    parse,
    prompt_bound,
)
from schemas.errors import Failure
from schemas.switch import Chat, Turn

DAY = "2026-11-23"
FREE = Traits()
PAID = Traits(price_in=2.5, price_out=10.0)
UNUSED = Used()


def line(most: Limit, used: Used = UNUSED, kind: str = "day", name: str = "") -> Line:
    return Line(Account("" if kind == "session" else DAY, kind, name), most, used)  # type: ignore[arg-type]


def refused(*lines: Line, traits: Traits = FREE, prompt: int = 100, answer: int | None = 50) -> Failure:
    with pytest.raises(Failure) as failed:
        granted(lines, traits, prompt, answer)
    assert failed.value.code == "over_budget"
    return failed.value


def test_the_whole_table_is_read() -> None:
    written = {
        "day": {"tokens": 200_000, "money": 1.5},
        "session": {"tokens": 10_000},
        "holder": {"money": 0.25},
        "holders": {"alice": {"tokens": 5, "money": 0}},
    }
    assert parse(written) == Budgets(Limit(200_000, 1_500_000), Limit(10_000), Limit(None, 250_000), {"alice": Limit(5, 0)})


def test_nothing_written_is_no_budget() -> None:
    assert parse({}) == Budgets()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"dya": {}}, "unknown line dya; did you mean day?"),
        ({"day": {"token": 5}}, "day: unknown line token; did you mean tokens?"),
        ({"day": 5}, "day must be a table; write for instance  day = { tokens = 200000, money = 1.50 }"),
        ({"day": {"tokens": 1.5}}, "day: tokens must be a whole number from 0"),
        ({"day": {"tokens": True}}, "day: tokens must be a whole number"),
        ({"day": {"tokens": -1}}, "day: tokens must be a whole number from 0"),
        ({"session": {"money": -0.5}}, "session: money must be a number from 0"),
        ({"holder": {"money": float("nan")}}, "holder: money must be a number"),
        ({"holder": {"money": "1"}}, "holder: money must be a number"),
        ({"holders": ["alice"]}, "holders must be tables; write [budgets.holders.NAME]"),
        ({"holders": {"alice": {"mony": 1}}}, "holders.alice: unknown line mony; did you mean money?"),
    ],
)
def test_a_wrong_line_is_said_with_what_to_write(table: dict[str, object], said: str) -> None:
    with pytest.raises(Misconfigured) as wrong:
        parse(table)
    assert said in str(wrong.value)


def test_a_holder_with_a_budget_of_its_own_has_only_that() -> None:
    budgets = Budgets(holder=Limit(tokens=10), holders={"alice": Limit(money=5)})
    assert limit(budgets, Account(DAY, "holder", "alice")) == Limit(money=5)
    assert limit(budgets, Account(DAY, "holder", "bob")) == Limit(tokens=10)


def test_outside_of_a_session_nothing_is_counted_for_one() -> None:
    assert accounts("bob", "", DAY) == [Account(DAY, "day"), Account(DAY, "holder", "bob")]
    assert accounts("bob", "s1", DAY)[2] == Account("", "session", "s1")


def test_a_price_is_counted_exactly_and_rounded_up() -> None:
    """0.1 dollars a million is a tenth of a micro-dollar a token, which no binary fraction is."""
    assert cost(Traits(price_in=0.1), 30, 0) == 3
    assert cost(Traits(price_in=0.1), 31, 0) == 4
    assert cost(PAID, 1_000, 100) == 3_500
    assert cost(FREE, 10**9, 10**9) == 0


def test_what_fits_exactly_is_granted() -> None:
    assert granted([line(Limit(tokens=150))], FREE, 100, 50) == 50
    refused(line(Limit(tokens=149)))


def test_an_answer_of_unknown_length_gets_what_is_left() -> None:
    assert granted([], FREE, 100, None) == ANSWER_TOKENS
    assert granted([line(Limit(tokens=1_000), Used(300))], FREE, 100, None) == 600
    assert granted([line(Limit(money=2_000))], PAID, 400, None) == 100
    assert granted([line(Limit(tokens=10**9))], FREE, 100, None) == ANSWER_TOKENS


def test_an_answer_that_would_be_cut_off_at_once_is_not_begun() -> None:
    assert granted([line(Limit(tokens=100 + ANSWER_LEAST))], FREE, 100, None) == ANSWER_LEAST
    refused(line(Limit(tokens=99 + ANSWER_LEAST)), answer=None)


def test_what_costs_nothing_is_answered_when_the_money_is_spent() -> None:
    """So that a local model goes on when the paid one may not."""
    spent = line(Limit(money=100), Used(0, 150))
    assert granted([spent], FREE, 100, 50) == 50
    refused(spent, traits=PAID)


def test_the_refusal_says_whose_budget_of_what_how_much_is_left_and_when_it_is_new() -> None:
    failure = refused(line(Limit(money=1_000_000), Used(7, 999_500), "holder", "alice"), traits=PAID)
    assert failure.message == (
        "the budget of alice for 2026-11-23 has 1 USD, of which 0.0005 USD are left; this needs up to 0.00075 USD; "
        "it is new at 2026-11-24T00:00:00Z"
    )
    assert failure.details == {
        "budget": "holder", "of": "money", "limit": 1.0, "used": 0.9995, "needed": 0.00075, "resets_at": "2026-11-24T00:00:00Z",
    }  # fmt: skip


def test_a_session_never_begins_anew() -> None:
    failure = refused(line(Limit(tokens=180), Used(100), "session", "s1"))
    assert "the budget of this session has 180 tokens, of which 80 tokens are left" in failure.message
    assert "begin another session" in failure.message
    assert failure.details["resets_at"] is None


@pytest.mark.parametrize(("kind", "name"), [("session", "s1"), ("day", "")])
def test_nobody_is_told_to_wait_for_a_budget_that_is_too_small_when_it_is_new(kind: str, name: str) -> None:
    message = refused(line(Limit(tokens=60), Used(), kind, name)).message
    assert "this needs up to" in message
    assert message.endswith("that is more than all of it: ask for less, or raise it in providers.toml")


def test_the_last_day_of_a_year_ends_in_the_next() -> None:
    failure = refused(Line(Account("2026-12-31", "day"), Limit(tokens=0), Used()))
    assert failure.details["resets_at"] == "2027-01-01T00:00:00Z"


def test_days_are_those_of_utc() -> None:
    assert day_of(1_795_478_399.9) == "2026-11-23"
    assert day_of(1_795_478_400.0) == "2026-11-24"


@given(st.text(max_size=200), st.lists(st.sampled_from(["text", "image_url"]), max_size=3))
def test_a_prompt_has_at_most_a_token_for_each_byte(text: str, parts: list[str]) -> None:
    text = text.encode(errors="replace").decode()
    bare = prompt_bound(Chat(messages=[Turn(role="user", content=text)]))
    assert bare >= len(text.encode())
    listed = Chat(messages=[Turn(role="user", content=[{"type": kind, "text": text} for kind in parts])])
    assert prompt_bound(listed) >= len(text.encode()) * len(parts) + 1_000 * parts.count("image_url")


@given(
    st.lists(st.tuples(st.none() | st.integers(0, 10_000), st.integers(0, 10_000)), max_size=4),
    st.integers(0, 5_000),
    st.none() | st.integers(1, 5_000),
    st.sampled_from([FREE, PAID, Traits(price_in=0.37)]),
    st.booleans(),
)
def test_what_is_granted_fits_into_every_budget(
    limits: list[tuple[int | None, int]], prompt: int, answer: int | None, traits: Traits, money: bool
) -> None:
    lines = [line(Limit(money=m) if money else Limit(tokens=m), Used(u, u)) for m, u in limits]
    try:
        given_ = granted(lines, traits, prompt, answer)
    except Failure:
        return
    assert given_ >= 1
    assert answer in (None, given_)
    for one in lines:
        if one.limit.tokens is not None:
            assert one.used.tokens + prompt + given_ <= one.limit.tokens
        if one.limit.money is not None and (need := cost(traits, prompt, given_)):
            assert one.used.money + need <= one.limit.money
