"""`vx11 usage`: who used what, and what is left."""

from __future__ import annotations

from schemas.errors import Failure
from schemas.usage import BudgetUsed, Spent, UsageDay
from tests.cli.conftest import Terminal

ALL = Spent(answers=12, tokens=34_567, money=0.0123)
DAY = UsageDay(
    day="2026-11-23",
    observed_at="2026-11-23T12:00:00.000Z",
    total=ALL,
    holders=[Spent(name="alice", answers=12, tokens=34_567, money=0.0123)],
    models=[Spent(name="cloud/big", answers=12, tokens=34_567, money=0.0123)],
    sessions=[Spent(name=f"s{number}", answers=1, tokens=100 - number, money=0) for number in range(30)],
    budgets=[
        BudgetUsed(budget="day", of="money", limit=1.0, used=0.0123, resets_at="2026-11-24T00:00:00Z"),
        BudgetUsed(budget="session", name="s1", of="tokens", limit=50, used=99, resets_at=None),
    ],
)


def test_people_see_who_used_what_and_what_is_left(terminal: Terminal) -> None:
    terminal.remote.used = [DAY]
    ran = terminal("usage")
    assert ran.code == 0
    assert "2026-11-23 (UTC), as of " in ran.out
    assert "12 answers, 34,567 tokens, $0.0123" in ran.out
    rows = [line.split() for line in ran.out.splitlines()]
    assert ["token", "alice", "12", "34,567", "$0.0123"] in rows
    assert ["day", "money", "$0.0123", "$1.00", "$0.9877", "2026-11-24T00:00:00Z"] in rows
    assert ["session", "s1", "tokens", "99", "50", "0", "never"] in rows
    assert not any("s15" in row for row in rows), "a list is bounded for people"


def test_programs_get_everything(terminal: Terminal) -> None:
    terminal.remote.used = [DAY]
    assert terminal("usage", "--json").document["days"][0] == DAY.model_dump(mode="json")


def test_when_nobody_was_asked_that_is_said(terminal: Terminal) -> None:
    assert "no model was asked in the last 7 days" in terminal("usage", "--days", "7").out


def test_over_budget_says_what_to_look_at(terminal: Terminal) -> None:
    message = "the budget of 2026-11-23 has 10 tokens, of which 0 tokens are left"
    terminal.remote.answers["vx11.madre.list_actors"] = Failure("over_budget", message, limit=10, used=10, resets_at="x")
    ran = terminal("status")
    assert ran.code == 75
    assert message in ran.err
    assert "vx11 usage" in ran.err
    assert "resets_at" not in ran.err
