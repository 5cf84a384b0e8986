"""What the language models have cost: for the operator, and as numbers."""

from __future__ import annotations

import time

from pydantic import BaseModel, Field

from gateway.http.body import query_of
from gateway.http.exchange import Exchange
from gateway.http.metrics import Family, Sample
from gateway.usage import DAYS_MOST, today
from schemas.usage import Spent, Usage, UsageDay

ANSWERS, TOKENS, MONEY = "vx11_model_answers_total", "vx11_model_tokens_total", "vx11_model_money_usd_total"
LIMIT, USED = "vx11_model_budget_limit", "vx11_model_budget_used"


class UsageQuery(BaseModel):
    days: int = Field(default=1, ge=1, le=DAYS_MOST)
    """Today is one of them."""


async def usage(x: Exchange) -> Usage:
    return await x.parts.costs.days(query_of(UsageQuery, x.request).days)


def families(last: UsageDay | None) -> list[Family]:
    """As told last; a budget of an earlier day is new by now. Sessions are left out, they are too many."""
    ever = last.ever if last else []
    budgets = [one for one in last.budgets if one.budget != "session"] if last else []
    new = last is None or last.day != today(time.time())
    labels = [{"budget": one.budget, "holder": one.name, "of": one.of} for one in budgets]
    return [
        Family(ANSWERS, "counter", "Answers of language models.", [_sample(ANSWERS, one, one.answers) for one in ever]),
        Family(TOKENS, "counter", "Tokens that were billed.", [_sample(TOKENS, one, one.tokens) for one in ever]),
        Family(MONEY, "counter", "US dollars that were billed.", [_sample(MONEY, one, one.money) for one in ever]),
        Family(
            LIMIT,
            "gauge",
            "What may be spent today: tokens, or US dollars.",
            [Sample(LIMIT, one.limit, label) for one, label in zip(budgets, labels, strict=True)],
        ),
        Family(
            USED,
            "gauge",
            "What of it is spent or reserved.",
            [Sample(USED, 0.0 if new else one.used, label) for one, label in zip(budgets, labels, strict=True)],
        ),
    ]


def _sample(name: str, one: Spent, value: float) -> Sample:
    provider, _, model = one.name.partition("/")
    return Sample(name, value, {"provider": provider, "model": model})
