"""One stored event as people see it: who said what, and how bad it is. Light, because the command line shows events, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from bus import call as calls
from gateway.http.cloud import CloudLine, opened
from gateway.known import known_events
from gateway.moment import rfc3339
from schemas.message import Event

if TYPE_CHECKING:
    from gateway.http.parts import StoredLike

TEXT_MOST = 4_096
"""Characters of a payload that is no JSON."""
POWER = "vx11.events.power."
TRIES = "vx11.events.dlq."
"""Followed by the fact and the durable handler, `<actor>__<function>`."""


class EventLine(BaseModel):
    """One event. For old clients `timestamp`, `event_type` and `details` repeat `ts`, `type` and `payload`."""

    id: int
    ts: str
    type: str
    severity: str
    module: str
    correlation_id: str
    summary: str
    payload: Any
    cloudevent: CloudLine
    timestamp: str
    event_type: str
    details: Any


def correlation_of(stored: StoredLike) -> str:
    """The conversation that an event belongs to; empty when it does not say."""
    return stored.headers.get(calls.CORRELATION) or stored.headers.get("ce-vxcorrelationid", "")


def severity_of(subject: str) -> str:
    kind = known_events().get(subject)
    return kind.severity if kind else "info"


def line_of(stored: StoredLike) -> EventLine:
    """One event as it is shown. One that is of no known class is `info` and its subject is its summary."""
    actor, fact, subject = address_of(stored.subject)
    named, body = opened(stored)
    payload = _payload(body)
    kind = known_events().get(subject)
    summary = f"malformed CloudEvent: {named.malformed}" if named.malformed else _summary(kind, payload, stored.subject)
    moment = rfc3339(stored.at)
    name = f"{subject.split('.')[2]}.{fact}"
    return EventLine(
        id=stored.sequence,
        ts=moment,
        type=name,
        severity=severity_of(subject),
        module=actor,
        correlation_id=correlation_of(stored),
        summary=summary,
        payload=payload,
        cloudevent=named,
        timestamp=moment,
        event_type=name,
        details=payload,
    )


def address_of(subject: str) -> tuple[str, str, str]:
    """(actor, fact, subject of the class) of an event's subject. Those of power and of tries name their actor further behind."""
    parts = subject.split(".")
    if subject.startswith((POWER, TRIES)) and len(parts) >= 5:
        return parts[4].partition("__")[0] if subject.startswith(TRIES) else parts[4], parts[3], ".".join(parts[:4])
    return (parts[2] if len(parts) > 2 else ""), ".".join(parts[3:]), subject


def _summary(kind: type[Event] | None, payload: Any, subject: str) -> str:
    if kind is None:
        return subject
    try:
        return kind.model_validate(payload).told()
    except (ValidationError, KeyError, IndexError, ValueError):
        return subject  # published plain, with other fields than its class has


def _payload(body: bytes) -> Any:
    try:
        return from_json(body) if body else {}  # Python's own takes half characters, which nobody can be answered with
    except ValueError:
        return {"text": body.decode(errors="replace")[:TEXT_MOST]}
