"""The requests that wait for a sleeper: bounded by count and bytes, each answered before its time is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from actors.madre.effects import Held

HELD_MOST = 4_096
HELD_BYTES_MOST = 16 * 1024 * 1024


class Hold:
    """In the order of arrival."""

    def __init__(self) -> None:
        self._held: dict[int, Held] = {}
        self._copies: Counter[tuple[str, str]] = Counter()
        """How many of each request: after a server restart all of them may come again at once."""
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    def add(self, held: Held) -> bool:
        """False when there is no room. A repeat whose first copy is still here is that copy."""
        if held.again and held.same in self._copies:
            return True
        if len(self._held) >= HELD_MOST or self._bytes + held.size > HELD_BYTES_MOST:
            return False
        self._held[held.n] = held
        self._copies[held.same] += 1
        self._bytes += held.size
        return True

    def take_all(self) -> list[Held]:
        return self._take(list(self._held.values()))

    def take_expired(self, now: float) -> list[Held]:
        return self._take([held for held in self._held.values() if now >= held.expires])

    def drop_copies(self, held: Held) -> None:
        """Repeats of a request that has just been answered."""
        if held.same in self._copies:
            self._take([other for other in self._held.values() if other.same == held.same])

    def _take(self, taken: list[Held]) -> list[Held]:
        for held in taken:
            del self._held[held.n]
            self._bytes -= held.size
            self._copies[held.same] -= 1
            if not self._copies[held.same]:
                del self._copies[held.same]
        return taken
