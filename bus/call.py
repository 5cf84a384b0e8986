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

    def headers(self, *, through: str = "") -> dict[str, str]:
        """What a message sent from inside this call carries on: conversation, a child span, and the path."""
        made = {CORRELATION: self.correlation_id, TRACEPARENT: child_of(self.traceparent)}
        if self.tracestate:
            made[TRACESTATE] = self.tracestate
        path = f"{self.path},{through}" if self.path and through else self.path or through
        if path:
            made[PATH] = path
        return made


current: ContextVar[Call | None] = ContextVar("vx11_call", default=None)


def call_from(headers: Mapping[str, str] | None) -> Call:
    """Read the headers; whatever is missing or malformed is made up."""
    h = headers or NO_HEADERS
    correlation = h.get(CORRELATION, "")
    traceparent = h.get(TRACEPARENT, "")
    return Call(
        correlation if CORRELATION_FORM.fullmatch(correlation) else new_correlation_id(),
        traceparent if TRACEPARENT_FORM.fullmatch(traceparent) else new_traceparent(),
        tracestate_of(h),
        _bounded(h.get(REQUEST_ID, "")),
        milliseconds(h.get(DEADLINE)) / 1000,
        _bounded(h.get(CALLER, "")),
        _bounded(h.get(SCOPES, "")),
        _bounded(h.get(PATH, "")),
        h.get(PASSIVE) == "1",
        milliseconds(h.get(HELD_MS)),
    )


def conversation(headers: Mapping[str, str] | None) -> dict[str, str]:
    """What an event tells of the message that has caused it: conversation and trace, without the path."""
    made = call_from(headers).headers()
    made.pop(PATH, None)
    return made


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
    """A new trace, not sampled: whoever samples sets the flag at the door."""
    return f"00-{getrandbits(128) or 1:032x}-{getrandbits(64) or 1:016x}-00"


def child_of(traceparent: str) -> str:
    """The same trace and flags with a new span id."""
    return f"{traceparent[:36]}{getrandbits(64) or 1:016x}{traceparent[52:]}"
