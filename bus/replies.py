"""The reply cache: one request id, one outcome. An entry is made when a request is accepted; copies join it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

KEPT_S = 60.0
KEPT_BYTES = 10 * 1024 * 1024
ENTRY_BYTES = 400
"""What an entry costs beside its body, about."""

Key = tuple[str, str]
"""Caller and request id."""


@dataclass(slots=True)
class Outcome:
    """`body` is None while the handler runs; `replies` are the subjects that wait for it."""

    made: float
    deadline: float
    replies: list[str]
    body: bytes | None = None
    headers: dict[str, str] | None = None


class Replies:
    """Bounded by age and bytes; what is forgotten early is only ever an answer that can be asked for again."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, Outcome] = OrderedDict()
        self._bytes = 0

    def find(self, key: Key) -> Outcome | None:
        return self._kept.get(key)

    def begin(self, key: Key, now: float, deadline: float, reply: str) -> None:
        self._kept[key] = Outcome(now, deadline, [reply])
        self._bytes += ENTRY_BYTES

    def end(self, key: Key, body: bytes, headers: dict[str, str]) -> list[str]:
        """Keep the outcome; returns the subjects that wait for it."""
        outcome = self._kept.get(key)
        if outcome is None:
            return []
        outcome.body, outcome.headers = body, headers
        self._bytes += len(body)
        return outcome.replies

    def forget(self, key: Key) -> None:
        if outcome := self._kept.pop(key, None):
            self._bytes -= ENTRY_BYTES + len(outcome.body or b"")

    def trim(self, now: float) -> None:
        """Forget what is too old, and the oldest while there are too many bytes; never what still runs."""
        while self._kept:
            key, oldest = next(iter(self._kept.items()))
            if oldest.body is None or (now - oldest.made < KEPT_S and self._bytes <= KEPT_BYTES):
                return
            self.forget(key)

    def awaited_until(self, key: Key) -> float:
        outcome = self._kept.get(key)
        return outcome.deadline if outcome else 0.0
