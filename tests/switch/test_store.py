"""The file of switch: bounded, its owner's alone, and when it is damaged that is said and no model is asked."""

from __future__ import annotations

import asyncio
import stat
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.switch import store as module
from actors.switch.paying import totals
from actors.switch.paying.budget import Used
from actors.switch.paying.ledger import Payer
from actors.switch.paying.totals import OTHERS
from actors.switch.store import Store
from bus.settings import Settings
from bus.vault import Vault
from schemas.errors import Failure
from tests.switch.accounting import ALICE, DAY_S, NOON, PAID, Accounts, check_books

ROOT = Path(__file__).parents[2]


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Accounts]:
    made = Accounts(tmp_path)
    yield made
    made.close()


def file(home: Path) -> Path:
    return home / "switch" / "switch.db"


def written(home: Path) -> None:
    """Make the file, and leave it."""
    books = Accounts(home)
    books.ask()
    books.close()


def spoiled(home: Path) -> Accounts:
    """A file with some bills whose pages somebody has written over."""
    books = Accounts(home)
    for number in range(200):
        books.ask(Payer(f"holder-{number}", f"s-{number}"))
    books.close()
    data = bytearray(file(home).read_bytes())
    for at in range(4_096 * 2, len(data), 4_096):
        data[at + 100] ^= 0xFF
    file(home).write_bytes(data)
    return Accounts(home)


def test_the_file_is_encrypted_and_its_owners_alone(books: Accounts, tmp_path: Path) -> None:
    books.ask()
    books.close()
    assert stat.S_IMODE(file(tmp_path).stat().st_mode) == 0o600
    assert b"alice" not in file(tmp_path).read_bytes()


@pytest.mark.parametrize("garbage", [b"", b"garbage" * 4_096, b"SQLite format 3\0" + bytes(8_176), b"x" * 5_000])
def test_garbage_is_a_clear_failure_and_no_model_is_asked(tmp_path: Path, garbage: bytes) -> None:
    written(tmp_path)
    file(tmp_path).write_bytes(garbage)
    books = Accounts(tmp_path)
    if garbage == b"":
        books.ask()  # an empty file is a new one
    else:
        with pytest.raises(Failure, match=r"no model is asked: .*switch\.db") as failed:
            books.ask()
        assert failed.value.code == "unavailable"
    books.close()


def test_damage_inside_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    books = spoiled(tmp_path)
    with pytest.raises(Failure, match=r"switch.db (is damaged|cannot be read)") as failed:
        for number in range(200):
            books.ask(Payer(f"holder-{number}", f"s-{number}"))
    assert failed.value.code == "unavailable"
    books.close()


def test_a_file_that_was_mended_is_taken_again_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    written(tmp_path)
    file(tmp_path).write_bytes(b"garbage" * 4_096)
    books = Accounts(tmp_path)
    with pytest.raises(Failure):
        books.ask()
    file(tmp_path).unlink()
    assert books.ask().state == "settled"
    books.close()


def test_who_could_not_begin_with_the_file_does_not_stand_in_his_own_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk that is full no more: the next try must not find the file in use by the first one."""
    before = Accounts(tmp_path)
    before.store.reserve("2026-11-23", ALICE, "cloud", "big", Used(5, 5))
    before.close()
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    do, full = Vault.do, [Failure("storage_full", "it cannot grow")]

    def once(self: Vault, sql: str, *values: object) -> int:
        if "'lost'" in sql and full:
            raise full.pop()
        return do(self, sql, *values)

    monkeypatch.setattr(Vault, "do", once)
    books = Accounts(tmp_path)
    with pytest.raises(Failure, match="it cannot grow"):
        books.ask()
    assert books.ask().state == "settled"
    books.close()


def test_a_lost_key_is_said(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "switch" / "switch.key").unlink()
    with pytest.raises(Failure, match=r"its key .*switch.key is not"):
        Accounts(tmp_path).ask()


LEAVING = """
import sys
from pathlib import Path
from tests.switch.accounting import Accounts

