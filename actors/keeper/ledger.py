"""What the keeper has written down of the chain: its beginning, its head, a mark of each event, checkpoints, findings."""

from __future__ import annotations

from dataclasses import dataclass

from bus.chain import MARK_BYTES, genesis
from bus.vault import Vault
from schemas.keeper import Checkpoint, Finding

SCHEMA = """
CREATE TABLE IF NOT EXISTS chain (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    genesis INTEGER NOT NULL, genesis_hash BLOB NOT NULL,
    head INTEGER NOT NULL, head_hash BLOB NOT NULL,
    generation INTEGER NOT NULL, trimmed INTEGER NOT NULL, verified_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS block (first INTEGER PRIMARY KEY, hash BLOB NOT NULL, marks BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS checkpoint (
    sequence INTEGER PRIMARY KEY, hash BLOB NOT NULL, generation INTEGER NOT NULL, at TEXT NOT NULL, signature TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS checkpoint_generation ON checkpoint (generation);
CREATE TABLE IF NOT EXISTS finding (
    number INTEGER PRIMARY KEY, fault TEXT NOT NULL, sequence INTEGER NOT NULL, told TEXT NOT NULL, found_at TEXT NOT NULL,
    accepted_at TEXT NOT NULL DEFAULT '', accepted_by TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT ''
);
"""
"""`block`: consecutive events, the hash after the last, and MARK_BYTES of the hash after each."""


@dataclass(frozen=True)
class Block:
    """Consecutive events. `hash` is that of the chain after the last of them."""

    first: int
    hash: bytes
    marks: bytes

    @property
    def last(self) -> int:
        return self.first + len(self.marks) // MARK_BYTES - 1

    def mark(self, sequence: int) -> bytes:
        at = (sequence - self.first) * MARK_BYTES
        return self.marks[at : at + MARK_BYTES]


