"""What tests/bench/programs/guest.py does, as an actor."""

from __future__ import annotations

import os
from typing import ClassVar

from bus import Actor
from schemas.message import Message, Request


class Echoed(Message):
    n: int
    pid: int


class Echo(Request[Echoed]):
    subject: ClassVar = "vx11.hello.echo"

    n: int = 0


actor = Actor("hello", summary="says what it is told")


@actor.handles
async def echo(request: Echo) -> Echoed:
    return Echoed(n=request.n, pid=os.getpid())
