"""The requests that were sent on to an instance and not yet acknowledged by it, and what becomes of them when it is gone."""

from __future__ import annotations

from collections.abc import Iterator

from actors.madre.effects import Answer, Bury, Effect, Held
from actors.madre.hold import Hold

KILLS_MOST = 2
"""A request that was with so many instances when they died is not given to another."""


class Forwards:
    """In the order of their numbers, which are madre's own."""

    def __init__(self) -> None:
        self._sent: dict[int, Held] = {}

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._sent.values()))

    def add(self, held: Held, now: float) -> None:
        held.sent_at = now
        self._sent[held.n] = held

    def acked(self, n: int) -> None:
        self._sent.pop(n, None)

    def overdue(self, now: float, after: float) -> list[Held]:
        return [held for held in self._sent.values() if now - held.sent_at >= after]

    def settle(self, hold: Hold, name: str) -> list[Effect]:
        """The instance is gone, and whether it began these is unknown (5): held again, answered, or buried."""
        done: list[Effect] = []
        for held in self:
            held.kills += 1
            if held.kills >= KILLS_MOST:
                hold.drop_copies(held)
                told = f"{held.kills} instances of {name} died while they had this request"
                done += [Bury(held), Answer(held, "crashed", told)]
            elif not held.idempotent:
                hold.drop_copies(held)
                done.append(Answer(held, "crashed", f"the instance of {name} is gone; it may have begun this request"))
            elif not hold.add(held):
                done.append(Answer(held, "busy", f"{len(hold)} requests already wait for {name} to wake", 1.0))
        self._sent.clear()
        return done
