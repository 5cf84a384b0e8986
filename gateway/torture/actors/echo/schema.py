"""What can be asked of echo."""

from __future__ import annotations

from typing import ClassVar

from schemas.message import Event, Message, Request, Streamed


class Echoed(Message):
    volatile: ClassVar = ("pid",)

    n: int
    pid: int


class Piece(Message):
    i: int


class Echo(Request[Echoed]):
    """Answer `n` after `seconds`; not to be executed twice."""

    subject: ClassVar = "vx11.echo.echo"

    n: int = 0
    seconds: float = 0.0
    pad: str = ""


class EchoAgain(Request[Echoed]):
    """The same, and harmless to execute twice."""

    subject: ClassVar = "vx11.echo.echo_again"
    idempotent: ClassVar = True

    n: int = 0
    seconds: float = 0.0
    pad: str = ""


class Count(Streamed[Piece, Echoed]):
    """`n` pieces, `seconds` apart. `mark`: the number under which its execution is written down, and which it returns."""

    subject: ClassVar = "vx11.echo.count"

    n: int = 3
    seconds: float = 0.0
    mark: int = -1


class AskSelf(Request[Echoed]):
    """Ask oneself, `depth` times, after `seconds` each."""

    subject: ClassVar = "vx11.echo.ask_self"

    depth: int = 1
    seconds: float = 0.0


class Crash(Request[Echoed]):
    """End the process with this request in hand."""

    subject: ClassVar = "vx11.echo.crash"


class Noted(Event):
    """A fact that wakes nobody."""

    subject: ClassVar = "vx11.events.echo.noted"

    n: int
