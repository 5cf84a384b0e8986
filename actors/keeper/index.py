"""Where the messages of a conversation are: correlation ids to sequences, for two streams, in a size that is bounded by theirs.

New entries are appended in the order of the stream. When PACKED_AFTER of them are there they are sorted into buckets by id, one
row each, so that a search reads one bucket and writing does not touch a page for every event.
"""

from __future__ import annotations

import hashlib
import struct
from collections import defaultdict

from bus.vault import Vault

SCHEMA = """
CREATE TABLE IF NOT EXISTS indexed (stream TEXT PRIMARY KEY, through INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS recent (
    stream TEXT NOT NULL, sequence INTEGER NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (stream, sequence)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS packed (
    stream TEXT NOT NULL, bucket INTEGER NOT NULL, last INTEGER NOT NULL, ids BLOB NOT NULL,
    PRIMARY KEY (stream, bucket, last)
) WITHOUT ROWID;
"""
PACKED_AFTER = 8_192
BUCKETS = 128
BUCKET_SHIFT = 57
"""The upper 7 of 64 bits name the bucket."""
PURPOSE = "vx11 keeper index"
"""Ids are hashed with a key: nobody can make two that fall together, and the file does not have to hold them."""

_ENTRY = struct.Struct(">QQ")


class Index:
    """What changes it is called inside a transaction of the vault."""

    def __init__(self, vault: Vault, key: bytes) -> None:
        self._vault = vault
        self._key = key
        self.load()

    def load(self) -> None:
        """Read the numbers, also again after a transaction that was not finished."""
        self._through: dict[str, int] = dict(self._vault.rows("SELECT stream, through FROM indexed"))
        self._recent: dict[str, int] = dict(self._vault.rows("SELECT stream, count(*) FROM recent GROUP BY stream"))

    def through(self, stream: str) -> int:
        """Up to this sequence all are in."""
        return self._through.get(stream, 0)

    def add(self, stream: str, entries: list[tuple[int, str]], through: int) -> None:
        """Sequences with their correlation ids, in order; messages without one are left out."""
        self._vault.do_many(
            "INSERT OR REPLACE INTO recent VALUES (?, ?, ?)",
            [(stream, sequence, _signed(self._hash(id_))) for sequence, id_ in entries],
        )
        self._recent[stream] = self._recent.get(stream, 0) + len(entries)
        self._set_through(stream, through)
        if self._recent[stream] >= PACKED_AFTER:
            self._pack(stream)

    def find(self, stream: str, correlation_id: str, limit: int, since: int = 0) -> list[int]:
        """At most `limit` sequences from `since` on, oldest first."""
        hashed = self._hash(correlation_id)
        rows = self._vault.rows(
            "SELECT ids FROM packed WHERE stream = ? AND bucket = ? AND last >= ?", stream, hashed >> BUCKET_SHIFT, since
        )
        found = [sequence for (ids,) in rows for id_, sequence in _ENTRY.iter_unpack(ids) if id_ == hashed]
        recent = self._vault.rows("SELECT sequence FROM recent WHERE stream = ? AND id = ?", stream, _signed(hashed))
        found += [sequence for (sequence,) in recent]
        return sorted(sequence for sequence in found if sequence >= since)[:limit]

    def forget_before(self, stream: str, first: int) -> None:
        """The messages below `first` are gone. A bucket goes when all in it is gone."""
        self._vault.do("DELETE FROM recent WHERE stream = ? AND sequence < ?", stream, first)
        for bucket in range(BUCKETS):
            self._vault.do("DELETE FROM packed WHERE stream = ? AND bucket = ? AND last < ?", stream, bucket, first)
        self._count(stream)
        self._set_through(stream, max(self.through(stream), first - 1))

    def forget_after(self, stream: str, last: int) -> None:
        """The stream ends earlier than was indexed: its sequences above `last` will be given again."""
        if last >= self.through(stream):
            return
        self._vault.do("DELETE FROM recent WHERE stream = ? AND sequence > ?", stream, last)
        for bucket, ends, ids in self._vault.rows(
            "SELECT bucket, last, ids FROM packed WHERE stream = ? AND last > ?", stream, last
        ):
            kept = b"".join(_ENTRY.pack(id_, sequence) for id_, sequence in _ENTRY.iter_unpack(ids) if sequence <= last)
            self._vault.do("DELETE FROM packed WHERE stream = ? AND bucket = ? AND last = ?", stream, bucket, ends)
            if kept:
                self._vault.do("INSERT OR REPLACE INTO packed VALUES (?, ?, ?, ?)", stream, bucket, last, kept)
        self._count(stream)
        self._set_through(stream, last)

    def _pack(self, stream: str) -> None:
        buckets: defaultdict[int, list[bytes]] = defaultdict(list)
        last = 0
        for sequence, signed in self._vault.rows("SELECT sequence, id FROM recent WHERE stream = ? ORDER BY sequence", stream):
            id_, last = signed & 0xFFFF_FFFF_FFFF_FFFF, sequence
            buckets[id_ >> BUCKET_SHIFT].append(_ENTRY.pack(id_, sequence))
        self._vault.do_many(
            "INSERT OR REPLACE INTO packed VALUES (?, ?, ?, ?)",
            [(stream, bucket, last, b"".join(entries)) for bucket, entries in sorted(buckets.items())],
        )
        self._vault.do("DELETE FROM recent WHERE stream = ?", stream)
        self._recent[stream] = 0

    def _count(self, stream: str) -> None:
        row = self._vault.row("SELECT count(*) FROM recent WHERE stream = ?", stream)
        self._recent[stream] = int(row[0]) if row else 0

    def _set_through(self, stream: str, through: int) -> None:
        self._through[stream] = through
        self._vault.do("INSERT OR REPLACE INTO indexed VALUES (?, ?)", stream, through)

    def _hash(self, correlation_id: str) -> int:
        text = correlation_id.encode(errors="surrogatepass")
        return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=self._key).digest(), "big")


def _signed(number: int) -> int:
    """As SQLite keeps 64 bits."""
    return number - (1 << 64) if number >> 63 else number
