"""What the models have cost, at the door: read where switch has written it, so nobody wakes for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.http.costs import families
from gateway.usage import Costs, today, usage_of
from schemas.errors import Failure
from schemas.usage import BudgetUsed, Spent, UsageDay

NOON = 1_795_435_200.0
SPENT = Spent(name="cloud/big/one", answers=3, tokens=1_500, money=0.25)
OF_ALICE = BudgetUsed(budget="holder", name="alice", of="money", limit=1.0, used=0.75, resets_at="2026-11-24T00:00:00Z")
OF_SESSION = BudgetUsed(budget="session", name="s1", of="tokens", limit=100, used=5, resets_at=None)


def day_of(day: str) -> UsageDay:
    return UsageDay(
        day=day, observed_at=f"{day}T12:00:00.000Z", total=SPENT, ever=[SPENT], models=[SPENT], budgets=[OF_ALICE, OF_SESSION]
    )


class Kept:
    """A bucket in memory that counts how often it is read."""

    def __init__(self, *days: str) -> None:
        self.documents: dict[str, dict[str, Any]] = {day: day_of(day).model_dump() for day in days}
        self.read_last = 0
        self.fault: Failure | None = None

    async def read(self, keys: list[str]) -> dict[str, dict[str, Any]]:
        if self.fault:
            raise self.fault
        return {key: self.documents[key] for key in keys if key in self.documents}

    async def last(self) -> dict[str, Any] | None:
        self.read_last += 1
        if self.fault:
            raise self.fault
        return self.documents[max(self.documents)] if self.documents else None


def values(last: UsageDay | None) -> dict[str, float]:
    return {f"{one.name}{sorted(one.labels.items())}": one.value for family in families(last) for one in family.samples}


async def test_days_are_counted_back_from_today_and_the_newest_comes_first() -> None:
    bucket = Kept("2026-10-01", "2026-11-21", "2026-11-22", "2026-11-23")
    found = await usage_of(bucket, 2, NOON)
    assert [one.day for one in found.days] == ["2026-11-23", "2026-11-22"]
    assert len((await usage_of(bucket, 400, NOON)).days) == 4


async def test_a_document_of_a_stranger_is_no_usage() -> None:
    """Every actor may write into the bucket."""
    bucket = Kept("2026-11-23")
    bucket.documents["2026-11-23"]["total"] = {"answers": "many"}
    with pytest.raises(Failure, match="VX11_USAGE"):
        await usage_of(bucket, 1, NOON)
    assert await Costs(bucket).last() is None


async def test_the_last_day_is_read_once_a_second_at_most() -> None:
    now = [0.0]
    bucket = Kept("2026-11-23")
    costs = Costs(bucket, lambda: now[0])
    for _ in range(5):
        assert (await costs.last()) == day_of("2026-11-23")
    assert bucket.read_last == 1
    now[0] = 1.5
    await costs.last()
    assert bucket.read_last == 2


async def test_numbers_that_cannot_be_read_are_left_out_and_come_back() -> None:
    now = [0.0]
    bucket = Kept("2026-11-23")
    costs = Costs(bucket, lambda: now[0])
    bucket.fault = Failure("unavailable", "no stream")
    assert await costs.last() is None
    bucket.fault, now[0] = None, 2.0
    assert await costs.last() == day_of("2026-11-23")


async def test_the_other_numbers_do_not_wait_for_these(caplog: pytest.LogCaptureFixture) -> None:
    class Silent(Kept):
        async def last(self) -> dict[str, Any] | None:
            return await asyncio.get_running_loop().create_future()

    assert await Costs(Silent()).last() is None
    assert "no answer within 0.5 s" in caplog.text


def test_a_counter_has_the_provider_and_the_model_and_a_budget_its_holder() -> None:
    import time

    found = values(day_of(today(time.time())))
    assert found["vx11_model_tokens_total[('model', 'big/one'), ('provider', 'cloud')]"] == 1_500
    assert found["vx11_model_money_usd_total[('model', 'big/one'), ('provider', 'cloud')]"] == 0.25
    assert found["vx11_model_budget_used[('budget', 'holder'), ('holder', 'alice'), ('of', 'money')]"] == 0.75
    assert found["vx11_model_budget_limit[('budget', 'holder'), ('holder', 'alice'), ('of', 'money')]"] == 1.0
    assert not any("session" in name for name in found)


def test_a_budget_of_yesterday_is_unused_today_and_counters_go_on() -> None:
    """Nobody was asked since midnight, and switch sleeps: the last document is of yesterday."""
    found = values(day_of("2026-11-22"))
    assert found["vx11_model_budget_used[('budget', 'holder'), ('holder', 'alice'), ('of', 'money')]"] == 0.0
    assert found["vx11_model_tokens_total[('model', 'big/one'), ('provider', 'cloud')]"] == 1_500


async def test_the_door_shows_the_days(link: Any) -> None:
    import time

    link.parts.costs = Costs(Kept(today(time.time())))
    reply = await link.get("/operator/api/usage?days=7")
    assert reply.status == 200
    assert reply.json["days"][0]["budgets"][0]["limit"] == 1.0
    assert link.bus.asked == []
    assert "vx11_model_tokens_total{" in (await link.get("/metrics")).text


@pytest.mark.parametrize("days", ["0", "401", "x"])
async def test_days_that_cannot_be_are_refused(link: Any, days: str) -> None:
    reply = await link.get(f"/operator/api/usage?days={days}")
    assert (reply.status, reply.json["error"]) == (400, "invalid")


async def test_without_a_token_the_costs_are_nobodys_business(link: Any) -> None:
    assert (await link.get("/operator/api/usage", token=None)).status == 401
    assert (await link.get("/operator/api/usage", token=link.new_token("chat"))).status == 403
