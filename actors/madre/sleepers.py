"""Discovery for sleepers: madre answers `$SRV` for every actor that does not answer for itself just now."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial

from actors.madre.driven import Driven
from actors.madre.machine import Machine
from bus.discovery import Discovery
from bus.stats import Stats
from bus.users import answerable
from bus.wire import Msg, Wire

AWAKE = ("handover", "active", "draining")


class Sleepers:
    """One subscription for all; ids of sleepers are `<actor>-dormant`, so that they stay the same."""

    def __init__(self, wire: Wire, machine: Machine) -> None:
        self._wire = wire
        self._machine = machine
        self._made: dict[str, tuple[str, Discovery]] = {}

    async def open(self) -> None:
        await self._wire.hear("$SRV.>", self._heard)

    def _heard(self, msg: Msg) -> None:
        reply = answerable(msg.reply)
        if not reply:
            return
        for driven in self._meant(msg.subject):
            if driven.card is None or driven.card.error or driven.power.state in AWAKE:
                continue
            if document := self._discovery(driven).answer(msg.subject):
                self._wire.send(reply, json.dumps(document).encode())

    def _meant(self, subject: str) -> Iterable[Driven]:
        """Those that the question may be about: one, when it names it."""
        _, _, name = [*subject.split("."), "", ""][:3]
        driven = self._machine.driven
        return [driven[name]] if name in driven else () if name else driven.values()

    def _discovery(self, driven: Driven) -> Discovery:
        version, made = self._made.get(driven.name, ("", None))
        if made is None or driven.card is None or version != driven.card.card_version:
            card = driven.card
            assert card
            made = Discovery(self._wire, lambda: card, f"{driven.name}-dormant", Stats(), state=partial(_metadata, driven))
            self._made[driven.name] = (card.card_version, made)
        return made


def _metadata(driven: Driven) -> dict[str, str]:
    return {"vx11.state": driven.power.state, "vx11.since": driven.since, "vx11.reason": driven.power.reason}
