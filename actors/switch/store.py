"""What switch keeps in `<home>/switch/switch.db`, encrypted: bills and their totals, and documents that others give it."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from actors.switch.paying import totals as summing
from actors.switch.paying.budget import Account, Used, day_of
from actors.switch.paying.ledger import Payer, State
from actors.switch.paying.totals import Totals, accounts
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
CREATE TABLE IF NOT EXISTS kept (
    kind TEXT NOT NULL, name TEXT NOT NULL, at REAL NOT NULL, document TEXT NOT NULL, PRIMARY KEY (kind, name)
) WITHOUT ROWID;
"""
"""`bill.tokens`, `bill.money`: as billed, which is as reserved while it is open."""
DAYS = 400
"""With totals. Counted, not reckoned from the clock: one that jumps ahead must not make all of them old."""
BILL_DAYS = 30
BILLS = 100_000
"""About 15 MB."""
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


class _Open(NamedTuple):
    """A bill that is not closed yet."""

    accounts: list[Account]
    reserved: Used


class Store:
    """One process has the file. What is wrong with it is told to whoever asks, and it is looked at again.

    A commit survives the end of the process however it ends; when the power fails, the last moment may be missing.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._clock = settings, clock
        self._vault: Vault | None = None
        self._trouble: Failure | None = None
        self._look_at = 0.0
        self._totals: Totals
        """Of the vault."""
        self._open: dict[int, _Open] = {}
        self._closed = 0
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

    def used(self, wanted: list[Account]) -> list[Used]:
        totals = self.totals
        return [totals.used(totals.account(one)) for one in wanted]

    def reserve(self, day: str, payer: Payer, provider: str, model: str, reserved: Used) -> int:
        """Somebody waits for this: it is one statement, and the sums follow when the bill is closed."""
        totals = self.totals
        found = [totals.account(one) for one in accounts(day, payer, f"{provider}/{model}")]
        number = self.vault.insert(
            "INSERT INTO bill VALUES (NULL, ?, ?, ?, ?, ?, ?, ?7, ?8, ?7, ?8, 'open')",
            day, self._clock(), payer.holder, payer.session_id, provider, model, *reserved,
        )  # fmt: skip
        self._open[number] = _Open(found, reserved)
        totals.hold(found, reserved)
        self._changed(day)
        return number

    def close(self, number: int, billed: Used, state: State) -> None:
        """When that fails the bill stays open, as it is in the file."""
        vault, totals, was = self.vault, self.totals, self._open[number]
        # a name that nobody knows takes no place among those that are told apart
        sums = totals.sums(was.accounts, billed) if state != "void" else {}
        with vault.transaction():
            vault.do(
                "UPDATE bill SET reserved_tokens = max(reserved_tokens, ?1), reserved_money = max(reserved_money, ?2), "
                "tokens = ?1, money = ?2, state = ?3 WHERE number = ?4",
                *billed, state, number,
            )  # fmt: skip
            totals.write(sums, self._clock())
        totals.written(sums)
        totals.let_go(was.accounts, was.reserved)
        del self._open[number]
        self._changed(next(one.day for one in was.accounts if one.day))
        if self._closed % TIDY_EVERY == 0:
            self._tidy(vault, totals)
        self._closed += 1

    @property
    def totals(self) -> Totals:
        """What was used. Raises Failure."""
        _ = self.vault
        return self._totals

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
        key = key_of(self._settings, folder / "switch.key", path)
        vault = open_vault(path, key, SCHEMA + summing.SCHEMA, synchronous="NORMAL")
        try:
            totals = Totals(vault)
            lost = self._lose(vault, totals)
            for day in totals.days(1):
                self._changed(day)  # its last moment may not have been told
        except Failure:
            vault.close()  # or else it would be in the way of the next try
            raise
        if lost:
            log.warning("%d answers were not settled when switch ended; they are billed as they were reserved", lost)
        self._totals = totals
        return vault

    def _lose(self, vault: Vault, totals: Totals) -> int:
        """Bills that a process before this one left open are closed as they were reserved. How many there were."""
        left = vault.rows(
            "SELECT number, day, holder, session, provider || '/' || model, tokens, money FROM bill WHERE state = 'open'"
        )
        for number, day, holder, session, model, *reserved in left:
            found = [totals.account(one) for one in accounts(day, Payer(holder, session), model)]
            sums = totals.sums(found, Used(*reserved))
            with vault.transaction():
                vault.do("UPDATE bill SET state = 'lost' WHERE number = ?", number)
                totals.write(sums, self._clock())
            totals.written(sums)
        return len(left)

    def _changed(self, day: str) -> None:
        self.changed.add(day)
        self.news.set()

    def _tidy(self, vault: Vault, totals: Totals) -> None:
        """A little at a time, so that nobody waits for it. What is not done now is done later: no bill fails by it."""
        try:
            with vault.transaction():
                self._shorten(vault, totals)
        except Failure as failure:
            log.warning("old bills are not tidied away: %s", failure)

    def _shorten(self, vault: Vault, totals: Totals) -> None:
        newest = day_of(self._clock())
        ((last,),) = vault.rows("SELECT max(number) FROM bill")
        days = totals.days(max(DAYS, BILL_DAYS) + 1)
        bills_from = days[BILL_DAYS - 1] if len(days) > BILL_DAYS else ""
        vault.do(
            "DELETE FROM bill WHERE number IN "
            "(SELECT number FROM bill WHERE (day < ? OR number <= ?) AND state != 'open' ORDER BY number LIMIT ?)",
            bills_from, last - BILLS, BILLS_AT_ONCE,
        )  # fmt: skip
        if len(days) > DAYS and days[DAYS] != newest:
            totals.forget(days[DAYS])
        totals.forget_sessions()
