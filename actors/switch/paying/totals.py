"""What was used of each account: closed bills are summed up in the file, those that are open are held in memory beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from actors.switch.paying.budget import Account, Used
from actors.switch.paying.ledger import Payer

if TYPE_CHECKING:
    from bus.vault import Vault

SCHEMA = """
CREATE TABLE IF NOT EXISTS total (
    kind TEXT NOT NULL, day TEXT NOT NULL, name TEXT NOT NULL, at REAL NOT NULL, answers INTEGER NOT NULL,
    tokens INTEGER NOT NULL CHECK (tokens >= 0), money INTEGER NOT NULL CHECK (money >= 0),
    PRIMARY KEY (kind, day, name)
) WITHOUT ROWID;
"""
"""The sum of closed bills. `day` is empty in what is counted over all days."""
NAMES_A_DAY = 256
"""Of each kind. Who calls on the bus says himself who he is; those that are more share one account."""
OTHERS = "(others)"
SESSIONS = 10_000
"""With a budget over all days; the one that was quiet longest is forgotten."""
SESSIONS_AT_ONCE = 500
"""Forgotten at a time."""
REMEMBERED = 2_000
"""Rows of the file whose copy is kept in memory."""


class Sum(NamedTuple):
    """`money`: micro-dollars."""

    answers: int = 0
    tokens: int = 0
    money: int = 0

    def plus(self, other: Sum) -> Sum:
        return Sum(self.answers + other.answers, self.tokens + other.tokens, self.money + other.money)

    def minus(self, other: Sum) -> Sum:
        return Sum(self.answers - other.answers, self.tokens - other.tokens, self.money - other.money)


NOTHING = Sum()


class Total(NamedTuple):
    """`name`: of a holder, a session, or `provider/model`. `money`: micro-dollars."""

    name: str
    answers: int
    tokens: int
    money: int


class Totals:
    """This process alone has the file, so a copy of a row is good until it is written. All methods may raise Failure."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._rows: dict[Account, Sum | None] = {}
        """As they are in the file; None: there is none."""
        self._names: dict[tuple[str, str], int] = {}
        """How many rows a kind has on a day, without that of all others."""
        self._open: dict[Account, Sum] = {}

    def used(self, account: Account) -> Used:
        """By closed and by open bills."""
        return Used(*self._both(account)[1:])

    def account(self, wanted: Account) -> Account:
        """The account itself, or that of all others when so many are there already."""
        if len(self._rows) > REMEMBERED:
            self._look_anew()
        if wanted in self._open or self._row(wanted):
            return wanted
        most = SESSIONS + SESSIONS_AT_ONCE if (wanted.kind, wanted.day) == ("session", "") else NAMES_A_DAY
        return wanted if self._there(wanted) < most else wanted._replace(name=OTHERS)

    def hold(self, accounts: Iterable[Account], reserved: Used) -> None:
        """A bill is open."""
        for one in accounts:
            self._open[one] = self._open.get(one, NOTHING).plus(Sum(1, *reserved))

    def let_go(self, accounts: Iterable[Account], reserved: Used) -> None:
        """It is open no more."""
        for one in accounts:
            self._open[one] = self._open[one].minus(Sum(1, *reserved))
            if not self._open[one].answers:
                del self._open[one]

    def sums(self, accounts: Iterable[Account], billed: Used) -> dict[Account, Sum]:
        """As the rows are to be with one more closed bill."""
        return {one: (self._row(one) or NOTHING).plus(Sum(1, *billed)) for one in accounts}

    def write(self, sums: Mapping[Account, Sum], now: float) -> None:
        """For a transaction; `written` is told when that is on disk."""
        rows = [(one.kind, one.day, one.name, now, *new) for one, new in sums.items()]
        self._vault.do_many("INSERT OR REPLACE INTO total VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def written(self, sums: Mapping[Account, Sum]) -> None:
        for one in sums:
            if self._rows[one] is None and one.name != OTHERS and (one.kind, one.day) in self._names:
                self._names[one.kind, one.day] += 1
        self._rows.update(sums)

    def listed(self, kind: str, day: str, most: int = NAMES_A_DAY) -> list[Total]:
        """Those who used most come first, with what is only reserved. `day`: empty for what is counted over all days."""
        found = {one.name: one for one in self.settled(kind, day, most)}
        for one in self._open:
            if (one.kind, one.day) == (kind, day):
                found[one.name] = Total(one.name, *self._both(one))
        return sorted(found.values(), key=lambda one: (-one.tokens, one.name))[:most]

    def settled(self, kind: str, day: str, most: int = NAMES_A_DAY) -> list[Total]:
        """The same without what is only reserved: these numbers never fall."""
        sql = "SELECT name, answers, tokens, money FROM total WHERE kind = ? AND day = ? ORDER BY tokens DESC, name LIMIT ?"
        return [Total(*row) for row in self._vault.rows(sql, kind, day, most)]

    def days(self, most: int) -> list[str]:
        """With a bill, the newest first."""
        rows = self._vault.rows("SELECT day FROM total WHERE kind = 'day' ORDER BY day DESC LIMIT ?", most)
        days = {day for (day,) in rows} | {one.day for one in self._open if one.kind == "day"}
        return sorted(days, reverse=True)[:most]

    def forget(self, day: str) -> None:
        """A day; what is counted over all days stays."""
        self._vault.do("DELETE FROM total WHERE kind IN ('day', 'holder', 'session', 'model') AND day = ?", day)
        self._look_anew()

    def forget_sessions(self) -> None:
        """Those that were quiet longest, when there are too many; never one that is being answered."""
        vault = self._vault
        ((sessions,),) = vault.rows("SELECT count(*) FROM total WHERE kind = 'session' AND day = ''")
        if sessions > SESSIONS:
            kept = json.dumps([one.name for one in self._open if (one.kind, one.day) == ("session", "")])
            vault.do(
                "DELETE FROM total WHERE kind = 'session' AND day = '' AND name IN (SELECT name FROM total WHERE "
                "kind = 'session' AND day = '' AND name NOT IN (SELECT value FROM json_each(?)) ORDER BY at LIMIT ?)",
                kept, SESSIONS_AT_ONCE,
            )  # fmt: skip
            self._look_anew()

    def _both(self, account: Account) -> Sum:
        return (self._row(account) or NOTHING).plus(self._open.get(account, NOTHING))

    def _row(self, account: Account) -> Sum | None:
        if account not in self._rows:
            sql = "SELECT answers, tokens, money FROM total WHERE kind = ? AND day = ? AND name = ?"
            row = self._vault.row(sql, account.kind, account.day, account.name)
            self._rows[account] = Sum(*row) if row else None
        return self._rows[account]

    def _there(self, account: Account) -> int:
        """How many accounts are told apart where this one would be."""
        kind, day = where = account.kind, account.day
        if where not in self._names:
            sql = "SELECT count(*) FROM total WHERE kind = ? AND day = ? AND name != ?"
            self._names[where] = self._vault.rows(sql, kind, day, OTHERS)[0][0]
        others = account._replace(name=OTHERS)
        mine = [one for one in self._open if (one.kind, one.day) == where and one != others]
        return self._names[where] + sum(not self._row(one) for one in mine)

    def _look_anew(self) -> None:
        self._rows.clear()
        self._names.clear()


def accounts(day: str, payer: Payer, model: str) -> Iterable[Account]:
    """All that a bill is counted in. `model`: `provider/model`."""
    yield Account(day, "day")
    yield Account(day, "holder", payer.holder)
    for each in (day, ""):
        yield Account(each, "model", model)
        if payer.session_id:
            yield Account(each, "session", payer.session_id)
