"""What notebook hears, and what can be asked of it."""

from __future__ import annotations

from typing import ClassVar

from schemas.message import Event, Message, Request


class Jotted(Event):
    """Somebody has something for the notebook."""

    subject: ClassVar = "vx11.events.notebook.jotted"
    summary: ClassVar = "to be kept: {text}"

    text: str


class Line(Message):
    """`path`: the actors that this conversation has come through."""

    text: str
    pid: int
    correlation_id: str
    caller: str
    path: str


class Lines(Message):
    lines: list[Line]


class ListLines(Request[Lines]):
    """Everything that was written down, by whichever process."""

    subject: ClassVar = "vx11.notebook.list_lines"
    idempotent: ClassVar = True
    scope: ClassVar = "read"


class Written(Message):
    pid: int


class Write(Request[Written]):
    """Write down `text` after `seconds`; not to be executed twice."""

    subject: ClassVar = "vx11.notebook.write"

    text: str
    seconds: float = 0.0
