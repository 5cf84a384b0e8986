"""What can be asked of ledger, and what it hears also while it sleeps."""

from __future__ import annotations

from typing import ClassVar

from schemas.message import Event, Message, Request


class Written(Message):
    n: int
    pid: int


class Write(Request[Written]):
    """Write down `n` after `seconds`; not to be executed twice."""

    subject: ClassVar = "vx11.ledger.write"

    n: int
    seconds: float = 0.0


class Rewrite(Request[Written]):
    """The same, and harmless to execute twice."""

    subject: ClassVar = "vx11.ledger.rewrite"
    idempotent: ClassVar = True

    n: int
    seconds: float = 0.0


class Noted(Event):
    """A fact that wakes ledger and is written down at least once."""

    subject: ClassVar = "vx11.events.ledger.noted"

    n: int
