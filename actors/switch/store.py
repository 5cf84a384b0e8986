"""What switch keeps in `<home>/switch/switch.db`, encrypted: bills and their totals, and documents that others give it."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from actors.switch.paying.budget import Account, Used, day_of
from actors.switch.paying.ledger import Payer, State
from bus.settings import Settings
from schemas.errors import Failure

if TYPE_CHECKING:
    from bus.vault import Vault

log = logging.getLogger("vx11.switch.store")

SCHEMA = """
CREATE TABLE IF NOT EXISTS bill (
    number INTEGER PRIMARY KEY, day TEXT NOT NULL, at REAL NOT NULL, holder TEXT NOT NULL, session TEXT NOT NULL,
    provider TEXT NOT NULL, model TEXT NOT NULL, reserved_tokens INTEGER NOT NULL, reserved_money INTEGER NOT NULL,
    tokens INTEGER NOT NULL CHECK (tokens >= 0), money INTEGER NOT NULL CHECK (money >= 0), state TEXT NOT NULL,
    CHECK (reserved_tokens >= tokens AND reserved_money >= money)
);
CREATE INDEX IF NOT EXISTS bill_open ON bill (number) WHERE state = 'open';
CREATE TABLE IF NOT EXISTS total (
    kind TEXT NOT NULL, day TEXT NOT NULL, name TEXT NOT NULL, at REAL NOT NULL, answers INTEGER NOT NULL,
    tokens INTEGER NOT NULL CHECK (tokens >= 0), money INTEGER NOT NULL CHECK (money >= 0),
    PRIMARY KEY (kind, day, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kept (
    kind TEXT NOT NULL, name TEXT NOT NULL, at REAL NOT NULL, document TEXT NOT NULL, PRIMARY KEY (kind, name)
) WITHOUT ROWID;
"""
"""`bill.tokens`, `bill.money`: as billed, which is as reserved while it is open. `total`: the sum of its bills. `day` is empty
in what is counted over all days."""
DAYS = 400
"""With totals. Counted, not reckoned from the clock: one that jumps ahead must not make all of them old."""
BILL_DAYS = 30
BILLS = 100_000
"""About 15 MB."""
NAMES_A_DAY = 256
"""Of each kind. Who calls on the bus says himself who he is; those that are more share one account."""
OTHERS = "(others)"
SESSIONS = 10_000
"""With a budget over all days; the one that was quiet longest is forgotten."""
SESSIONS_AT_ONCE = 500
"""Forgotten at a time."""
BILLS_AT_ONCE = 200
TIDY_EVERY = 100
"""Bills."""
AGAIN_S = 1.0
"""A file that could not be opened is looked at again after that."""
OTHER_PROCESS_S = 3.0
"""For the one that had the file before, and is just leaving."""
LOOK_S = 0.05
KEPT = {"circuit": 200, "model": 1_000, "pin": 10_000, "budgets": 1}
"""Kinds of documents, and how many of each are kept; the oldest go, a twentieth at a time."""

KeptKind = Literal["circuit", "model", "pin", "budgets"]


class Total(NamedTuple):
    """`name`: of a holder, a session, or `provider/model`. `money`: micro-dollars."""

    name: str
    answers: int
    tokens: int
    money: int


class Store:
    """One process has the file. What is wrong with it is told to whoever asks, and it is looked at again.

    A commit survives the end of the process however it ends; when the power fails, the last moment may be missing.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._clock = settings, clock
        self._vault: Vault | None = None
        self._trouble: Failure | None = None
        self._look_at = 0.0
        self._accounts: dict[int, list[Account]] = {}
        """Of the bills that are open."""
        self._made = 0
        self.changed: set[str] = set()
        """Days whose totals have changed since they were told."""
        self.news = asyncio.Event()

    async def open(self) -> None:
        """Open the file, or remember what is in the way. Waits for another process that is leaving."""
        until = time.monotonic() + OTHER_PROCESS_S
        while True:
            self._look_at = 0.0
            try:
                _ = self.vault
            except Failure as failure:
                if failure.code == "conflict" and time.monotonic() < until:
                    await asyncio.sleep(LOOK_S)
                    continue
                log.error("%s", failure.message)
            return

    @property
    def vault(self) -> Vault:
        """Raises Failure with the reason why there is none."""
        if self._vault is None:
            if self._trouble and time.monotonic() < self._look_at:
                raise self._trouble
            try:
                self._vault = self._opened()
            except Failure as failure:
                told = f"nobody can write down what an answer costs, so no model is asked: {failure.message}"
                self._trouble, self._look_at = Failure(failure.code, told), time.monotonic() + AGAIN_S
                raise self._trouble from None
            self._trouble = None
        return self._vault

    def shut(self) -> None:
        """For good: what comes later is refused."""
        self._trouble, self._look_at = Failure("unavailable", "switch is going to sleep"), math.inf
        if self._vault:
            self._vault.close()
            self._vault = None

    def used(self, accounts: list[Account]) -> list[Used]:
        return [self._used(self._account(one)) for one in accounts]

    def reserve(self, day: str, payer: Payer, provider: str, model: str, reserved: Used) -> int:
        vault, now = self.vault, self._clock()
        accounts = [self._account(one) for one in _accounts(day, payer, f"{provider}/{model}")]
        with vault.transaction():
            vault.do(
                "INSERT INTO bill VALUES (NULL, ?, ?, ?, ?, ?, ?, ?7, ?8, ?7, ?8, 'open')",
                day, now, payer.holder, payer.session_id, provider, model, *reserved,
            )  # fmt: skip
            number = int(vault.rows("SELECT last_insert_rowid()")[0][0])
            vault.do_many(
                "INSERT INTO total VALUES (?, ?, ?, ?, 1, ?, ?) ON CONFLICT DO UPDATE SET "
                "at = excluded.at, answers = answers + 1, tokens = tokens + excluded.tokens, money = money + excluded.money",
                [(one.kind, one.day, one.name, now, *reserved) for one in accounts],
            )
            if self._made % TIDY_EVERY == 0:
                self._tidy(vault)
        self._made += 1
        self._accounts[number] = accounts
        self._changed(day)
        return number

    def close(self, number: int, billed: Used, state: State) -> None:
        vault, accounts = self.vault, self._accounts.pop(number)
        with vault.transaction():
            before = vault.row("SELECT tokens, money FROM bill WHERE number = ?", number)
            more = (billed.tokens - before[0], billed.money - before[1]) if before else (0, 0)
            vault.do(
                "UPDATE bill SET reserved_tokens = max(reserved_tokens, ?1), reserved_money = max(reserved_money, ?2), "
                "tokens = ?1, money = ?2, state = ?3 WHERE number = ?4",
                *billed, state, number,
            )  # fmt: skip
            vault.do_many(
                "UPDATE total SET answers = answers - ?, tokens = tokens + ?, money = money + ? "
                "WHERE kind = ? AND day = ? AND name = ?",
                [(state == "void", *more, one.kind, one.day, one.name) for one in accounts],
            )
            if state == "void":  # a name that nobody knows takes no place among those that are told apart
                names = [(one.kind, one.day, one.name) for one in accounts]
                vault.do_many("DELETE FROM total WHERE kind = ? AND day = ? AND name = ? AND answers = 0", names)
        self._changed(next(one.day for one in accounts if one.day))

    def totals(self, kind: str, day: str, most: int = NAMES_A_DAY) -> list[Total]:
        """Those who used most come first. `day`: empty for what is counted over all days."""
        sql = "SELECT name, answers, tokens, money FROM total WHERE kind = ? AND day = ? ORDER BY tokens DESC, name LIMIT ?"
        return [Total(*row) for row in self.vault.rows(sql, kind, day, most)]

    def settled(self, most: int) -> list[Total]:
        """Models over all days, without what is only reserved: these numbers never fall."""
        sql = (
            "SELECT t.name, t.answers - ifnull(o.answers, 0), t.tokens - ifnull(o.tokens, 0), t.money - ifnull(o.money, 0) "
            "FROM total t LEFT JOIN (SELECT provider || '/' || model AS name, count(*) AS answers, sum(tokens) AS tokens, "
            "sum(money) AS money FROM bill WHERE state = 'open' GROUP BY 1) o ON o.name = t.name "
            "WHERE t.kind = 'model' AND t.day = '' ORDER BY t.tokens DESC, t.name LIMIT ?"
        )
        return [Total(*row) for row in self.vault.rows(sql, most)]

    def days(self, most: int) -> list[str]:
        """With a bill, the newest first."""
        rows = self.vault.rows("SELECT day FROM total WHERE kind = 'day' ORDER BY day DESC LIMIT ?", most)
        return [day for (day,) in rows]

    def changes(self) -> set[str]:
        """The days that have changed, which are forgotten by that."""
        changed, self.changed = self.changed, set()
        self.news.clear()
        return changed

    def keep(self, kind: KeptKind, documents: dict[str, Any]) -> None:
        """Write documents by their names. What cannot be kept is said in the log: no answer fails by that."""
        now = self._clock()
        try:
            with self.vault.transaction():
                rows = [(kind, name, now, json.dumps(document)) for name, document in documents.items()]
                self.vault.do_many("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?)", rows)
                over = self.vault.rows("SELECT count(*) FROM kept WHERE kind = ?", kind)[0][0] - KEPT[kind]
                if over > 0:
                    self.vault.do(
                        "DELETE FROM kept WHERE kind = ?1 AND name IN "
                        "(SELECT name FROM kept WHERE kind = ?1 ORDER BY at LIMIT ?2)",
                        kind, over + KEPT[kind] // 20,
                    )  # fmt: skip
        except Failure as failure:
            log.warning("what was learned is not kept: %s", failure)

    def kept(self, kind: KeptKind) -> dict[str, Any]:
        """Documents by their names, the oldest first. Raises Failure."""
        rows = self.vault.rows("SELECT name, document FROM kept WHERE kind = ? ORDER BY at", kind)
        return {name: json.loads(document) for name, document in rows}

    def forget(self, kind: KeptKind) -> None:
        """All of a kind. Raises Failure."""
        self.vault.do("DELETE FROM kept WHERE kind = ?", kind)

    def _opened(self) -> Vault:
        from bus.vault import key_of, open_vault  # the library is for who is awake

        folder = self._settings.home / "switch"
        path = folder / "switch.db"
        vault = open_vault(path, key_of(self._settings, folder / "switch.key", path), SCHEMA, synchronous="NORMAL")
        try:
            lost = vault.do("UPDATE bill SET state = 'lost' WHERE state = 'open'")
            for (day,) in vault.rows("SELECT day FROM total WHERE kind = 'day' ORDER BY day DESC LIMIT 1"):
                self._changed(day)  # its last moment may not have been told
        except Failure:
            vault.close()  # or else it would be in the way of the next try
            raise
        if lost:
            log.warning("%d answers were not settled when switch ended; they are billed as they were reserved", lost)
        return vault

    def _changed(self, day: str) -> None:
        self.changed.add(day)
        self.news.set()

    def _used(self, account: Account) -> Used:
        sql = "SELECT tokens, money FROM total WHERE kind = ? AND day = ? AND name = ?"
        row = self.vault.row(sql, account.kind, account.day, account.name)
        return Used(*row) if row else Used()

    def _account(self, account: Account) -> Account:
        """The account itself, or that of all others when so many are there already."""
        most = SESSIONS + SESSIONS_AT_ONCE if (account.kind, account.day) == ("session", "") else NAMES_A_DAY
        where = (account.kind, account.day)
        if self.vault.row("SELECT 1 FROM total WHERE kind = ? AND day = ? AND name = ?", *where, account.name):
            return account
        ((there,),) = self.vault.rows("SELECT count(*) FROM total WHERE kind = ? AND day = ?", *where)
        return account if there < most else account._replace(name=OTHERS)

    def _tidy(self, vault: Vault) -> None:
        """A little at a time, so that nobody waits for it."""
        newest = day_of(self._clock())
        ((last,),) = vault.rows("SELECT max(number) FROM bill")
        days = self.days(max(DAYS, BILL_DAYS) + 1)
        bills_from = days[BILL_DAYS - 1] if len(days) > BILL_DAYS else ""
        vault.do(
            "DELETE FROM bill WHERE number IN "
            "(SELECT number FROM bill WHERE (day < ? OR number <= ?) AND state != 'open' ORDER BY number LIMIT ?)",
            bills_from, last - BILLS, BILLS_AT_ONCE,
        )  # fmt: skip
        if len(days) > DAYS and days[DAYS] != newest:
            vault.do("DELETE FROM total WHERE kind IN ('day', 'holder', 'session', 'model') AND day = ?", days[DAYS])
        ((sessions,),) = vault.rows("SELECT count(*) FROM total WHERE kind = 'session' AND day = ''")
        if sessions > SESSIONS:
            vault.do(
                "DELETE FROM total WHERE kind = 'session' AND day = '' AND name IN "
                "(SELECT name FROM total WHERE kind = 'session' AND day = '' ORDER BY at LIMIT ?)",
                SESSIONS_AT_ONCE,
            )


def _accounts(day: str, payer: Payer, model: str) -> Iterable[Account]:
    """All that a bill is counted in."""
    yield Account(day, "day")
    yield Account(day, "holder", payer.holder)
    for each in (day, ""):
        yield Account(each, "model", model)
        if payer.session_id:
            yield Account(each, "session", payer.session_id)
