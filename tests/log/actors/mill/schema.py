"""What the mill hears."""

from __future__ import annotations

from typing import ClassVar, Literal

from schemas.message import Event, Message, Request


class Fed(Event):
    """Something to grind. `stone` breaks a tooth at each try, `bomb` the mill itself, until it is mended."""

    subject: ClassVar = "vx11.events.mill.fed"
    severity: ClassVar = "debug"

    n: int
    kind: Literal["grain", "stone", "bomb"] = "grain"


class Smashed(Message):
    n: int


class Smash(Request[Smashed]):
    """Blows the mill up until it is mended; harmless to ask twice, says its author."""

    subject: ClassVar = "vx11.mill.smash"
    idempotent: ClassVar = True

    n: int
    token: str = ""
