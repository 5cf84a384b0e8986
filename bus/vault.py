"""Encrypted database files: the key and its file, opening that says what is wrong, short transactions.

SQLCipher with a raw 256-bit key; every page is authenticated, so that a changed bit is an error and never another value.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import logging
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from sqlcipher3 import dbapi2 as sqlcipher

from bus.settings import Settings
from bus.users import write_secret
from schemas.errors import Failure

log = logging.getLogger("vx11.vault")

KEY_FILE = "VX11_DB_KEY_FILE"
KEY_BYTES = 32
PAGE_BYTES = 4096
"""SQLCipher's page."""
PLAIN = b"SQLite format 3\0"
"""What an unencrypted SQLite file begins with."""
LOCK_S = 0.2
"""For another process that is just leaving."""
CACHE_KIB = 512
"""Of decrypted pages in memory; the process that holds this is always there."""
LEAST_FREE_BYTES = 1024 * 1024
"""With less a failed writing is no sign of damage."""
OTHERS = 0o077
"""Permission bits of everybody but the owner."""


def key_of(settings: Settings, own: Path, database: Path) -> bytes:
    """The key in the file that VX11_DB_KEY_FILE names, else in `own`, which is made when there is no database yet.

    Raises Failure: `unavailable` when a database is there and its key is not, `forbidden` when others may read the file,
    `invalid` when it holds no key, `storage_full`.
    """
    named = settings.get(KEY_FILE)
    path = Path(named) if named else own
    with _files_of(path):
        if not path.exists():
            if database.exists():
                told = "restore it from the copy of it that you keep; without it the file cannot be read, by nobody"
                raise Failure("unavailable", f"{database} is there, but its key {path} is not: {told}")
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_secret(path, secrets.token_hex(KEY_BYTES))
            log.info("a new key was made: %s; keep a copy of it apart from the data", path)
        _keep_private(path, ours=not named)
        return _read_key(path)


def derived(key: bytes, purpose: str) -> bytes:
    """Another key of 32 bytes for one purpose, from which nobody finds `key`."""
    return hmac.digest(key, purpose.encode(), hashlib.sha256)


class Vault:
    """An open database, held by this process alone. Made by `open_vault`; whoever opened it closes it."""

    def __init__(self, connection: Any, path: Path) -> None:
        self._connection = connection
        self.path = path

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Raises Failure as all methods do: `storage_full`, or `unavailable` when the file is damaged."""
        with self._told():
            found: list[tuple[Any, ...]] = self._connection.execute(sql, values).fetchall()
            return found

    def row(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        found = self.rows(sql, *values)
        return found[0] if found else None

    def do(self, sql: str, *values: Any) -> int:
        """How many rows it has changed."""
        with self._told():
            return int(self._connection.execute(sql, values).rowcount)

    def insert(self, sql: str, *values: Any) -> int:
        """The number of the new row."""
        with self._told():
            return int(self._connection.execute(sql, values).lastrowid)

    def do_many(self, sql: str, values: list[tuple[Any, ...]]) -> None:
        with self._told():
            self._connection.executemany(sql, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is done inside is on disk when this ends, or nothing of it when it raises."""
        self.do("BEGIN IMMEDIATE")
        try:
            yield
            self.do("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self.do("ROLLBACK")
            raise

    def close(self) -> None:
        with self._told():
            self._connection.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlcipher.DatabaseError, MemoryError) as error:  # the second is what it says after an error in its pages
            raise _failure(self.path, error) from error


def open_vault(path: Path, key: bytes, schema: str, *, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> Vault:
    """Open or create the database; `schema` is executed, and must be good for a database that has it already.

    `synchronous`: NORMAL does not wait for the disk at each commit. A killed process loses nothing by that; when the power
    fails the last transactions may be missing, whole ones.

    Raises Failure("unavailable" | "conflict" | "storage_full") that says what to do.
    """
    with _files_of(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _look_at(path)
        path.touch(mode=0o600)
        path.chmod(0o600)
    try:
        connection = sqlcipher.connect(str(path), isolation_level=None, timeout=LOCK_S)
        try:
            connection.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the first to need the key
            sync, cache = f"synchronous = {synchronous}", f"cache_size = -{CACHE_KIB}"
            for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", sync, cache):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            connection.executescript(schema)
        except BaseException:
            connection.close()
            raise
    except sqlcipher.DatabaseError as error:
        raise _failure(path, error) from error
    return Vault(connection, path)


@contextmanager
def _files_of(path: Path) -> Iterator[None]:
    """What the system says of it is for who opens it to tell, and to try again: no process should end by it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Failure("storage_full", f"{path} cannot be written: {error}; free some space") from error
        raise Failure("unavailable", f"{path} cannot be opened: {error}") from error


def _look_at(path: Path) -> None:
    """Tell what SQLCipher would call `not a database`."""
    if not path.exists():
        return
    with path.open("rb") as file:
        head = file.read(len(PLAIN))
    if head == PLAIN:
        raise Failure("unavailable", f"{path} is a plain SQLite file, not an encrypted one; move it away")
    if size := path.stat().st_size % PAGE_BYTES:
        raise Failure("unavailable", f"{path} is cut off ({size} bytes over a whole page); put its last backup back")


def _failure(path: Path, error: Exception) -> Failure:
    told = str(error) or type(error).__name__
    if "locked" in told:
        return Failure("conflict", f"{path} is in use by another process; end it first")
    if "full" in told or ("disk I/O" in told and _is_full(path)):
        return Failure("storage_full", f"{path} cannot grow: {told}; free some space")
    if "not a database" in told:
        why = "its key is another one, or its beginning is damaged; put its own key or its last backup back"
        return Failure("unavailable", f"{path} cannot be read: {why}")
    if "malformed" in told or "disk I/O" in told:
        return Failure("unavailable", f"{path} is damaged ({told}); put its last backup back")
    return Failure("unavailable", f"{path}: {told}")


def _is_full(path: Path) -> bool:
    """Whether that is why a file cannot even be opened: its log has to be written to for that."""
    try:
        return shutil.disk_usage(path.parent).free < LEAST_FREE_BYTES
    except OSError:
        return False


def _keep_private(path: Path, *, ours: bool) -> None:
    """Our own file is mended; one that somebody named is theirs, and others may have read it."""
    if not path.stat().st_mode & OTHERS:
        return
    if not ours:
        raise Failure("forbidden", f"{KEY_FILE}={path} may be read by others; run: chmod 600 {path}")
    path.chmod(0o600)
    log.warning("%s could be read by others; now only by its owner", path)


def _read_key(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text().strip())
    except (ValueError, OSError) as error:
        raise Failure("invalid", f"{path} holds no key: {error}") from error
    if len(key) != KEY_BYTES:
        raise Failure("invalid", f"{path} holds no key: {2 * KEY_BYTES} hexadecimal digits are one, not {2 * len(key)}")
    return key
