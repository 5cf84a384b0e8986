"""One request under way: when it may be asked again, and which answer ends it. Pure: time and messages are passed in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from bus import call
from schemas.errors import Failure

NOBODY_FIRST_S = 0.01
NOBODY_MOST_S = 0.25
DOUBLINGS_MOST = 10
CRASHES_MOST = 2
"""A request that has seen this many instances die is not sent to a third."""


@dataclass(slots=True, frozen=True)
class Answer:
    """A good answer as it travelled: `body` is one JSON document."""

    body: bytes
    headers: Mapping[str, str]


@dataclass(slots=True)
class Asking:
    """What is known of a request that has been sent and not yet been answered."""

    subject: str
    body: bytes
    headers: dict[str, str]
    idempotent: bool
    deadline: float
    """Seconds since the epoch."""
    sent_at: float
    nobody: int = 0
    """How often the server said that nobody is subscribed."""
    crashes: int = 0
    chunks: int = 0
    """Frames of a streamed answer that have arrived."""
    out: bool = True
    """Somebody may have it: it was sent, and the server has not said that nobody listens."""

    @property
    def actor(self) -> str:
        parts = self.subject.split(".", 2)
        return parts[1] if len(parts) > 1 else ""

    def nobody_listens(self, now: float) -> float:
        """Seconds until it is asked again: it was surely not executed."""
        pause = min(NOBODY_FIRST_S * 2.0 ** min(self.nobody, DOUBLINGS_MOST), NOBODY_MOST_S)
        self.nobody += 1
        self.out = False
        return min(pause, max(0.0, self.deadline - now))

    def sent_anew(self, now: float) -> None:
        """Nobody has it: unless an earlier copy was lost sight of, this is its first sending."""
        if call.AGAIN not in self.headers:
            self.sent_at = now
            self.headers[call.SENT] = str(int(now * 1000))

    def take(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """A frame of a streamed answer has come. Raises the Failure that it carries, or that a gap before it is."""
        if failure := failure_of(headers, body):
            raise failure
        if call.SEQ in headers:
            if call.milliseconds(headers[call.SEQ]) != self.chunks:
                raise Failure("crashed", f"the answer of {self.actor} lost pieces after the first {self.chunks}")
            self.chunks += 1
        return Answer(body, headers)

    def late(self) -> Failure:
        """The deadline has passed. `unavailable` only when it was surely not executed."""
        if self.out or call.AGAIN in self.headers:
            return Failure("timeout", f"no answer on {self.subject} before the deadline")
        return Failure("unavailable", f"nobody answers on {self.subject}; is VX11 up, and is the name right?")

    def lost_sight(self, *, crash: bool, held: bool = False) -> Failure | None:
        """The connection broke or an instance died: mark the next sending as a repeat, or say why there is none.

        `held`: only madre was lost, see `call.AGAIN`. Of a stream that has begun a repeat only asks whether it goes on: who
        sends it joins, all others say `crashed`.
        """
        if crash:
            self.crashes += 1
        if self.chunks and crash:
            return Failure("crashed", f"the answer of {self.actor} was cut off after {self.chunks} pieces")
        if self.crashes >= CRASHES_MOST:
            return Failure("crashed", f"{self.crashes} instances of {self.actor} died while they had this request")
        self.headers[call.AGAIN] = call.AGAIN_HELD if held and self.headers.get(call.AGAIN) != "1" else "1"
        return None


def failure_of(headers: Mapping[str, str], body: bytes) -> Failure | None:
    """The error that an answer carries, or None for a good one."""
    if call.ERROR not in headers and call.ERROR_CODE not in headers:
        return None
    try:
        document = json.loads(body) if body else {}
    except ValueError:
        document = {}
    if not isinstance(document, dict) or "error" not in document:
        document = {"error": "internal", "message": headers.get(call.ERROR, "an error without a text")}
    if call.WAKE_MS in headers:
        document.setdefault("wake_ms", call.milliseconds(headers[call.WAKE_MS]))
    return Failure.from_document(document)