class Ledger:
    """One row of numbers in memory, as it is on disk. What changes it is called inside a transaction of the vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self.load()

    def load(self) -> None:
        """Read the numbers, also again after a transaction that was not finished."""
        self.begun = False
        self.genesis = self.head = self.generation = self.trimmed = 0
        self.genesis_hash = self.head_hash = b""
        self.verified_at = ""
        row = self._vault.row("SELECT genesis, genesis_hash, head, head_hash, generation, trimmed, verified_at FROM chain")
        if row:
            self.begun = True
            self.genesis, self.genesis_hash, self.head, self.head_hash, self.generation, self.trimmed, self.verified_at = row

    def begin(self, stream: str, first: int, after: int) -> None:
        """The chain begins behind `after`; what was before it is not vouched for any more.

        `first`: the oldest event that is there. It stays until it is due, even if its sequence was trimmed once: the stream
        may have been made again. Sequences above `after` will be given again, so a checkpoint there is of another chain.
        """
        self.genesis_hash = self.head_hash = genesis(stream, after, self.head_hash)
        self.genesis = self.head = after
        self.verified_at = ""
        self.trimmed = min(self.trimmed, first - 1)
        self.begun = True
        self._vault.do("DELETE FROM block")
        self._vault.do("DELETE FROM checkpoint WHERE sequence > ?", after)
        self._write()

    def append(self, first: int, hashes: list[bytes]) -> None:
        """The hashes of the chain after each of the events from `first` on."""
        marks = b"".join(one[:MARK_BYTES] for one in hashes)
        self._vault.do("INSERT INTO block VALUES (?, ?, ?)", first, hashes[-1], marks)
        self.head, self.head_hash = first + len(hashes) - 1, hashes[-1]
        self._write()

    def block(self, sequence: int) -> Block | None:
        """The block that `sequence` is in."""
        row = self._vault.row("SELECT first, hash, marks FROM block WHERE first <= ? ORDER BY first DESC LIMIT 1", sequence)
        found = Block(*row) if row else None
        return found if found and found.last >= sequence else None

    def sign(self, made: Checkpoint) -> None:
        """Write a checkpoint of the head, and the blocks since the last one as one."""
        last = self.checkpoint
        after = max(last.sequence if last else 0, self.genesis)
        rows = self._vault.rows("SELECT first, marks FROM block WHERE first > ? ORDER BY first", after)
        if len(rows) > 1:
            self._vault.do("DELETE FROM block WHERE first > ?", after)
            self._vault.do("INSERT INTO block VALUES (?, ?, ?)", rows[0][0], self.head_hash, b"".join(row[1] for row in rows))
        values = (made.sequence, bytes.fromhex(made.hash), made.generation, made.at, made.signature)
        self._vault.do("INSERT OR REPLACE INTO checkpoint VALUES (?, ?, ?, ?, ?)", *values)
        self.generation = made.generation
        self._write()

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The newest."""
        found = self._checkpoints("ORDER BY sequence DESC LIMIT 1")
        return found[0] if found else None

    def signed(self, generation: int) -> Checkpoint | None:
        found = self._checkpoints("WHERE generation = ?", generation)
        return found[0] if found else None

    def checkpoint_before(self, sequence: int) -> Checkpoint | None:
        """The newest below `sequence`, and of this chain."""
        found = self._checkpoints("WHERE sequence < ? AND sequence > ? ORDER BY sequence DESC LIMIT 1", sequence, self.genesis)
        return found[0] if found else None

    def checkpoint_from(self, sequence: int) -> Checkpoint | None:
        """The oldest at `sequence` or above, and of this chain."""
        at = max(sequence, self.genesis + 1)
        found = self._checkpoints("WHERE sequence >= ? ORDER BY sequence LIMIT 1", at)
        return found[0] if found else None

    def checkpoint_aged(self, through: int, before: str, now: str) -> Checkpoint | None:
        """The newest at `through` or below that, like all before it, was made before the moment `before` (RFC 3339).

        One that was made while the clock was wrong says nothing: neither "long ago" between younger ones nor after `now`.
        """
        where = "WHERE sequence > ? AND at >= ? AND at <= ? ORDER BY sequence LIMIT 1"
        young = self._checkpoints(where, self.genesis, before, now)
        below = min(through + 1, young[0].sequence) if young else through + 1
        where = "WHERE sequence < ? AND sequence > ? AND at < ? ORDER BY sequence DESC LIMIT 1"
        found = self._checkpoints(where, below, self.genesis, before)
        return found[0] if found else None

    def count_checkpoints(self) -> int:
        row = self._vault.row("SELECT count(*) FROM checkpoint WHERE sequence > ?", self.genesis)
        return int(row[0]) if row else 0

    def trim(self, through: Checkpoint) -> None:
        """The chain begins with this checkpoint; to be written before the events are removed."""
        self.genesis, self.genesis_hash, self.trimmed = through.sequence, bytes.fromhex(through.hash), through.sequence
        self._write()

    def forget_trimmed(self) -> None:
        """Remove what was written of events that are gone."""
        if (found := self.block(self.trimmed)) and found.last > self.trimmed:  # a block does not end at every checkpoint
            cut = (self.trimmed - found.first + 1) * MARK_BYTES
            self._vault.do("DELETE FROM block WHERE first = ?", found.first)
            self._vault.do("INSERT INTO block VALUES (?, ?, ?)", self.trimmed + 1, found.hash, found.marks[cut:])
        self._vault.do("DELETE FROM block WHERE first <= ?", self.trimmed)
        self._vault.do("DELETE FROM checkpoint WHERE sequence < ?", self.trimmed)

    def verified(self, at: str) -> None:
        self.verified_at = at
        self._write()

    @property
    def findings(self) -> list[Finding]:
        """Oldest first."""
        names = ("fault", "sequence", "told", "found_at", "accepted_at", "accepted_by", "reason")
        rows = self._vault.rows(f"SELECT {', '.join(names)} FROM finding ORDER BY number")  # noqa: S608 - our own names
        return [Finding(**dict(zip(names, row, strict=True))) for row in rows]

    @property
    def open(self) -> Finding | None:
        """The earliest event that was found bad and is not accepted: the log is broken."""
        return min((one for one in self.findings if not one.accepted_at), key=lambda one: one.sequence, default=None)

    def find(self, finding: Finding) -> None:
        values = (finding.fault, finding.sequence, finding.told, finding.found_at)
        self._vault.do("INSERT INTO finding (fault, sequence, told, found_at) VALUES (?, ?, ?, ?)", *values)

    def accept(self, at: str, by: str, reason: str) -> None:
        """All open findings."""
        self._vault.do("UPDATE finding SET accepted_at = ?, accepted_by = ?, reason = ? WHERE accepted_at = ''", at, by, reason)

    def _write(self) -> None:
        values = (self.genesis, self.genesis_hash, self.head, self.head_hash, self.generation, self.trimmed, self.verified_at)
        self._vault.do("INSERT OR REPLACE INTO chain VALUES (1, ?, ?, ?, ?, ?, ?, ?)", *values)

    def _checkpoints(self, where: str, *values: object) -> list[Checkpoint]:
        sql = f"SELECT sequence, hash, generation, at, signature FROM checkpoint {where}"  # noqa: S608 - our own words
        return [
            Checkpoint(sequence=sequence, hash=hash_.hex(), generation=generation, at=at, signature=signature)
            for sequence, hash_, generation, at, signature in self._vault.rows(sql, *values)
        ]
