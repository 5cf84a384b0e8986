"""Call records: one small message per answered request, sent after the answer and shed before it could delay one."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from bus.bodies import Bodies
from bus.moment import rfc3339
from bus.redaction import without_credentials
from bus.wire import Wire
from schemas.errors import Failure

FLUSH_S = 0.2
"""What the first record waits for others."""
SLICE = 10
SLICE_S = 0.004
"""So many are sent at a time, and the next after a pause: together they would hold up an answer."""
SLICE_BYTES = 64 * 1024
"""A slice ends early past so many bytes of bodies: each byte is read and written once more."""
WAITING_BYTES_MOST = 4 * 1024 * 1024
"""Bodies that wait; beyond, calls are recorded without theirs, as `truncated`."""
WAITING_MOST = 500
"""Records that wait; more are shed and counted. At SLICE each SLICE_S that is what comes in FLUSH_S."""
UNKNOWN = "unknown"
"""The last token of all records of verbs that the actor does not have: strangers do not name subjects in the stream."""


class Record(NamedTuple):
    """What is noted when a request has been answered; `known`: its verb is one of the actor's."""

    verb: str
    ids: Mapping[str, object]
    received: float
    took_ms: float
    held_ms: int
    code: str
    known: bool
    bodies: Bodies | None
    truncated: bool
    """There were bodies, and no room for them."""


class Recorder:
    """Collects records of one process; `shed` counts those that were dropped at saturation."""

    def __init__(self, wire: Wire, actor: str, instance: str, *, slice_: int = SLICE) -> None:
        self._slice = slice_
        self._wire = wire
        self._actor = actor
        self._instance = instance
        self._waiting: deque[Record] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_bytes = 0
        self.shed = 0

    def record(
        self,
        verb: str,
        ids: Mapping[str, object],
        *,
        received: float,
        took_ms: float,
        held_ms: int,
        code: str,
        known: bool = True,
        bodies: Bodies | None = None,
    ) -> None:
        """Note one answered request. `ids`: correlation id, trace, request id and caller as they were understood."""
        if len(self._waiting) >= WAITING_MOST:
            self.shed += 1
            return
        truncated = bodies is not None and self._waiting_bytes + bodies.size > WAITING_BYTES_MOST
        if truncated:
            bodies = None
        elif bodies is not None:
            self._waiting_bytes += bodies.size
        self._waiting.append(Record(verb, ids, received, took_ms, held_ms, code, known, bodies, truncated))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._send_slice)

    def flush(self) -> None:
        """Send all that waits. Without a server it is shed: records never wait for one."""
        while self._waiting:
            self._send_next()

    def _send_slice(self) -> None:
        least = self._waiting_bytes - SLICE_BYTES
        for _ in range(min(self._slice, len(self._waiting))):
            self._send_next()
            if self._waiting_bytes < least:
                break
        self._timer = asyncio.get_running_loop().call_later(SLICE_S, self._send_slice) if self._waiting else None

    def _send_next(self) -> None:
        record = self._waiting.popleft()
        self._waiting_bytes -= record.bodies.size if record.bodies else 0
        token = record.verb if record.known else UNKNOWN
        try:
            self._wire.send(f"vx11.calls.{self._actor}.{token}", self._document(record))
        except Failure:
            self.shed += 1

    def _document(self, record: Record) -> bytes:
        text = json.dumps(
            {
                **record.ids,
                "subject": f"vx11.{self._actor}.{record.verb}",
                "instance": self._instance,
                "received_at": rfc3339(record.received, "microseconds"),
                "held_ms": record.held_ms,
                "took_ms": round(record.took_ms, 3),
                "code": record.code,
                **(record.bodies.document() if record.bodies else {"truncated": record.truncated}),
            }
        )
        return without_credentials(text).encode()  # a stranger chooses ids, too
