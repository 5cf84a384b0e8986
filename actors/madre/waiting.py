"""Events that wait for durable handlers, and the wakes that they cause: at once when they are heard, else at a look."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping

from actors.madre import asked
from actors.madre.machine import Machine
from actors.madre.policy import Policy
from bus import dead, streams
from bus.client import Bus
from bus.wire import Msg
from schemas.card import Card
from schemas.errors import Failure

log = logging.getLogger("vx11.madre.waiting")

LOOKS_AFTER = 2
"""So often it is looked after the log has grown: what has just come may not be counted yet."""


class Waiting:
    """Which actor has which durable handlers. What an event or a look costs does not grow with the actors that have none."""

    def __init__(self, bus: Bus, machine: Machine, policy: Policy) -> None:
        self._bus = bus
        self._machine = machine
        self._policy = policy
        self._durables: dict[str, dict[str, list[str]]] = {}
        """Of each actor that has any: consumer to subjects."""
        self._wanting: dict[str, set[str]] = {}
        """Of each subject the actors that are to be woken; it is listened to for good."""
        self._last = 0
        self._looks = LOOKS_AFTER

    def __bool__(self) -> bool:
        """Is there any durable handler?"""
        return bool(self._durables)

    async def register(self, card: Card) -> None:
        """Make the consumers of its durable handlers, notice their events at once, and look at what waits already."""
        durables: dict[str, list[str]] = {}
        for heard in card.events:
            if heard.durable:
                durables.setdefault(heard.durable, []).append(heard.subject)
        for name, subjects in durables.items():
            await streams.ensure_consumer(self._bus.api, streams.EVENTS, name, subjects)
            durables[name] = dead.filters(streams.EVENTS, name, subjects)
        for subject in _subjects(self._durables.pop(card.name, {})):
            self._wanting[subject].discard(card.name)
        if not durables:
            return
        self._durables[card.name] = durables
        for subject in _subjects(durables):
            if subject not in self._wanting:
                self._wanting[subject] = set()
                await self._bus.listen(subject, self._heard)
            self._wanting[subject].add(card.name)
        await self._look_at(card.name, durables)

    def _heard(self, msg: Msg) -> None:
        for actor in self._wanting.get(dead.filter_of(msg.subject), ()):
            self._wake(actor, f"the event {msg.subject}", msg.subject, msg.headers)

    def _wake(self, actor: str, reason: str, about: str = "", headers: Mapping[str, str] | None = None) -> None:
        driven = self._machine.driven.get(actor)
        if driven and driven.power.state in ("dormant", "draining", "adopting") and self._policy.allowed(actor, time.time()):
            self._machine.wake(driven, reason, asked.now("event", about, headers))

    def soon(self) -> None:
        """Something has changed that the log does not show: the next look asks for everything."""
        self._looks = LOOKS_AFTER

    async def look(self) -> None:
        """Wake whoever has something waiting. One question while nothing is published and nothing waits."""
        if not self._durables:
            return
        try:
            last = int((await streams.stream_info(self._bus.api, streams.EVENTS))["state"]["last_seq"])
            if last != self._last:
                self._last, self._looks = last, LOOKS_AFTER
            if not self._looks:
                return
            backlogs = await streams.backlogs(self._bus.api, streams.EVENTS)
        except Failure as failure:
            log.warning("looking at the events that wait: %s", failure)
            return
        counts = {actor: sum(sum(backlogs.get(name, ())) for name in names) for actor, names in self._durables.items()}
        self._looks = LOOKS_AFTER if any(counts.values()) else self._looks - 1
        for actor, count in counts.items():
            if count:
                self._wake(actor, f"{count} events wait")

    async def _look_at(self, actor: str, durables: Iterable[str]) -> None:
        """The same for one actor, at once."""
        try:
            count = sum([await streams.pending(self._bus.api, streams.EVENTS, name) for name in durables])
        except Failure as failure:
            log.warning("looking at the events that wait for %s: %s", actor, failure)
            return self.soon()
        if count:
            self._wake(actor, f"{count} events wait")
        return None


def _subjects(durables: Mapping[str, list[str]]) -> set[str]:
    return {subject for subjects in durables.values() for subject in subjects}
