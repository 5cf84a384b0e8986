"""One actor as madre drives it: its machine, its stand-in, and the moves that wait while its record is being written."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from actors.madre.effects import Effect, Held
from actors.madre.power import Power
from actors.madre.standin import StandIn
from bus.client import Bus
from bus.recorder import Recorder
from schemas.card import Card
from schemas.power import ActorRecord

TRANSITIONS_KEPT = 20


class Driven:
    """`waiting` are moves; while `storing`, the record is being written or read and none is made."""

    def __init__(self, bus: Bus, name: str, knock: Callable[[Driven, Held], None]) -> None:
        self.name = name
        self.power = Power(name)
        self.record = ActorRecord(actor=name)
        self.card: Card | None = None
        self.hosts: set[str] = set()
        self.transitions: deque[tuple[str, str, str]] = deque(maxlen=TRANSITIONS_KEPT)
        self.changed = asyncio.Event()
        self.stand_in = StandIn(bus, name, partial(knock, self), lambda: self.power.state)
        self.waiting: deque[Callable[[], list[Effect]]] = deque()
        self.storing = False
        self.since = ""
        self.shown = ""
        self.notes: dict[str, object] = {}
        """What the record tells besides the machine's state: the gate, and the idle time of the card."""
        self.recorder = Recorder(bus.wire, name, "madre")

    def stirred(self) -> None:
        """Wake those who wait for a state."""
        self.changed.set()
        self.changed = asyncio.Event()
