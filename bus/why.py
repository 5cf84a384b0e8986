"""Why an actor is as it is: its power events as steps, each with what happened, why, who asked and how long it took."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bus import call
from bus.client import Bus
from bus.eventlog import EventLog, Stored
from bus.moment import rfc3339
from schemas.madre import Step
from schemas.power import (
    Activate,
    Active,
    Adopting,
    Denied,
    Draining,
    Exited,
    Failed,
    PowerEvent,
    Recalled,
    Rested,
    Slept,
)

EVENTS_A_STEP = 3
"""A wake has three events and a sleep has three: of so many more the newest are read than steps are asked for."""
UNKNOWN = "the cause is unknown"
GONE = "the cause is unknown: the event that says it is not in the log any more"
CRASHED = "its process ended"
TOLD = {
    "request": "a request",
    "event": "an event",
    "operator": "an order",
    "policy": "the policy",
    "window": "a window",
    "gate": "its gate or the policy",
    "idle": "nothing to do",
    "code": "its code has changed",
    "crash": "a crash",
    "signal": "its process was told to end",
    "host": "its host",
    "server": "the bus was away",
    "silence": "it was not heard of",
    "madre": "a new madre",
}


async def steps_of(bus: Bus, actor: str, limit: int) -> list[Step]:
    """The last `limit` steps, oldest first. Raises Failure("unavailable") when the log cannot be read."""
    events = await EventLog(bus).newest((limit + 1) * EVENTS_A_STEP, subject=f"vx11.events.power.*.{actor}")
    return fold(events)[-limit:]


def fold(events: Iterable[Stored]) -> list[Step]:
    """The steps that the power events of one actor tell of, oldest first."""
    life = _Life()
    for stored in events:
        life.take(stored)
    return life.steps


@dataclass
class _Life:
    """What has been seen so far of one actor."""

    steps: list[Step] = field(default_factory=list)
    asked: dict[str, tuple[Step, float]] = field(default_factory=dict)
    """Of each activation its step, and when it was."""
    leaving: tuple[Step, float] | None = None
    """The step of the drain that is under way, and when it began."""
    run: str = ""
    """The run that was last awake."""
    over: set[str] = field(default_factory=set)
    """The runs whose end has been told of."""

    def take(self, stored: Stored) -> None:
        try:
            told = json.loads(stored.body)
        except ValueError:
            return
        handle = _HANDLERS.get(stored.subject.rpartition(".")[0])
        if handle and isinstance(told, dict):
            handle(self, stored, told)

    def activate(self, stored: Stored, told: Mapping[str, Any]) -> None:
        if _text(told, "id") not in self.asked:  # it is repeated until it is heard
            self._add(stored, told, "waking")
            self.asked[_text(told, "id")] = (self.steps[-1], stored.at)

    def active(self, stored: Stored, told: Mapping[str, Any]) -> None:
        last = self.steps[-1].what if self.steps else ""
        if told.get("stay"):
            if last == "adopting":
                self._add(stored, told, "active", said="it answered: it had been awake all the time", because=self.steps[-1])
            return  # else it was called back, which `recalled` tells of
        asked = self.asked.get(_text(told, "id"))
        self.run = _text(told, "run")
        self._add(stored, told, "active", because=asked and asked[0], since=asked and asked[1])

    def draining(self, stored: Stored, told: Mapping[str, Any]) -> None:
        self._add(stored, told, "draining")
        self.leaving = (self.steps[-1], stored.at)

    def slept(self, stored: Stored, told: Mapping[str, Any]) -> None:
        if (run := _text(told, "run")) not in self.over:
            self.over.add(run)
            leaving, self.leaving = self.leaving, None
            self._add(stored, told, "dormant", because=leaving and leaving[0], since=leaving and leaving[1])

    def exited(self, stored: Stored, told: Mapping[str, Any]) -> None:
        run = _text(told, "run")
        if run in self.over:
            return
        if not told.get("clean"):
            self.over.add(run)
            self.leaving = None
            self._add(stored, {**told, "cause": "crash"}, "crashed", said=_text(told, "reason") or CRASHED)
        elif run == self.run:
            self.slept(stored, told)  # its own word was lost
        # else it was not the first to claim the actor, and touched nothing

    def recalled(self, stored: Stored, told: Mapping[str, Any]) -> None:
        self.leaving = None
        self._add(stored, told, "active", said="it was called back while it was leaving")

    def failed(self, stored: Stored, told: Mapping[str, Any]) -> None:
        self._add(stored, told, "failed")

    def rested(self, stored: Stored, told: Mapping[str, Any]) -> None:
        self._add(stored, told, "dormant", said="it may be woken again")

    def adopting(self, stored: Stored, told: Mapping[str, Any]) -> None:
        self._add(stored, told, "adopting")

    def denied(self, stored: Stored, told: Mapping[str, Any]) -> None:
        self._add(stored, told, "denied")

    def _add(
        self,
        stored: Stored,
        told: Mapping[str, Any],
        what: str,
        *,
        said: str = "",
        because: Step | None = None,
        since: float | None = None,
    ) -> None:
        cause = because.cause if because else _text(told, "cause")
        reason = said or _text(told, "reason") or (because.reason if because else "")
        known = cause in TOLD or (bool(reason) and (because is None or because.explained))
        self.steps.append(
            Step(
                sequence=stored.sequence,
                at=rfc3339(stored.at),
                what=what,
                cause=cause,
                explained=known,
                reason=reason or (GONE if because is None and what in ("active", "dormant") else UNKNOWN),
                by=because.by if because else _text(told, "by"),
                about=because.about if because else _text(told, "about"),
                request_id=because.request_id if because else _text(told, "request_id"),
                correlation_id=because.correlation_id if because else _conversation(stored, what),
                took_ms=None if since is None else round((stored.at - since) * 1000, 2),
                run=_text(told, "run"),
            )
        )


def _conversation(stored: Stored, what: str) -> str:
    """That of what has caused it; a crash belongs to none."""
    return "" if what == "crashed" else stored.headers.get(call.CORRELATION, "")


def _text(told: Mapping[str, Any], name: str) -> str:
    value = told.get(name)
    return value if isinstance(value, str) else ""


_KINDS: dict[type[PowerEvent], Any] = {
    Activate: _Life.activate,
    Active: _Life.active,
    Draining: _Life.draining,
    Slept: _Life.slept,
    Exited: _Life.exited,
    Recalled: _Life.recalled,
    Failed: _Life.failed,
    Rested: _Life.rested,
    Adopting: _Life.adopting,
    Denied: _Life.denied,
}
_HANDLERS = {kind.subject: handle for kind, handle in _KINDS.items()}
