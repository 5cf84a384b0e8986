"""The circumstances of one request or event, and what a message sent from inside it inherits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from random import getrandbits
from typing import NamedTuple

CORRELATION = "correlation_id"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
REQUEST_ID = "vx11-request-id"
DEADLINE = "vx11-deadline"
SENT = "vx11-sent"
"""When a request was first sent, ms since the epoch; a repeat carries the same."""
AGAIN = "vx11-again"
"""`1`: its first copy may have been begun by whoever has died or lost the answer. `held`: only madre was lost meanwhile,
so that its first copy was in her hands, or is known to the instance that lives."""
AGAIN_HELD = "held"
PASSIVE = "vx11-passive"
PATH = "vx11-path"
CALLER = "vx11-caller"
SCOPES = "vx11-scopes"
HELD_MS = "vx11-held-ms"
WAKE_MS = "vx11-wake-ms"
FORWARD = "vx11-forward"
STREAM = "vx11-stream"
PROBE = "vx11-probe"
"""On a request: its sender knows probes. On a message without a body: one, which asks whether a stream is still read."""
SEQ = "vx11-seq"
END = "vx11-end"
RUN = "vx11-run"
ERROR = "Nats-Service-Error"
ERROR_CODE = "Nats-Service-Error-Code"

CORRELATION_FORM = re.compile(r"[A-Za-z0-9_-]{8,64}")
TRACEPARENT_FORM = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
HEADER_CHARS_MOST = 512
"""W3C's bound for tracestate, and enough for a path of a dozen actors."""
DIGITS_MOST = 15
NO_SPAN = "0" * 16
NO_HEADERS: Mapping[str, str] = {}


class Call(NamedTuple):
    """What came with a message: ids, trace context, deadline (seconds since the epoch; 0.0: none)."""

    correlation_id: str
    traceparent: str
    tracestate: str = ""
    request_id: str = ""
    deadline: float = 0.0
    caller: str = ""
    scopes: str = ""
    path: str = ""
    """Names of the actors that this conversation is inside of, oldest first, separated by commas."""
    passive: bool = False
    held_ms: int = 0
    parent: str = ""
    """The span that it came from; empty when it came from none. `traceparent` is the span of the handling itself."""

    def headers(self, *, through: str = "") -> dict[str, str]:
        """What a message sent from inside this call carries on: conversation, this span as its parent, and the path."""
        made = {CORRELATION: self.correlation_id, TRACEPARENT: self.traceparent}
        if self.tracestate:
            made[TRACESTATE] = self.tracestate
        path = f"{self.path},{through}" if self.path and through else self.path or through
        if path:
            made[PATH] = path
        return made


current: ContextVar[Call | None] = ContextVar("vx11_call", default=None)


def call_from(headers: Mapping[str, str] | None) -> Call:
    """Read the headers; whatever is missing or malformed is made up. The handling is a span of its own."""
    h = headers or NO_HEADERS
    correlation = h.get(CORRELATION, "")
    origin = traceparent_of(h)
    return Call(
        correlation if CORRELATION_FORM.fullmatch(correlation) else new_correlation_id(),
        child_of(origin),
        tracestate_of(h),
        _bounded(h.get(REQUEST_ID, "")),
        milliseconds(h.get(DEADLINE)) / 1000,
        _bounded(h.get(CALLER, "")),
        _bounded(h.get(SCOPES, "")),
        _bounded(h.get(PATH, "")),
        h.get(PASSIVE) == "1",
        milliseconds(h.get(HELD_MS)),
        parent_in(origin),
    )


def conversation(headers: Mapping[str, str] | None) -> dict[str, str]:
    """What an event tells of the message that has caused it: conversation and trace as they came, without the path."""
    h = headers or NO_HEADERS
    correlation = h.get(CORRELATION, "")
    known = CORRELATION_FORM.fullmatch(correlation)
    made = {CORRELATION: correlation if known else new_correlation_id(), TRACEPARENT: traceparent_of(h)}
    if state := tracestate_of(h):
        made[TRACESTATE] = state
    return made


def traceparent_of(headers: Mapping[str, str]) -> str:
    """The header as it came; a new trace when it is missing or malformed."""
    told = headers.get(TRACEPARENT, "")
    return told if TRACEPARENT_FORM.fullmatch(told) else new_traceparent()


def tracestate_of(headers: Mapping[str, str]) -> str:
    """What other tracing systems have to say, empty when it is no ASCII or too long."""
    text = headers.get(TRACESTATE, "")
    return _bounded(text) if text.isascii() else ""


def milliseconds(text: str | None) -> int:
    """A header's whole number; 0 when it is missing or none."""
    return int(text) if text and len(text) <= DIGITS_MOST and text.isascii() and text.isdigit() else 0


def _bounded(text: str) -> str:
    """What is carried on to other messages must not outgrow them; what is longer was made up by nobody of ours."""
    return text if len(text) <= HEADER_CHARS_MOST else ""


# Ids are unique and no secrets: the generator is seeded by the kernel, anew in each forked child, and asking the kernel for
# each of them costs a request a twentieth.


def new_correlation_id() -> str:
    """A UUID, version 4."""
    digits = f"{getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{'89ab'[int(digits[16], 16) & 3]}{digits[17:20]}-{digits[20:]}"


def new_request_id() -> str:
    return f"{getrandbits(96):024x}"


def new_traceparent() -> str:
    """A new trace that no span has begun yet: its span id is the tail of its trace id, which `parent_in` knows for nobody's.

    Flags 02: the trace id is random and nobody has decided on sampling; the exporter will, by the trace id.
    """
    trace = f"{getrandbits(128) or 1:032x}"
    return f"00-{trace}-{trace[16:]}-02" if trace[16:] != NO_SPAN else new_traceparent()


def child_of(traceparent: str) -> str:
    """The same trace and flags with a new span id."""
    return f"{traceparent[:36]}{getrandbits(64) or 1:016x}{traceparent[52:]}"


def parent_in(traceparent: str) -> str:
    """The span id of who sent this; empty when there is no span behind it."""
    span = traceparent[36:52]
    return "" if span == traceparent[19:35] else span
