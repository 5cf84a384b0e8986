"""Where an event stands in its conversation and its trace: a span of its own, with an id that everybody can work out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from pydantic import ValidationError

from bus.call import CORRELATION, CORRELATION_FORM, NO_HEADERS, TRACEPARENT, TRACEPARENT_FORM
from bus.cloudevents import opened

PLAIN = "event-"
"""What the conversation of an event begins with that came without one; the rest is its sequence."""


def origin_of(stream: str, sequence: int, sent: Mapping[str, str] | None, body: bytes) -> tuple[str, str]:
    """Correlation id and traceparent: the event's own, else made of its place in the stream, the same for all who ask."""
    headers = sent or NO_HEADERS
    if CORRELATION not in headers or TRACEPARENT not in headers:  # what is said plainly holds, and most say it
        headers = headers_of(sent, body)
    trace = headers.get(TRACEPARENT, "")
    if not TRACEPARENT_FORM.fullmatch(trace):
        made = _digest(f"trace {stream} {sequence}", 32)
        trace = f"00-{made}-{made[16:]}-02"
    told = headers.get(CORRELATION, "") or _told_inside(body)
    return told if CORRELATION_FORM.fullmatch(told) else f"{PLAIN}{sequence:08d}", trace


def headers_of(sent: Mapping[str, str] | None, body: bytes) -> Mapping[str, str]:
    """As a handler is to see them: of a CloudEvent with what its attributes say; those of a malformed one as they came."""
    try:
        return opened(sent, body)[0]
    except ValidationError:
        return sent or {}


def _told_inside(body: bytes) -> str:
    """Some put the id into the document."""
    if b'"correlation_id"' not in body:
        return ""
    return str(object_in(body).get(CORRELATION, ""))


def object_in(body: bytes) -> dict[str, Any]:
    """A stranger's JSON object; empty when it is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def event_span(stream: str, sequence: int, traceparent: str) -> str:
    """The span id of the event itself: the parent of what its handlers do."""
    return _digest(f"event {stream} {sequence} {traceparent[3:35]}", 16)


def derived_span(kind: str, of: str) -> str:
    """The span id of a part that is told of only together with another one, `of`."""
    return _digest(f"{kind} {of}", 16)


def plain_sequence(correlation_id: str) -> int:
    """The sequence of the event that this conversation was made up for; 0 when it was not made up so."""
    number = correlation_id.removeprefix(PLAIN)
    return int(number) if number != correlation_id and number.isascii() and number.isdigit() else 0


def _digest(text: str, digits: int) -> str:
    return sha256(text.encode()).hexdigest()[:digits]
