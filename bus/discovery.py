"""The NATS services protocol (ADR-32): PING, INFO and STATS for an awake actor, and the documents for a sleeper."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from bus.moment import rfc3339_now
from bus.stats import Stats, VerbStats
from bus.users import answerable
from bus.wire import Msg, Wire
from schemas.card import Card

TYPE = "io.nats.micro.v1.{}_response"
KINDS = ("PING", "INFO", "STATS")


class Discovery:
    """Answers `$SRV.>` for one service; `state` is what `metadata` says of its power state."""

    def __init__(
        self,
        wire: Wire,
        card: Callable[[], Card],
        id_: str,
        stats: Stats,
        *,
        state: Callable[[], dict[str, str]] = lambda: {"vx11.state": "active"},
    ) -> None:
        self._wire = wire
        self._card = card
        self.id = id_
        self._stats = stats
        self._state = state
        self._started = rfc3339_now()

    @property
    def card(self) -> Card:
        return self._card()

    async def open(self) -> None:
        await self._wire.hear("$SRV.>", self.heard)

    def heard(self, msg: Msg) -> None:
        """Answer if the question concerns this service."""
        reply = answerable(msg.reply)
        if reply and (document := self.answer(msg.subject)):
            self._wire.send(reply, json.dumps(document).encode())

    def answer(self, subject: str) -> dict[str, Any] | None:
        """The document that ADR-32 asks for on `subject`, None when it is meant for others."""
        parts = subject.split(".")
        if len(parts) < 2 or parts[1] not in KINDS or len(parts) > 4:
            return None
        if (len(parts) > 2 and parts[2] != self.card.name) or (len(parts) > 3 and parts[3] != self.id):
            return None
        common = {"name": self.card.name, "id": self.id, "version": self.card.version, "metadata": self._state()}
        made: dict[str, Any] = {"type": TYPE.format(parts[1].lower()), **common}
        if parts[1] == "INFO":
            made["description"] = self.card.summary
            made["endpoints"] = [self._endpoint(verb.name, verb.subject) for verb in self.card.verbs]
        elif parts[1] == "STATS":
            made["started"] = self._started
            made["endpoints"] = [self._counted(verb.name, verb.subject) for verb in self.card.verbs]
        return made

    def _endpoint(self, name: str, subject: str) -> dict[str, Any]:
        return {"name": name, "subject": subject, "queue_group": self.card.name, "metadata": {}}

    def _counted(self, name: str, subject: str) -> dict[str, Any]:
        counted = self._stats.verbs.get(name, VerbStats())
        spent = int(counted.seconds * 1e9)
        return {
            "name": name,
            "subject": subject,
            "queue_group": self.card.name,
            "num_requests": counted.requests,
            "num_errors": counted.errors,
            "last_error": counted.last_error,
            "processing_time": spent,
            "average_processing_time": spent // counted.requests if counted.requests else 0,
        }
