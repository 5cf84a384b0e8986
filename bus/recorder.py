"""Call records: one small message per answered request, sent after the answer and shed before it could delay one."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from datetime import UTC, datetime
from typing import Any

from bus.wire import Wire
from schemas.errors import Failure

FLUSH_S = 0.2
BATCH = 500
"""Records sent per FLUSH_S; more are shed and counted."""


class Recorder:
    """Collects records of one process; `shed` counts those that were dropped at saturation."""

    def __init__(self, wire: Wire, actor: str, instance: str) -> None:
        self._wire = wire
        self._actor = actor
        self._instance = instance
        self._waiting: deque[tuple[str, dict[str, Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.shed = 0

    def record(self, verb: str, headers: dict[str, str], *, received: float, took_ms: float, held_ms: int, code: str) -> None:
        """Note one answered request. `headers`: correlation id, trace, request id and caller as they were understood."""
        if len(self._waiting) >= BATCH:
            self.shed += 1
            return
        note: dict[str, Any] = {
            **headers,
            "subject": f"vx11.{self._actor}.{verb}",
            "instance": self._instance,
            "received_at": datetime.fromtimestamp(received, UTC).isoformat(timespec="milliseconds"),
            "held_ms": held_ms,
            "took_ms": round(took_ms, 3),
            "code": code,
            "truncated": False,
        }
        self._waiting.append((verb, note))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Send what waits. Without a server it is shed: records never wait for one."""
        self._timer = None
        while self._waiting:
            verb, note = self._waiting.popleft()
            token = verb if verb.replace("_", "").isalnum() else "unknown"
            try:
                self._wire.send(f"vx11.calls.{self._actor}.{token}", json.dumps(note).encode())
            except Failure:
                self.shed += 1
