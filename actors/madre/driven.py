"""One actor as madre drives it: its machine, its stand-in, and the moves that wait while its record is being written."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from actors.madre.asked import Asked, by_request
from actors.madre.effects import Effect, Held
from actors.madre.kept import KeptCard
from actors.madre.power import Power
from actors.madre.standin import StandIn
from bus import call
from bus.client import Bus
from schemas.power import ActorRecord

TRANSITIONS_KEPT = 20


@dataclass(frozen=True)
class Move:
    """What is to be done with the machine in its turn; `held` if it is a request that has arrived."""

    make: Callable[[], list[Effect]]
    held: Held | None = None


class Driven:
    """`waiting` are moves; while `storing`, the record is being written or read and none is made."""

    def __init__(self, bus: Bus, name: str, knock: Callable[[Driven, Held], None]) -> None:
        self.name = name
        self.power = Power(name)
        self.record = ActorRecord(actor=name)
        self.card: KeptCard | None = None
        self.hosts: set[str] = set()
        self.transitions: deque[tuple[str, str, str]] = deque(maxlen=TRANSITIONS_KEPT)
        self._changed: asyncio.Event | None = None
        self.stand_in = StandIn(bus, name, partial(knock, self), lambda: self.power.state)
        self.waiting: deque[Move] = deque()
        self.storing = False
        self.since = ""
        self.shown = ""
        self.notes: dict[str, object] = {}
        """What the record tells besides the machine's state: the gate, and the idle time of the card."""
        self.wanted_by = self.slept_by = Asked()
        """What last asked for a wake without being a request to the actor itself; and for the sleep."""
        self.cause: tuple[str, Asked] = ("", Asked())
        """The last activation, and what it was for."""

    def woken_by(self, id_: str) -> Asked:
        """For the activation `id_`: the request that has waited longest, else whatever asked for the wake."""
        if self.cause[0] != id_:
            held = next(iter(self.power.held), None)
            asked = by_request(held) if held else self.wanted_by
            self.cause, self.wanted_by = (id_, replace(asked, headers=call.conversation(asked.headers))), Asked()
        return self.cause[1]

    @property
    def card_version(self) -> str:
        """Of the code that the owner runs: what it beats, else what the record told of it; empty when neither says."""
        beat = self.power.beat
        return beat.card_version if beat.run and beat.run == self.power.run else self.record.card_version

    def written(self, changes: Mapping[str, object]) -> ActorRecord:
        """The record as it is to be, with what this move changes."""
        power = self.power
        owned = {"instance": power.id, "host": power.host, "pid": power.pid, "born": power.born}
        return self.record.model_copy(
            update={
                "state": power.state,
                "epoch": power.epoch,
                "owner": power.run,
                **(owned if power.run else dict.fromkeys(owned, "") | {"pid": 0, "born": 0.0}),
                "since": self.since,
                "wakes": power.wakes,
                "last_wake_ms": power.last_wake_ms,
                "held": len(power.held),
                "reason": power.reason,
                "card_version": self.card_version,
                **self.notes,
                **changes,
            }
        )

    @property
    def hand(self) -> list[Held]:
        """Every request that this madre has taken and nobody else has: held, not acknowledged, or not yet in its turn."""
        return [*self.power.held, *self.power.forwarded, *(move.held for move in self.waiting if move.held)]

    def overdue(self, now: float) -> list[Held]:
        """Requests that were waiting for their turn for too long, taken out."""
        late = [move for move in self.waiting if move.held and now >= move.held.expires]
        for move in late:
            self.waiting.remove(move)
        return [move.held for move in late if move.held]

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change; made when somebody waits for it."""
        self._changed = self._changed or asyncio.Event()
        return self._changed

    def taken_out(self) -> list[Held]:
        """Every request that waits for the record or for the wake that needs it."""
        return [*self.power.held.take_all(), *self.overdue(math.inf)]

    def stirred(self) -> None:
        """Wake those who wait for a state."""
        if self._changed:
            self._changed.set()
            self._changed = None
