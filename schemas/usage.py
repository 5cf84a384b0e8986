"""What the language models have cost: one document a day, written by switch into the bucket VX11_USAGE, read by anybody."""

from __future__ import annotations

from typing import Literal

from schemas.message import Message


class Spent(Message):
    """`tokens`, `money` (US dollars): as billed, so with what is reserved for answers that are under way, but in `ever`."""

    name: str = ""
    """Of a token holder, a session, or `provider/model`; `(others)`: all that were too many to be told apart."""
    answers: int
    tokens: int
    money: float


class BudgetUsed(Message):
    """One budget as it stands. `limit`, `used`: tokens, or US dollars, by `of`."""

    budget: Literal["day", "holder", "session"]
    name: str = ""
    of: Literal["tokens", "money"]
    limit: float
    used: float
    resets_at: str | None
    """When it is new; None: never."""


class UsageDay(Message):
    """One day in UTC, as it was at `observed_at`. Lists hold those who used most, and are bounded."""

    day: str
    observed_at: str
    total: Spent
    holders: list[Spent] = []
    models: list[Spent] = []
    sessions: list[Spent] = []
    budgets: list[BudgetUsed] = []
    ever: list[Spent] = []
    """Models over all days, once their answers have ended: counters, which never fall."""


class Usage(Message):
    """`days`: the newest first; a day on which no model was asked is not among them."""

    observed_at: str
    days: list[UsageDay]
