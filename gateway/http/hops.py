"""The call records of the door: one for each request that it has sent on to the bus, written after its answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bus.recorder import Recorder

if TYPE_CHECKING:
    from gateway.http.exchange import Exchange

SLICE = 4
"""Records that are sent at a time, 1,000 a second: what comes faster is measured by /metrics, not followed one by one."""


class Hops:
    """What never left the gateway has no record: its metrics count it."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def note(self, x: Exchange, status: int, took: float) -> None:
        """`took`: seconds, from the head of the request to the end of its answer. Nothing is written before the loop is idle."""
        circumstances = x.call
        ids = {
            "request_id": "",
            "correlation_id": circumstances.correlation_id,
            "traceparent": circumstances.traceparent,
            "parent": circumstances.parent,
            "caller": x.caller.id,
            "http": {"method": x.request.method, "route": x.route.path, "status": status},
        }
        self.recorder.record(x.route.name, ids, received=time.time() - took, took_ms=took * 1e3, held_ms=x.wake_ms, code=x.code)