books = Accounts(Path(sys.argv[1]))
books.ask()
print("ready", flush=True)
sys.stdin.read()
"""


async def test_who_wakes_while_another_is_leaving_waits_for_the_file(tmp_path: Path) -> None:
    """A restart: the old process has the file until it ends."""
    words = [sys.executable, "-c", LEAVING, str(tmp_path)]
    other = await asyncio.create_subprocess_exec(*words, cwd=ROOT, stdin=PIPE, stdout=PIPE)
    assert other.stdin
    assert other.stdout
    assert await other.stdout.readline() == b"ready\n"
    store = Store(Settings(tmp_path))
    with pytest.raises(Failure, match="in use by another process"):
        _ = store.vault
    other.stdin.close()
    await store.open()
    assert [one.answers for one in store.totals.listed("holder", store.totals.days(1)[0])] == [1]
    store.shut()
    assert await other.wait() == 0


def test_documents_survive_sleep_and_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.KEPT, "pin", 3)
    books = Accounts(tmp_path)
    for number in range(5):
        books.now += 1
        books.store.keep("pin", {f"s{number}": {"model": number}})
    books.store.keep("model", {"cloud/big": [1, 2.5]})
    books.close()
    again = Accounts(tmp_path)
    assert again.store.kept("pin") == {f"s{number}": {"model": number} for number in (2, 3, 4)}
    again.store.forget("pin")
    assert again.store.kept("pin") == {}
    assert again.store.kept("model") == {"cloud/big": [1, 2.5]}
    again.close()


def test_what_cannot_be_kept_is_said_and_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(tmp_path)
    file(tmp_path).write_bytes(b"garbage" * 4_096)
    Store(Settings(tmp_path)).keep("circuit", {"cloud": {}})
    assert "what was learned is not kept" in caplog.text


def test_bills_and_totals_are_bounded(books: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock goes on a day with each answer."""
    for name, most in (("DAYS", 6), ("BILL_DAYS", 4), ("BILLS", 1_000), ("TIDY_EVERY", 1)):
        monkeypatch.setattr(module, name, most)
    for _ in range(15):
        books.ask()
        books.now += DAY_S
    assert len(books.store.totals.days(99)) in (6, 7)
    assert books.store.vault.rows("SELECT count(DISTINCT day) FROM bill")[0][0] in (4, 5)
    assert books.store.totals.listed("model", "")[0].answers == 15, "what is counted over all days stays"


