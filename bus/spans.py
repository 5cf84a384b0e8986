"""What a trace is made of, from what the log says: each call record, event and wake becomes a span with an id of its own.

Pure. The same messages give the same spans, whoever asks and whenever: `vx11 trace` shows what the exporter sends. Names and
attributes are OpenTelemetry's, of its conventions for messaging and HTTP. Times are microseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from bus.call import NO_SPAN, TRACEPARENT_FORM, parent_in
from bus.eventlog import STREAM, Stored
from bus.moment import microseconds
from bus.origin import derived_span, event_span, object_in, origin_of

Kind = Literal["server", "consumer", "producer", "internal"]
Value = str | int | float | bool

CALLS = "vx11.calls."
POWER = "vx11.events.power."
GATEWAY = "tentaculo_link"
MADRE = "madre"
SERVER_FAULT = 500
"""An HTTP answer from this status on is the server's own fault."""
WAKE_PARTS = ("activate", "waking", "active", "failed")
SLACK_US = 2_000
"""Moments of the power events are cut to milliseconds."""


@dataclass(frozen=True)
class Span:
    """One span. `sampled`: what the door was told, None when nobody has decided. `remote`: its parent is not VX11's own."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: Kind
    start_us: int
    end_us: int
    conversation: str
    sampled: bool | None
    attributes: Mapping[str, Value] = field(default_factory=dict)
    error: str = ""
    remote: bool = False
    open: bool = False
    """How it ends has not been told yet."""

    @property
    def took_ms(self) -> float:
        return (self.end_us - self.start_us) / 1e3

    @property
    def service(self) -> str:
        """The actor whose doing it is."""
        told = self.attributes.get("vx11.actor")
        if told is None:
            told = str(self.attributes.get("messaging.destination.name", "")).split(".")[2]
        return MADRE if told == "power" else str(told)


class Place(NamedTuple):
    """What a traceparent says."""

    trace_id: str
    span_id: str
    sampled: bool | None


class Call(NamedTuple):
    """A call record that can be read."""

    place: Place
    document: Mapping[str, Any]
    received_us: int

    @property
    def actor(self) -> str:
        return str(self.document["subject"]).split(".")[1]

    @property
    def arrived_us(self) -> int:
        """When it was first in VX11's hands: madre's, for what was held."""
        held = int(self.document["held_ms"]) * 1_000
        return self.received_us if self.by_madre else self.received_us - held

    @property
    def begun_us(self) -> int:
        """When it was no longer held."""
        return self.received_us + int(self.document["held_ms"]) * 1_000 if self.by_madre else self.received_us

    @property
    def by_madre(self) -> bool:
        """Answered in the actor's place."""
        return self.document.get("instance") == MADRE and self.actor != MADRE


@dataclass
class Wake:
    """The events of one activation by their last word but one: `activate`, `waking`, `active`, `failed`."""

    id: str
    actor: str
    conversation: str
    place: Place
    parent_id: str
    at: dict[str, int] = field(default_factory=dict)
    told: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    given_up_us: int = 0
    """When another activation took its place."""

    @property
    def key(self) -> tuple[str, str]:
        """Spans are put together within one trace of one conversation only."""
        return self.place.trace_id, self.conversation

    @property
    def span_id(self) -> str:
        return derived_span("wake", self.id)

    @property
    def start_us(self) -> int:
        return min(self.at.values())

    @property
    def end_us(self) -> int:
        return self.at.get("active") or self.at.get("failed") or self.given_up_us or max(self.at.values())

    @property
    def ended(self) -> bool:
        return "active" in self.at or "failed" in self.at or bool(self.given_up_us)


def spans_of(messages: Iterable[Stored]) -> list[Span]:
    """The spans of messages of both streams, in the order of their beginnings. What cannot be read has none."""
    found: list[Span] = []
    calls: list[Call] = []
    wakes: dict[str, Wake] = {}
    for message in messages:
        if message.subject.startswith(CALLS):
            if (call := _call(message.body)) is not None:
                calls.append(call)
        elif not _of_a_wake(message, wakes):
            found.append(_event(message))
    _give_up(wakes.values())
    found += [span for call in calls for span in _call_spans(call, wakes.values())]
    found += [span for wake in wakes.values() for span in _wake_spans(wake)]
    unique = {(span.trace_id, span.span_id): span for span in found}
    return sorted(unique.values(), key=lambda span: (span.start_us, span.kind != "server", -span.end_us, span.span_id))


def place_of(traceparent: str) -> Place:
    """Raises ValueError for what is none."""
    if not TRACEPARENT_FORM.fullmatch(traceparent):
        raise ValueError(f"{traceparent!r} is no traceparent")
    flags = int(traceparent[53:55], 16)
    return Place(traceparent[3:35], traceparent[36:52], True if flags & 1 else None if flags & 2 else False)


