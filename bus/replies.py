"""The reply cache: one request id, one outcome. An entry is made when a request is accepted; copies join it.

An id belongs to its caller and to the verb: the same one on another verb is another request, as when one thing that a user
does makes several requests. On the same verb with another body it is a mistake, `conflict`: nobody gets the answer to what
somebody else asked, and nothing is executed under an id that says that it has been already.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

KEPT_S = 60.0
KEPT_BYTES = 10 * 1024 * 1024
ENTRY_BYTES = 900
"""What an entry costs beside its body: key, headers and what holds them, as measured."""

Key = tuple[str, str, str]
"""Caller, verb and request id."""


@dataclass(slots=True)
class Outcome:
    """`body` is None while the handler runs; `replies` are the subjects that wait for it."""

    made: float
    deadline: float
    replies: list[str]
    asked: int
    """By which a copy is told from another request under the same id: the hash of its body."""
    body: bytes | None = None
    headers: dict[str, str] | None = None
    ended: float = 0.0
    connection: int = 0
    """Over which of our connections, counted, it was answered."""


class Replies:
    """Bounded by age and bytes; what is forgotten early is only ever an answer that can be asked for again."""

    def __init__(self) -> None:
        self._running: dict[Key, Outcome] = {}
        self._kept: OrderedDict[Key, Outcome] = OrderedDict()
        """In the order in which they ended."""
        self._bytes = 0
        self.complete_since = 0.0
        """Whatever was accepted later than this is still known (seconds since the epoch)."""

    def find(self, key: Key) -> Outcome | None:
        return self._running.get(key) or self._kept.get(key)

    def begin(self, key: Key, now: float, deadline: float, reply: str, asked: bytes) -> None:
        self._running[key] = Outcome(now, deadline, [reply], hash(asked))

    def end(self, key: Key, now: float, body: bytes, headers: dict[str, str], connection: int = 0) -> list[str]:
        """Keep the outcome; returns the subjects that wait for it."""
        outcome = self._running.pop(key, None)
        if outcome is None:
            return []
        outcome.ended, outcome.body, outcome.headers, outcome.connection = now, body, headers, connection
        waiting, outcome.replies = outcome.replies, []
        self._kept[key] = outcome
        self._bytes += ENTRY_BYTES + len(body)
        if self._bytes > KEPT_BYTES:
            self.trim(now)
        return waiting

    def trim(self, now: float) -> None:
        """Forget what ended too long ago, and the oldest while there are too many bytes; never what still runs."""
        while self._kept:
            key, oldest = next(iter(self._kept.items()))
            if now - oldest.ended < KEPT_S and self._bytes <= KEPT_BYTES:
                return
            del self._kept[key]
            self._bytes -= ENTRY_BYTES + len(oldest.body or b"")
            self.complete_since = max(self.complete_since, oldest.made)

    def joined(self, key: Key) -> bool:
        """Whether a copy waits for what runs, too."""
        outcome = self._running.get(key)
        return outcome is not None and len(outcome.replies) > 1

    def awaited_until(self, key: Key) -> float:
        outcome = self.find(key)
        return outcome.deadline if outcome else 0.0
