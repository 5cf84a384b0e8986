"""Call records: one small message per answered request, sent after the answer and shed before it could delay one."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from bus.moment import rfc3339
from bus.wire import Wire
from schemas.errors import Failure

FLUSH_S = 0.2
"""What the first record waits for others."""
SLICE = 25
SLICE_S = 0.01
"""So many are sent at a time, and the next after a pause: together they would hold up an answer for milliseconds."""
WAITING_MOST = 500
"""Records that wait; more are shed and counted. At SLICE each SLICE_S that is what comes in FLUSH_S."""
UNKNOWN = "unknown"
"""The last token of all records of verbs that the actor does not have: strangers do not name subjects in the stream."""


class Record(NamedTuple):
    """What is noted when a request has been answered; `known`: its verb is one of the actor's."""

    verb: str
    ids: Mapping[str, str]
    received: float
    took_ms: float
    held_ms: int
    code: str
    known: bool


class Recorder:
    """Collects records of one process; `shed` counts those that were dropped at saturation."""

    def __init__(self, wire: Wire, actor: str, instance: str) -> None:
        self._wire = wire
        self._actor = actor
        self._instance = instance
        self._waiting: deque[Record] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.shed = 0

    def record(
        self,
        verb: str,
        ids: Mapping[str, str],
        *,
        received: float,
        took_ms: float,
        held_ms: int,
        code: str,
        known: bool = True,
    ) -> None:
        """Note one answered request. `ids`: correlation id, trace, request id and caller as they were understood."""
        if len(self._waiting) >= WAITING_MOST:
            self.shed += 1
            return
        self._waiting.append(Record(verb, ids, received, took_ms, held_ms, code, known))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._send_slice)

    def flush(self) -> None:
        """Send all that waits. Without a server it is shed: records never wait for one."""
        while self._waiting:
            self._send(self._waiting.popleft())

    def _send_slice(self) -> None:
        for _ in range(min(SLICE, len(self._waiting))):
            self._send(self._waiting.popleft())
        self._timer = asyncio.get_running_loop().call_later(SLICE_S, self._send_slice) if self._waiting else None

    def _send(self, record: Record) -> None:
        token = record.verb if record.known else UNKNOWN
        try:
            self._wire.send(f"vx11.calls.{self._actor}.{token}", self._document(record))
        except Failure:
            self.shed += 1

    def _document(self, record: Record) -> bytes:
        return json.dumps(
            {
                **record.ids,
                "subject": f"vx11.{self._actor}.{record.verb}",
                "instance": self._instance,
                "received_at": rfc3339(record.received),
                "held_ms": record.held_ms,
                "took_ms": round(record.took_ms, 3),
                "code": record.code,
                "truncated": False,
            }
        ).encode()