def _call(body: bytes) -> Call | None:
    try:
        document = object_in(body)
        made = Call(place_of(document["traceparent"]), document, microseconds(document["received_at"]))
        _check(made)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
    return made


def _check(call: Call) -> None:
    """Raises KeyError, ValueError, TypeError, IndexError or AttributeError for what a record must have and this one has not."""
    document = call.document
    int(document["held_ms"]), float(document["took_ms"]), len(call.actor), len(document["correlation_id"])
    if http := document.get("http"):
        int(http["status"]), len(http["method"]), len(http["route"])
    if event := document.get("event"):
        int(event["sequence"]), int(event["try"]), len(event["subject"]), str(document["subject"]).split(".", 2)[2]


def _event(message: Stored) -> Span:
    correlation, traceparent = origin_of(STREAM, message.sequence, message.headers, message.body)
    place, at = place_of(traceparent), round(message.at * 1e6)
    attributes: dict[str, Value] = _messaging(message.subject, correlation, "publish", "send") | {
        "messaging.message.body.size": len(message.body),
        "vx11.event.sequence": message.sequence,
    }
    if caller := message.headers.get("vx11-caller"):
        attributes["vx11.caller"] = caller
    return Span(
        trace_id=place.trace_id,
        span_id=event_span(STREAM, message.sequence, traceparent),
        parent_id=parent_in(traceparent),
        name=f"send {message.subject}",
        kind="producer",
        start_us=at,
        end_us=at,
        conversation=correlation,
        sampled=place.sampled,
        attributes=attributes,
        remote="vx11-caller" not in message.headers,
    )


def _messaging(subject: str, correlation: str, name: str, kind: str) -> dict[str, Value]:
    return {
        "messaging.system": "nats",
        "messaging.destination.name": subject,
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.message.conversation_id": correlation,
    }


def _call_spans(call: Call, wakes: Iterable[Wake]) -> list[Span]:
    if call.document.get("http"):
        return [_http_span(call)]
    made = [_handling(call)]
    if int(call.document["held_ms"]) > 0:
        wake = next((wake for wake in wakes if _held_by(call, wake)), None)
        made.append(_part(call, "held", call.arrived_us, call.begun_us, wake))
        if wake and "active" in wake.at and not call.by_madre:
            made.append(_part(call, "handed over", min(wake.at["active"], call.begun_us), call.begun_us, wake))
    return made


def _base(call: Call, name: str, kind: Kind, attributes: Mapping[str, Value], *, remote: bool) -> Span:
    document, code = call.document, str(call.document.get("code", ""))
    end = call.received_us + round(float(document["took_ms"]) * 1e3)
    told: dict[str, Value] = {"vx11.code": code, "vx11.actor": call.actor}
    told |= {f"vx11.{key}": str(document[key]) for key in ("caller", "instance", "request_id") if document.get(key)}
    if document["held_ms"]:
        told["vx11.held_ms"] = int(document["held_ms"])
    return Span(
        trace_id=call.place.trace_id,
        span_id=call.place.span_id,
        parent_id=_span_id(document.get("parent", "")),
        name=name,
        kind=kind,
        start_us=call.received_us,
        end_us=max(end, call.begun_us),
        conversation=str(document["correlation_id"]),
        sampled=call.place.sampled,
        attributes={**attributes, **told},
        error="" if code == "ok" else code,
        remote=remote,
    )


def _http_span(call: Call) -> Span:
    http = call.document["http"]
    status, code = int(http["status"]), str(call.document.get("code", ""))
    attributes: dict[str, Value] = {
        "http.request.method": str(http["method"]),
        "http.route": str(http["route"]),
        "http.response.status_code": status,
        "messaging.message.conversation_id": str(call.document["correlation_id"]),
    }
    if code != "ok":
        attributes["error.type"] = code
    made = _base(call, f"{http['method']} {http['route']}", "server", attributes, remote=True)
    return made if status >= SERVER_FAULT else replace(made, error="")  # what the client did wrong is no error of the server


def _handling(call: Call) -> Span:
    """Of a request, or of one try of an event."""
    document, event = call.document, call.document.get("event")
    subject = str(event["subject"] if event else document["subject"])
    attributes = _messaging(subject, str(document["correlation_id"]), "process", "process")
    if event:
        handler = str(document["subject"]).split(".", 2)[2]
        attributes["messaging.consumer.group.name"] = f"{call.actor}__{handler}"
        attributes |= {"vx11.event.sequence": int(event["sequence"]), "vx11.event.try": int(event["try"])}
    if (code := str(document.get("code", ""))) != "ok":
        attributes["error.type"] = code
    remote = not event and not document.get("caller")
    return _base(call, f"process {subject}", "consumer", attributes, remote=remote)


