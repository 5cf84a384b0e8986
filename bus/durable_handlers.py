"""The durable handlers of one actor as consumers: the body is parsed first, so that only a hopeless one counts as such.

Each try has a call record, like a request: in `event` it says which event it was of, and which try.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ValidationError

from bus.actor import Actor, Handler
from bus.call import Call, call_from, child_of, current
from bus.client import Bus
from bus.cloudevents import opened
from bus.durable import Durable, DurableConsumers
from bus.origin import event_span, headers_of, origin_of
from bus.recorder import Recorder
from bus.resources import Resources
from bus.streams import EVENTS
from bus.wire import Msg


class Consumers(DurableConsumers):
    """They write their records before they have stopped."""

    recorder: Recorder

    async def stop(self, patience_s: float | None = None) -> None:
        await super().stop(patience_s)
        self.recorder.flush()


def consumers(actor: Actor, bus: Bus, resources: Resources) -> Consumers:
    """Not started yet."""
    recorder = Recorder(bus.wire, actor.name, "")
    durables = [
        Durable(actor.durable_name(handler), EVENTS, [handler.message.subject], _run(handler, resources, recorder))
        for handler in actor.durables
    ]
    made = Consumers(bus.wire, durables, ladder=actor.retries)
    made.recorder = recorder
    return made


def _run(handler: Handler, resources: Resources, recorder: Recorder) -> Callable[[Msg], Awaitable[None]]:
    async def run(msg: Msg) -> None:
        circumstances = _circumstances(msg)
        token = current.set(circumstances)
        begun, received, code = time.perf_counter(), time.time(), "internal"
        try:
            _, body = opened(msg.headers, msg.data)
            event = handler.message.model_validate_json(body or b"{}")
            try:
                await handler.run(event, **resources.give(handler.wants, circumstances))
            except ValidationError as error:  # of something else than the event: trying again may help
                raise RuntimeError(f"{handler.name}: {error}") from error
            code = "ok"
        except ValidationError:
            code = "invalid"
            raise
        except asyncio.CancelledError:
            code = "cancelled"
            raise
        finally:
            current.reset(token)
            took_ms = (time.perf_counter() - begun) * 1e3
            recorder.record(handler.name, _ids(msg, circumstances), received=received, took_ms=took_ms, held_ms=0, code=code)

    return run


def _circumstances(msg: Msg) -> Call:
    """Below the event itself; one that came plain has the same conversation and trace for all who handle it, at each try."""
    at = msg.delivery
    correlation, traceparent = origin_of(at.stream, at.sequence, msg.headers, msg.data)
    return call_from(headers_of(msg.headers, msg.data))._replace(
        correlation_id=correlation,
        traceparent=child_of(traceparent),
        parent=event_span(at.stream, at.sequence, traceparent),
        deadline=0.0,
    )


def _ids(msg: Msg, circumstances: Call) -> dict[str, Any]:
    at = msg.delivery
    return {
        "request_id": "",
        "correlation_id": circumstances.correlation_id,
        "traceparent": circumstances.traceparent,
        "parent": circumstances.parent,
        "caller": circumstances.caller,
        "event": {"subject": msg.subject, "stream": at.stream, "sequence": at.sequence, "try": at.num_delivered},
    }
