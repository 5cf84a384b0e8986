"""`usage`: what the language models have cost, who used them, and what is left. Wakes nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.desk import AsJson, Desk, desk_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from schemas.usage import BudgetUsed, Spent, Usage, UsageDay

SHOWN = 10
"""Of each list; `--json` has all that is kept."""
Days = Annotated[int, typer.Option(min=1, max=400, help="So many days back, today being one; days are those of UTC.")]


def usage(ctx: typer.Context, days: Days = 1, json: AsJson = False) -> None:
    """Show tokens and money by token, model and session, and the budgets."""
    desk = desk_of(ctx, json=json)
    found = desk.run(lambda remote: remote.usage(days))
    desk.screen.data(found.model_dump(mode="json"), lambda: _draw(desk, found, days))


def _draw(desk: Desk, found: Usage, days: int) -> None:
    if not found.days:
        desk.screen.line("no model was asked today" if days == 1 else f"no model was asked in the last {days} days")
    for day in found.days:
        _draw_day(desk, day)


def _draw_day(desk: Desk, day: UsageDay) -> None:
    from gateway.cli.amount import age

    screen = desk.screen
    screen.line(f"{day.day} (UTC), as of {age(day.observed_at)} ago: {_words(day.total)}")
    kinds = (("token", day.holders), ("model", day.models), ("session", day.sessions))
    rows = [row for kind, spent in kinds for row in _rows(kind, spent)]
    screen.table(("by", "name", ">answers", ">tokens", ">money"), rows)
    if day.budgets:
        screen.table(("budget", "of", ">used", ">limit", ">left", "new at"), [_budget(one) for one in day.budgets])


def _rows(kind: str, spent: list[Spent]) -> Iterable[tuple[str, ...]]:
    for one in spent[:SHOWN]:
        yield kind, one.name or "nobody", f"{one.answers:,}", f"{one.tokens:,}", _money(one.money)


def _budget(one: BudgetUsed) -> tuple[str, ...]:
    shown = (lambda value: f"{value:,.0f}") if one.of == "tokens" else _money
    left = max(0.0, one.limit - one.used)
    name = f"{one.budget} {one.name}".rstrip()
    return name, one.of, shown(one.used), shown(one.limit), shown(left), one.resets_at or "never"


def _words(total: Spent) -> str:
    answers = f"{total.answers:,} answer{'' if total.answers == 1 else 's'}"
    return f"{answers}, {total.tokens:,} tokens, {_money(total.money)}"


def _money(value: float) -> str:
    """Cents are not enough for what a small model costs."""
    return f"${value:,.2f}" if value >= 1 or round(value, 2) == value else f"${value:.6f}".rstrip("0")