def _part(call: Call, name: str, start_us: int, end_us: int, wake: Wake | None) -> Span:
    """What happened to a request before it was handled: below the wake that it waited for, if that is of its own trace."""
    return Span(
        trace_id=call.place.trace_id,
        span_id=derived_span(name, call.place.span_id),
        parent_id=wake.span_id if wake else _span_id(call.document.get("parent", "")),
        name=name,
        kind="internal",
        start_us=start_us,
        end_us=end_us,
        conversation=str(call.document["correlation_id"]),
        sampled=call.place.sampled,
        attributes=_told(call.actor, str(call.document["correlation_id"]))
        | {"messaging.destination.name": str(call.document["subject"])},
        remote=not wake and not call.document.get("caller"),
    )


def _told(actor: str, conversation: str) -> dict[str, Value]:
    return {"vx11.actor": actor, "messaging.message.conversation_id": conversation}


def _held_by(call: Call, wake: Wake) -> bool:
    if (wake.actor, *wake.key) != (call.actor, call.place.trace_id, call.document["correlation_id"]):
        return False
    return wake.start_us <= call.begun_us + SLACK_US and (not wake.ended or call.arrived_us <= wake.end_us + SLACK_US)


def _of_a_wake(message: Stored, wakes: dict[str, Wake]) -> bool:
    """Put an event of an activation to its wake; False when it is none."""
    if not message.subject.startswith(POWER):
        return False
    fact, _, actor = message.subject.removeprefix(POWER).partition(".")
    try:
        told = object_in(message.body)
        id_, stay = str(told["id"]), int(told.get("stay") or 0)
        at = microseconds(told["at"])
    except (ValueError, KeyError, TypeError):
        return False
    if fact not in WAKE_PARTS or stay or not id_:
        return False
    correlation, traceparent = origin_of(STREAM, message.sequence, message.headers, message.body)
    if id_ not in wakes:
        wakes[id_] = Wake(id_, actor, correlation, place_of(traceparent), parent_in(traceparent))
    wakes[id_].at.setdefault(fact, at)
    wakes[id_].told.setdefault(fact, told)
    return True


def _give_up(wakes: Iterable[Wake]) -> None:
    """An activation that was never answered ended when the next one of the same actor began."""
    ordered = sorted(wakes, key=lambda wake: (wake.actor, *wake.key, wake.start_us))
    for wake, after in pairwise(ordered):
        if (wake.actor, *wake.key) == (after.actor, *after.key) and not wake.ended:
            wake.given_up_us = after.start_us


def _wake_spans(wake: Wake) -> list[Span]:
    made = [_wake_span(wake)]
    spawned = wake.at.get("waking", 0)
    if spawned and "activate" in wake.at:
        made.append(_step(wake, "spawned", wake.at["activate"], spawned))
    if spawned and "active" in wake.at:
        made.append(_step(wake, "subscribed", spawned, wake.at["active"]))
    return made


def _wake_span(wake: Wake) -> Span:
    attributes = _told(wake.actor, wake.conversation) | {"vx11.wake.id": wake.id}
    for told in wake.told.values():
        attributes |= {f"vx11.{key}": str(told[key]) for key in ("run", "host") if told.get(key)}
    if reason := str(wake.told.get("activate", {}).get("reason", "")):
        attributes["vx11.wake.reason"] = reason
    error = ""
    if "active" not in wake.at and wake.ended:
        error = str(wake.told.get("failed", {}).get("reason") or "nobody started it in time")
    return Span(
        trace_id=wake.place.trace_id,
        span_id=wake.span_id,
        parent_id=wake.parent_id,
        name=f"wake {wake.actor}",
        kind="internal",
        start_us=wake.start_us,
        end_us=max(wake.start_us, wake.end_us),
        conversation=wake.conversation,
        sampled=wake.place.sampled,
        attributes=attributes,
        error=error,
        open=not wake.ended,
    )


def _step(wake: Wake, name: str, start_us: int, end_us: int) -> Span:
    return Span(
        trace_id=wake.place.trace_id,
        span_id=derived_span(name, wake.id),
        parent_id=wake.span_id,
        name=name,
        kind="internal",
        start_us=min(start_us, end_us),
        end_us=end_us,
        conversation=wake.conversation,
        sampled=wake.place.sampled,
        attributes=_told(wake.actor, wake.conversation),
    )


def _span_id(text: object) -> str:
    """A parent in a record: 16 hexadecimal digits, or none."""
    found = str(text)
    return found if len(found) == len(NO_SPAN) and found != NO_SPAN and set(found) <= set("0123456789abcdef") else ""
