"""Dead letters: what could not be handled, how to look at it, and what becomes of it. The keeper answers for them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import AwareDatetime, Field

from schemas.message import Event, Message, Request

Why = Literal["invalid", "failed", "crashed"]
"""`invalid`: no handler can ever take it; `failed`: the last try failed; `crashed`: those who tried died of it."""

PIECE_BYTES = 128 * 1024
"""Of a body in one answer: as JSON it may become six times as long, and an answer has 1 MiB."""


class Dead(Message):
    """One dead letter without its body. `sequence`: its number in VX11_DLQ, by which it is retried or dropped."""

    sequence: int
    actor: str
    subject: str
    """Where it came from."""
    reason: str
    detail: str = ""
    tries: int = 0
    consumer: str = ""
    """The durable handler that could not take it; empty for a request."""
    stream: str = ""
    stored_as: int = 0
    """Its number in `stream`."""
    correlation_id: str = ""
    size: int
    buried_at: str


class DeadList(Message):
    """`more`: there are others with a sequence above `next_after`. `total`: letters of every kind in the stream."""

    letters: list[Dead]
    more: bool = False
    next_after: int = 0
    total: int = 0


class ListDead(Request[DeadList]):
    """Dead letters, oldest first. All that is said must hold."""

    subject: ClassVar = "vx11.keeper.list_dead"
    timeout: ClassVar = 20.0
    idempotent: ClassVar = True
    scope: ClassVar = "read"
    passive: ClassVar = True

    actor: str = Field(default="", max_length=64)
    reason: Why | None = None
    since: AwareDatetime | None = None
    """Buried then or later."""
    after: int = Field(default=0, ge=0)
    limit: int = Field(default=100, ge=1, le=1_000)


class DeadLetter(Message):
    """A letter with its headers and a piece of its body, from `offset` on; `base64` when the whole body is no text."""

    letter: Dead
    history: list[dict[str, Any]] = []
    headers: dict[str, str] = {}
    """As they were when it was published, less what the stream itself reads."""
    offset: int = 0
    body: str = ""
    encoding: Literal["text", "base64"] = "text"


class GetDead(Request[DeadLetter]):
    """One letter. A body above PIECE_BYTES comes in pieces: the next begins where this one ends."""

    subject: ClassVar = "vx11.keeper.get_dead"
    timeout: ClassVar = 10.0
    idempotent: ClassVar = True
    scope: ClassVar = "read"
    passive: ClassVar = True

    sequence: int = Field(ge=1)
    offset: int = Field(default=0, ge=0)


class DeadRetried(Message):
    """`stored_as`: its number in `stream` now; 0 for a request, which was asked again and answered. `again`: it had been sent
    back by an earlier retry, and was only taken out of the letters.
    """

    sequence: int
    subject: str
    consumer: str = ""
    stream: str = ""
    stored_as: int = 0
    again: bool = False


class RetryDead(Request[DeadRetried]):
    """Give an event back to the one consumer that could not take it, or ask a request again; then remove the letter.

    Doing it twice does no more than doing it once.
    """

    subject: ClassVar = "vx11.keeper.retry_dead"
    timeout: ClassVar = 60.0
    idempotent: ClassVar = True
    scope: ClassVar = "command"

    sequence: int = Field(ge=1)


class DeadDropped(Message):
    letter: Dead


class DropDead(Request[DeadDropped]):
    """Remove a letter for good. That, and why, is an event."""

    subject: ClassVar = "vx11.keeper.drop_dead"
    timeout: ClassVar = 20.0
    idempotent: ClassVar = True
    scope: ClassVar = "command"

    sequence: int = Field(ge=1)
    reason: str = Field(min_length=1, max_length=500)


class Tried(Event):
    """A durable handler failed, and the event will be tried again; or it was handed back without having been tried.

    Published on `<subject>.<consumer>.<sequence>-<microseconds>`, so that the next process can look up what the last one saw.
    """

    subject: ClassVar = "vx11.events.dlq.tried"
    severity: ClassVar = "warning"
    summary: ClassVar = "try {number} of {origin} by {consumer} failed: {error}"

    consumer: str
    origin: str
    """Subject of the event."""
    sequence: int
    number: int
    """Which try this was; 0 when it was handed back."""
    error: str = ""
    at: str = ""

    def told(self) -> str:
        return super().told() if self.number else f"{self.consumer} handed {self.origin} back untried"


class Retried(Event):
    """A dead letter was given back."""

    subject: ClassVar = "vx11.events.keeper.dead_retried"
    summary: ClassVar = "dead letter {sequence} of {actor} was retried"

    sequence: int
    actor: str
    origin: str
    consumer: str = ""
    stored_as: int = 0
    by: str = ""
    at: str = ""


class Dropped(Event):
    """A dead letter was removed for good."""

    subject: ClassVar = "vx11.events.keeper.dead_dropped"
    severity: ClassVar = "warning"
    summary: ClassVar = "dead letter {sequence} of {actor} was dropped: {reason}"

    sequence: int
    actor: str
    origin: str
    consumer: str = ""
    reason: str
    by: str = ""
    at: str = ""
