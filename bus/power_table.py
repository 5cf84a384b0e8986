"""Who is awake, worked out from the power events of the log alone: what VX11_ACTORS says, for any moment that the log has."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bus.eventlog import EventLog, Stored
from schemas.madre import MadreStarted
from schemas.message import Event
from schemas.power import (
    Activate,
    Active,
    Adopting,
    Denied,
    Draining,
    Exited,
    Failed,
    Recalled,
    Rested,
    Slept,
    State,
    Waking,
)

POWER = "vx11.events.power.>"
MADRE = "madre"
"""Nobody wakes her: she says herself that she is here."""
PAGE = 1_000
ENDED_MOST = 32
"""Of each actor: runs that have ended, and of whom a word may still come."""


@dataclass(frozen=True)
class Row:
    """One actor. `owner`: the run that has it; `at`: when the last change was stored; `sequence`: where it is in the log.

    `wakes`: instances that came to be awake; the record has fewer when madre died before she had counted one.
    """

    actor: str
    state: State = "dormant"
    instance: str = ""
    owner: str = ""
    host: str = ""
    pid: int = 0
    wakes: int = 0
    reason: str = ""
    at: float = 0.0
    sequence: int = 0

    @property
    def asleep(self) -> Row:
        return replace(self, state="dormant", instance="", owner="", host="", pid=0)


@dataclass
class PowerTable:
    """Power events go in, in the order of the log; `rows` are what they amount to. Pure.

    An actor of which no event has come is not in it: in a log that has its beginning, it has never been awake.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    through: int = 0
    unread: int = 0
    """Power events that nobody can read: none of ours."""
    _ended: dict[str, deque[str]] = field(default_factory=dict)
    _woken: dict[str, str] = field(default_factory=dict)
    """The last activation of each actor that has led to an instance: a wake is counted once."""

    def take(self, stored: Stored) -> None:
        self.through = max(stored.sequence, self.through)
        kind, _, actor = stored.subject.rpartition(".")
        if stored.subject == MadreStarted.subject:
            kind, actor = stored.subject, MADRE
        if (change := _CHANGES.get(kind)) is None:
            return
        try:
            told = json.loads(stored.body)
            told["run" if actor == MADRE else "actor"]
        except (ValueError, KeyError, TypeError):
            self.unread += 1
            return
        row = self.rows.get(actor, Row(actor))
        made = change(self, row, told)
        if made is not row:
            reason = str(told.get("reason") or made.reason)
            self.rows[actor] = replace(made, reason=reason, at=stored.at, sequence=stored.sequence)

    def activate(self, row: Row, told: Mapping[str, Any]) -> Row:
        """An order is repeated until it is heard: it changes nothing under an owner."""
        if row.owner or (row.state == "waking" and row.instance == told.get("id")):
            return row
        record = told.get("record")
        wakes = record.get("wakes", row.wakes) if isinstance(record, Mapping) else row.wakes
        return replace(row.asleep, state="waking", instance=str(told.get("id", "")), wakes=int(wakes))

    def active(self, row: Row, told: Mapping[str, Any]) -> Row:
        run, instance = str(told.get("run", "")), str(told.get("id", ""))
        if run in self._ended.get(row.actor, ()) or (row.owner and row.owner != run):
            return row
        fresh = instance != self._woken.get(row.actor)
        self._woken[row.actor] = instance
        return replace(
            row,
            state="active",
            instance=instance,
            owner=run,
            host=str(told.get("host") or row.host),
            pid=int(told.get("pid") or row.pid),
            wakes=row.wakes + (fresh and not told.get("stay")),
        )

    def ended(self, row: Row, told: Mapping[str, Any]) -> Row:
        """`slept` and `exited`: both come of one run. That of another process than the owner's ends nothing."""
        run = str(told.get("run", ""))
        if run:
            self._ended.setdefault(row.actor, deque(maxlen=ENDED_MOST)).append(run)
        if (run and run == row.owner) or (row.state == "waking" and not row.owner and row.instance == told.get("id")):
            return row.asleep
        return row

    def draining(self, row: Row, told: Mapping[str, Any]) -> Row:
        return self._owned(row, told, "draining")

    def recalled(self, row: Row, told: Mapping[str, Any]) -> Row:
        return self._owned(row, told, "active")

    def adopting(self, row: Row, told: Mapping[str, Any]) -> Row:
        return self._owned(row, told, "adopting")

    def _owned(self, row: Row, told: Mapping[str, Any], state: State) -> Row:
        """What madre says of a run that lives as far as she knows; its end may have been told of before that."""
        run = str(told.get("run", ""))
        if not run or run in self._ended.get(row.actor, ()):
            return row
        return replace(row, state=state, owner=run, instance=str(told.get("id") or row.instance))


_KINDS: dict[type[Event], Any] = {
    Activate: PowerTable.activate,
    Waking: lambda _table, row, _told: row,  # a process began, which is not yet anybody's
    Active: PowerTable.active,
    Draining: PowerTable.draining,
    Recalled: PowerTable.recalled,
    Adopting: PowerTable.adopting,
    Slept: PowerTable.ended,
    Exited: PowerTable.ended,
    Failed: lambda _table, row, _told: replace(row.asleep, state="failed"),
    Rested: lambda _table, row, _told: row.asleep if row.state == "failed" else row,
    MadreStarted: lambda _table, row, told: replace(row, state="active", instance=told["run"], owner=told["run"]),
    Denied: lambda _table, row, _told: row,
}
_CHANGES = {kind.subject: change for kind, change in _KINDS.items()}


async def power_table(log: EventLog, last: int) -> PowerTable:
    """What the log says up to the sequence `last`. Raises Failure("unavailable") when it cannot be read."""
    table = PowerTable()
    for subject in (POWER, MadreStarted.subject):
        after = 0
        while after < last and (page := await log.read(after, PAGE, subject=subject)):
            after = page[-1].sequence
            for stored in page:
                if stored.sequence <= last:
                    table.take(stored)
    return table