def test_bills_are_bounded_within_a_day_too(books: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BILLS", 20)
    monkeypatch.setattr(module, "TIDY_EVERY", 5)
    for _ in range(60):
        books.ask()
    assert books.store.vault.rows("SELECT count(*) FROM bill")[0][0] <= 25
    assert books.store.totals.listed("day", "2026-11-23")[0].answers == 60


def test_an_open_bill_is_never_tidied_away(books: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BILLS", 2)
    monkeypatch.setattr(module, "TIDY_EVERY", 1)
    with books.ledger.bill(ALICE, "cloud", "big", PAID, 100, 50) as bill:
        for _ in range(10):
            books.ask()
        bill.settle(1, 1)
    assert books.store.totals.listed("day", "2026-11-23")[0].tokens == 152


def test_a_clock_that_jumped_ahead_and_back_takes_no_budget_away(books: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days are counted, not reckoned: else today's totals would have been thrown away as old."""
    monkeypatch.setattr(module, "TIDY_EVERY", 1)
    books.budgets = {"day": {"tokens": 150}}
    assert books.may(used=None)
    books.now += 4_000 * DAY_S
    assert books.may(used=None)
    books.now = NOON
    assert not books.may(used=None)


def test_callers_that_are_too_many_share_one_account(books: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who calls on the bus says himself who he is: new names must not be new budgets without an end."""
    monkeypatch.setattr(totals, "NAMES_A_DAY", 3)
    books.budgets = {"holder": {"tokens": 40}}
    names = [one for one in "abcdefgh" if books.may(Payer(one), prompt=10, answer=5)]
    assert names == ["a", "b", "c", "d", "e"]
    assert {one.name for one in books.store.totals.listed("holder", "2026-11-23", 99)} == {"a", "b", "c", OTHERS}


def test_a_name_that_cost_nothing_takes_no_place(books: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may chat may name any model of a provider: what it refuses must not crowd out what it has."""
    monkeypatch.setattr(totals, "NAMES_A_DAY", 3)
    for number in range(10):
        with books.ledger.bill(ALICE, "cloud", f"invented-{number}", PAID, 100, 50) as bill:
            bill.void()
    books.ask()
    assert [one.name for one in books.store.totals.listed("model", "")] == ["cloud/big"]
    check_books(books.store)


def test_sessions_are_forgotten_in_the_order_in_which_they_fell_silent(books: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIDY_EVERY", 1)
    monkeypatch.setattr(totals, "SESSIONS", 10)
    monkeypatch.setattr(totals, "SESSIONS_AT_ONCE", 5)
    for number in range(30):
        books.now += 1
        books.ask(Payer("alice", "loyal"))
        books.ask(Payer("alice", f"s{number}"))
    kept = {one.name for one in books.store.totals.listed("session", "", 99)}
    assert len(kept) <= 15
    assert {"loyal", "s29"} <= kept


def test_an_answer_costs_little_time(books: Accounts) -> None:
    """Both writings together; a whole millisecond is the bound of the design, and other tests run beside this one."""
    books.budgets = {"day": {"tokens": 10**9, "money": 1000}, "session": {"tokens": 10**9}, "holder": {"money": 1000}}
    took = []
    for _ in range(300):
        began = time.perf_counter()
        books.ask()
        took.append(time.perf_counter() - began)
    assert sorted(took)[len(took) // 2] < 0.002


def test_a_reservation_is_on_disk_before_anybody_is_asked(books: Accounts) -> None:
    number = books.store.reserve("2026-11-23", ALICE, "cloud", "big", Used(5, 5))
    assert books.store.vault.rows("SELECT number, tokens, state FROM bill") == [(number, 5, "open")]


def test_who_waits_for_the_first_word_waits_for_one_statement(books: Accounts) -> None:
    books.budgets = {"day": {"tokens": 10**9}, "session": {"tokens": 10**9}, "holder": {"money": 1000}}
    books.ask()
    statements: list[str] = []
    books.store.vault._connection.set_trace_callback(statements.append)
    with books.ledger.bill(ALICE, "cloud", "big", PAID, 100, 50):
        books.store.vault._connection.set_trace_callback(None)
    assert [one.split()[0] for one in statements] == ["INSERT"]


def test_a_session_that_is_being_answered_is_not_forgotten(books: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was quiet longest, and its budget is not new for that."""
    monkeypatch.setattr(module, "TIDY_EVERY", 1)
    monkeypatch.setattr(totals, "SESSIONS", 10)
    monkeypatch.setattr(totals, "SESSIONS_AT_ONCE", 5)
    books.budgets = {"session": {"tokens": 300}}
    assert books.may(Payer("alice", "quiet"), used=None)
    with books.ledger.bill(Payer("alice", "quiet"), "cloud", "big", PAID, 100, 50):
        for number in range(30):
            books.now += 1
            books.ask(Payer("alice", f"s{number}"))
        assert not books.may(Payer("alice", "quiet"), used=None)
    assert not books.may(Payer("alice", "quiet"), used=None)


def test_who_is_refused_takes_no_memory(books: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are free."""
    monkeypatch.setattr(totals, "REMEMBERED", 50)
    books.budgets = {"day": {"tokens": 0}}
    assert not any(books.may(Payer(f"h{number}", f"s{number}")) for number in range(200))
    assert len(books.store.totals._rows) < 60


def test_a_bill_is_closed_although_old_ones_cannot_be_tidied_away(
    books: Accounts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    do = Vault.do

    def refuse(self: Vault, sql: str, *values: object) -> int:
        if sql.startswith("DELETE FROM bill"):
            raise Failure("storage_full", "it cannot grow")
        return do(self, sql, *values)

    monkeypatch.setattr(Vault, "do", refuse)
    monkeypatch.setattr(module, "TIDY_EVERY", 1)
    for _ in range(3):
        books.ask()
    assert books.store.totals.listed("day", "2026-11-23")[0][1:] == (3, 45, 210)
    assert "old bills are not tidied away: storage_full: it cannot grow" in caplog.text


def test_who_had_an_account_has_it_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the account of all others is in the file by then, and its own is not."""
    monkeypatch.setattr(totals, "NAMES_A_DAY", 3)
    books = Accounts(tmp_path)
    for name in "ab":
        books.ask(Payer(name))
    books.store.reserve("2026-11-23", Payer("c"), "cloud", "big", Used(5, 5))
    books.ask(Payer("d"))
    books.close()
    awake = Accounts(tmp_path)
    assert {one.name: one.tokens for one in awake.store.totals.listed("holder", "2026-11-23", 9)} == {
        "a": 15, "b": 15, "c": 5, OTHERS: 15,
    }  # fmt: skip
    awake.close()
