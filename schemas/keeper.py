"""Messages of the keeper: what it knows of the log, where a conversation is in it, and the facts that it tells."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from schemas.message import Event, Message, Request

FIND_MOST = 10_000

Fault = Literal["missing", "changed", "cut", "beginning", "keeper"]
"""`missing`: a sequence in the middle is gone. `changed`: an event is not what it was. `cut`: the stream ends before the
head of the chain. `beginning`: its beginning is gone, and the keeper did not trim it. `keeper`: the keeper's own file is
older than the log."""


class Found(Message):
    """Sequences of the messages of one conversation, oldest first. `more`: there are more than `limit` of either."""

    events: list[int]
    """In VX11_EVENTS."""
    calls: list[int]
    """In VX11_CALLS."""
    more: bool = False
    indexed_events: int
    """Up to this sequence of VX11_EVENTS the index reaches."""
    indexed_calls: int


class Find(Request[Found]):
    """Where the events and call records with this correlation id are."""

    subject: ClassVar = "vx11.keeper.find"
    timeout: ClassVar = 5.0
    idempotent: ClassVar = True
    scope: ClassVar = "read"
    passive: ClassVar = True

    correlation_id: str = Field(min_length=1, max_length=256)
    limit: int = Field(default=1_000, ge=1, le=FIND_MOST)


class Place(Message):
    """A sequence and the hash of the chain after it, in hexadecimal."""

    sequence: int
    hash: str


class Checkpoint(Place):
    """A place that the keeper has signed: HMAC-SHA-256 with a key that only it has, see `bus/chain.py`."""

    generation: int
    at: str
    signature: str


class Finding(Message):
    """Something wrong with the log. `sequence` is the first that is bad."""

    fault: Fault
    sequence: int
    told: str
    found_at: str
    accepted_at: str = ""
    accepted_by: str = ""
    reason: str = ""


class LogState(Message):
    """What the keeper knows of VX11_EVENTS."""

    state: Literal["checking", "whole", "broken"]
    """`checking`: since the keeper started, not yet every event has been compared with the chain."""
    reason: str
    """Why it is so; for `broken` what was found."""
    genesis: Place
    """The chain begins behind this sequence."""
    head: Place
    first_sequence: int
    last_sequence: int
    lag: int
    """Events behind the head: stored, and not yet in the chain."""
    checkpoint: Checkpoint | None
    """The newest."""
    checkpoints: int
    trimmed_through: int
    findings: list[Finding]
    """Oldest first, also the accepted ones."""
    verified_at: str
    """When all was last compared with the chain, and found whole; empty: not yet."""
    bytes: int
    max_bytes: int
    keep_days: float
    indexed_events: int
    indexed_calls: int
    undetectable: list[str]
    """What could be done to the log without being found."""


class GetLog(Request[LogState]):
    """How the log is. Reads what is known; compares nothing anew."""

    subject: ClassVar = "vx11.keeper.get_log"
    timeout: ClassVar = 5.0
    idempotent: ClassVar = True
    scope: ClassVar = "read"
    passive: ClassVar = True


class Verified(Message):
    """What a comparison of the whole log with the chain has shown."""

    whole: bool
    checked: int
    """Events that were read and compared."""
    after: int
    through: int
    took_ms: float
    finding: Finding | None
    undetectable: list[str]


class Verify(Request[Verified]):
    """Read every event again and compare it with the chain. Takes about a minute for a million events."""

    subject: ClassVar = "vx11.keeper.verify"
    timeout: ClassVar = 900.0
    idempotent: ClassVar = True
    scope: ClassVar = "admin"


class Accept(Request[LogState]):
    """Take the log as it is now: what was found stays on record, and the chain begins anew behind the last event."""

    subject: ClassVar = "vx11.keeper.accept"
    scope: ClassVar = "admin"

    reason: str = Field(min_length=1, max_length=1_000)
    by: str = Field(default="", max_length=200)


class Checkpointed(Event):
    """The keeper's word on the log so far, in the log itself: an older keeper.db that is put back is found by it."""

    subject: ClassVar = "vx11.events.keeper.checkpointed"
    severity: ClassVar = "debug"
    summary: ClassVar = "the log is signed up to {sequence}"

    generation: int
    sequence: int
    hash: str
    at: str
    signature: str


class LogBroken(Event):
    """The log is not what it was."""

    subject: ClassVar = "vx11.events.keeper.log_broken"
    severity: ClassVar = "error"
    summary: ClassVar = "the log is broken at {sequence}: {what}"

    fault: str
    sequence: int
    what: str


class LogAccepted(Event):
    """Somebody has taken the log as it is."""

    subject: ClassVar = "vx11.events.keeper.log_accepted"
    severity: ClassVar = "warning"
    summary: ClassVar = "the log was accepted as it is behind {sequence}: {reason}"

    sequence: int
    hash: str
    reason: str
    by: str = ""


class LogTrimmed(Event):
    """Old events were removed up to a checkpoint, which the chain now begins with."""

    subject: ClassVar = "vx11.events.keeper.log_trimmed"
    summary: ClassVar = "events up to {through} were removed ({why})"

    through: int
    hash: str
    why: Literal["age", "size"]
    unhandled: dict[str, int] = {}
    """Durable consumer to the last sequence that it had settled, if it had not settled all that was removed."""
