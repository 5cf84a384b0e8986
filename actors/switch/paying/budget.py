"""Budgets: who may spend how many tokens and how much money until when. Pure; money is counted in whole micro-dollars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, NamedTuple

from actors.switch.choosing.window import kept_for_answer
from actors.switch.configured import lines
from actors.switch.configured.lines import Misconfigured
from actors.switch.configured.traits import Traits
from schemas.errors import Failure
from schemas.switch import Chat

TOKENS_MOST = 1_000_000_000_000
MONEY_MOST = 1_000_000.0
"""US dollars; more is a slip of the decimal point."""
MICRO = 1_000_000
"""Micro-dollars in a dollar, and also tokens that a price is for."""
ANSWER_TOKENS = 4_096
"""Of an answer, reserved when nobody has said how long it may become."""
WINDOW_BYTES = 2
"""Of a prompt for a token, when the rest of a window is reckoned: real texts have three and more."""
ANSWER_LEAST = 16
"""Tokens; an answer that would be cut off before it is not begun."""
TURN_TOKENS = 16
"""That a chat template puts around a turn."""
PART_TOKENS = 2_048
"""Of a picture or a sound, which may be given by its address only."""
PROMPT_FIELDS = {"messages", "tools", "tool_choice", "response_format"}
SCOPES = ("day", "session", "holder")

Kind = Literal["day", "session", "holder", "model"]
Unit = Literal["tokens", "money"]


@dataclass(frozen=True)
class Limit:
    """What may be spent; None: any amount. `money`: micro-dollars."""

    tokens: int | None = None
    money: int | None = None


@dataclass(frozen=True)
class Budgets:
    """`day`: of all together. `session`: of each, for as long as it lives. `holder`: of each a day, if `holders` has no other."""

    day: Limit = Limit()
    session: Limit = Limit()
    holder: Limit = Limit()
    holders: Mapping[str, Limit] = field(default_factory=dict)


class Account(NamedTuple):
    """What is counted together. `day`: as `2026-11-23`, in UTC; empty for a session, whose budget is never new."""

    day: str
    kind: Kind
    name: str = ""


class Used(NamedTuple):
    """Settled and still reserved, together. `money`: micro-dollars."""

    tokens: int = 0
    money: int = 0


class Line(NamedTuple):
    """One budget as it stands."""

    account: Account
    limit: Limit
    used: Used


def parse(table: Mapping[str, Any]) -> Budgets:
    """The table `[budgets]`. Raises Misconfigured that says which line is wrong."""
    lines.check_known(table, (*SCOPES, "holders"))
    day, session, holder = (_limit(table.get(scope, {}), scope) for scope in SCOPES)
    holders = table.get("holders", {})
    if not isinstance(holders, dict):
        raise Misconfigured("holders must be tables; write [budgets.holders.NAME] and its lines below it")
    return Budgets(day, session, holder, {name: _limit(one, f"holders.{name}") for name, one in holders.items()})


def prompt_bound(request: Chat) -> int:
    """Tokens that the prompt has at most: one for each byte of it, some for each turn, more for what is no text."""
    asked = request.model_dump_json(include=PROMPT_FIELDS, exclude_none=True)
    lists = [turn.content for turn in request.messages if isinstance(turn.content, list)]
    others: int = sum(part.get("type") != "text" for parts in lists for part in parts)
    return len(asked.encode()) + TURN_TOKENS * len(request.messages) + PART_TOKENS * others


def accounts(holder: str, session_id: str, day: str) -> list[Account]:
    """All that a question is counted in."""
    of_session = [Account("", "session", session_id)] if session_id else []
    return [Account(day, "day"), Account(day, "holder", holder), *of_session]


def limit(budgets: Budgets, account: Account) -> Limit:
    if account.kind == "holder":
        return budgets.holders.get(account.name, budgets.holder)
    return budgets.day if account.kind == "day" else budgets.session


def day_of(now: float) -> str:
    """`now`: seconds since the epoch."""
    return datetime.fromtimestamp(now, UTC).date().isoformat()


def cost(traits: Traits, prompt: int, answer: int) -> int:
    """Micro-dollars, rounded up. A price in dollars for a million tokens is one in micro-dollars for a token."""
    return -(-(prompt * round(traits.price_in * MICRO) + answer * round(traits.price_out * MICRO)) // MICRO)


def usual(traits: Traits, prompt: int) -> int:
    """Tokens of an answer of which nobody has said how long it may become. `prompt`: its bound, even if that is no window's.

    It must fit beside the prompt: there are servers that refuse a question with more than that.
    """
    if traits.context is None:
        return ANSWER_TOKENS
    return min(ANSWER_TOKENS, max(traits.context - prompt // WINDOW_BYTES, kept_for_answer(traits.context)))


def bounds(limit: Limit, traits: Traits) -> bool:
    """Whether the length of this model's answers counts against the budget."""
    return limit.tokens is not None or (limit.money is not None and traits.price_out > 0)


