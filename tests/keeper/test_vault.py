"""The encrypted file and its key: what is wrong with them is said, with what to do, and never mended by forgetting."""

from __future__ import annotations

import errno
import sqlite3
import stat
from types import SimpleNamespace

import pytest

from bus import vault
from bus.settings import Settings
from bus.vault import derived, key_of, open_vault
from schemas.errors import Failure

SCHEMA = "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, what TEXT)"
KEY = bytes(range(32))


@pytest.fixture
def path(tmp_path):
    """A database with some hundred rows, closed."""
    vault = open_vault(tmp_path / "one.db", KEY, SCHEMA)
    with vault.transaction():
        vault.do_many("INSERT INTO t VALUES (?, ?)", [(n, "x" * 200) for n in range(300)])
    vault.close()
    return tmp_path / "one.db"


def test_what_is_written_is_there_when_it_is_opened_again(path):
    vault = open_vault(path, KEY, SCHEMA)
    assert vault.row("SELECT count(*) FROM t") == (300,)
    vault.close()


def test_the_file_is_its_owners_alone(path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_transaction_that_fails_leaves_nothing(path):
    vault = open_vault(path, KEY, SCHEMA)
    with pytest.raises(ZeroDivisionError), vault.transaction():
        vault.do("DELETE FROM t")
        raise ZeroDivisionError
    assert vault.row("SELECT count(*) FROM t") == (300,)
    vault.close()


def test_a_wrong_key_is_said(path):
    with pytest.raises(Failure, match="its key is another one"):
        open_vault(path, bytes(32), SCHEMA)


def test_a_plain_file_is_said(tmp_path):
    plain = tmp_path / "plain.db"
    with sqlite3.connect(plain) as connection:
        connection.execute(SCHEMA)
    connection.close()
    with pytest.raises(Failure, match="a plain SQLite file"):
        open_vault(plain, KEY, SCHEMA)


@pytest.mark.parametrize("cut", [1, 4096, 5000])
def test_a_file_that_is_cut_off_is_said(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(Failure, match=r"cut off|damaged"):
        open_vault(path, KEY, SCHEMA)


@pytest.mark.parametrize("page", [0, 1, 5])
def test_a_flipped_bit_is_an_error_and_never_another_value(path, page):
    data = bytearray(path.read_bytes())
    data[page * 4096 + 100] ^= 1
    path.write_bytes(data)

    def read() -> None:
        vault = open_vault(path, KEY, SCHEMA)
        try:
            vault.rows("SELECT * FROM t")
        finally:
            vault.close()

    with pytest.raises(Failure, match="last backup back"):
        read()


def test_a_second_process_is_refused(path):
    vault = open_vault(path, KEY, SCHEMA)
    vault.do("DELETE FROM t WHERE n = 1")
    with pytest.raises(Failure, match="in use"):
        open_vault(path, KEY, SCHEMA)
    vault.close()


def test_a_key_is_made_once_and_only_for_a_new_file(tmp_path):
    own, database = tmp_path / "a" / "one.key", tmp_path / "a" / "one.db"
    key = key_of(Settings(tmp_path), own, database)
    assert key_of(Settings(tmp_path), own, database) == key
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    database.write_bytes(b"something")
    own.unlink()
    with pytest.raises(Failure, match="restore it"):
        key_of(Settings(tmp_path), own, database)
    assert not own.exists()


def test_our_own_key_that_others_could_read_is_made_private(tmp_path):
    own = tmp_path / "one.key"
    key = key_of(Settings(tmp_path), own, tmp_path / "one.db")
    own.chmod(0o644)
    assert key_of(Settings(tmp_path), own, tmp_path / "one.db") == key
    assert stat.S_IMODE(own.stat().st_mode) == 0o600


def test_a_named_key_that_others_can_read_is_refused(tmp_path):
    """It is not ours to change, and they may have read it."""
    named = tmp_path / "secret"
    named.write_text("ab" * 32)
    named.chmod(0o644)
    with pytest.raises(Failure, match="chmod 600"):
        key_of(Settings(tmp_path, {"VX11_DB_KEY_FILE": str(named)}), tmp_path / "one.key", tmp_path / "one.db")


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "not hexadecimal", "zz" * 32])
def test_what_is_no_key_is_said(tmp_path, text):
    own = tmp_path / "one.key"
    own.write_text(text)
    own.chmod(0o600)
    with pytest.raises(Failure, match="holds no key"):
        key_of(Settings(tmp_path), own, tmp_path / "one.db")


def test_a_folder_that_cannot_be_one_is_said(tmp_path):
    """An error of the system would end the process again and again, and nobody would be told why."""
    (tmp_path / "keeper").write_text("in the way")
    with pytest.raises(Failure, match="keeper") as caught:
        key_of(Settings(tmp_path), tmp_path / "keeper" / "one.key", tmp_path / "keeper" / "one.db")
    assert caught.value.code == "unavailable"
    with pytest.raises(Failure, match="cannot be opened"):
        open_vault(tmp_path / "keeper" / "one.db", KEY, SCHEMA)


def test_a_disk_that_has_no_room_for_the_key_is_said(tmp_path, monkeypatch):
    def full(path, text) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(vault, "write_secret", full)
    with pytest.raises(Failure, match="free some space") as caught:
        key_of(Settings(tmp_path), tmp_path / "one.key", tmp_path / "one.db")
    assert caught.value.code == "storage_full"


@pytest.mark.parametrize(("free", "code"), [(0, "storage_full"), (10**9, "unavailable")])
def test_a_file_that_no_room_is_left_for_is_not_called_damaged(tmp_path, monkeypatch, free, code):
    """SQLite says the same of both; who puts an old backup back for want of space loses what there is."""
    monkeypatch.setattr(vault.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    told = vault._failure(tmp_path / "one.db", sqlite3.OperationalError("disk I/O error"))
    assert (told.code, "damaged" in told.message) == (code, code == "unavailable")


def test_derived_keys_are_keys_of_their_own():
    assert len({KEY, derived(KEY, "a"), derived(KEY, "b"), derived(bytes(32), "a")}) == 4