def granted(budgets: Iterable[Line], traits: Traits, prompt: int, answer: int | None, most: int = ANSWER_TOKENS) -> int:
    """The tokens that the answer may have: `answer`, or as many as are left, up to `most`, when nobody has said.

    Raises Failure `over_budget` with the first budget that does not allow it.
    """
    lines_ = list(budgets)
    wanted = answer if answer is not None else min([most, *(_room(line, traits, prompt) for line in lines_)])
    asked = wanted if answer is not None else max(wanted, ANSWER_LEAST)
    for line in lines_:
        _check(line, "tokens", prompt + asked)
        _check(line, "money", cost(traits, prompt, asked))
    return asked


def resets_at(account: Account) -> str | None:
    """When the budget is new; None: never."""
    return f"{(date.fromisoformat(account.day) + timedelta(days=1)).isoformat()}T00:00:00Z" if account.day else None


def _room(line: Line, traits: Traits, prompt: int) -> int:
    """Tokens of answer that this budget has left; less than none when already the prompt is too much."""
    left = []
    if line.limit.tokens is not None:
        left.append(line.limit.tokens - line.used.tokens - prompt)
    price = round(traits.price_out * MICRO)
    if line.limit.money is not None and price:
        left.append(((line.limit.money - line.used.money - cost(traits, prompt, 0)) * MICRO) // price)
    return min(left, default=ANSWER_TOKENS)


def _check(line: Line, of: Unit, need: int) -> None:
    most, used = getattr(line.limit, of), getattr(line.used, of)
    if most is None or not need or used + need <= most:
        return
    account, new = line.account, resets_at(line.account)
    left = _shown(max(0, most - used), of)
    raise Failure(
        "over_budget",
        f"{_whose(account)} has {_shown(most, of)}, of which {left} are left; this needs up to {_shown(need, of)}; "
        + _remedy(most, need, new),
        budget=account.kind,
        of=of,
        limit=in_words(most, of),
        used=in_words(used, of),
        needed=in_words(need, of),
        resets_at=new,
    )


def _remedy(most: int, need: int, new: str | None) -> str:
    """Waiting for a new budget helps nobody whose question does not fit into a whole one."""
    if need > most:
        return "that is more than all of it: ask for less, or raise it in providers.toml"
    return f"it is new at {new}" if new else "it is never new, so begin another session"


def _whose(account: Account) -> str:
    if account.kind == "day":
        return f"the budget of {account.day}"
    if account.kind == "holder":
        return f"the budget of {account.name or 'nobody'} for {account.day}"
    return "the budget of this session"


def in_words(value: int, of: Unit) -> int | float:
    """As people write it: money in dollars."""
    return value if of == "tokens" else value / MICRO


def _shown(value: int, of: Unit) -> str:
    return f"{value:,} tokens" if of == "tokens" else f"{value / MICRO:,.6g} USD"


def _limit(table: Any, where: str) -> Limit:
    if not isinstance(table, dict):
        raise Misconfigured(f"{where} must be a table; write for instance  {where} = {{ tokens = 200000, money = 1.50 }}")
    try:
        lines.check_known(table, ("tokens", "money"))
        money = lines.amount(table, "money", 0.0, MONEY_MOST) if "money" in table else None
        return Limit(lines.whole(table, "tokens", 0, TOKENS_MOST), None if money is None else round(money * MICRO))
    except Misconfigured as wrong:
        raise Misconfigured(f"{where}: {wrong}") from None
