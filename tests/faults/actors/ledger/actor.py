"""ledger: writes down each effect before it answers; a test may have it killed before the effect or before the answer."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator

from bus import Actor, Call, Settings, chaos
from ledger.schema import Noted, Rewrite, Write, Written

actor = Actor("ledger", summary="writes down what it is told")


class Book:
    """One line per effect: number, instance, when it was begun, and until when it might be (0: no deadline).

    The instance has a name of its own: process ids come again.
    """

    def __init__(self, path: str) -> None:
        self._instance = secrets.token_hex(6)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def write(self, n: int, call: Call, seconds: float = 0.0) -> None:
        begun = time.time()
        await asyncio.sleep(seconds)
        chaos.point("effect.before")
        os.write(self._fd, f"{n} {self._instance} {begun:.6f} {call.deadline:.3f}\n".encode())
        chaos.point("effect.after")

    def close(self) -> None:
        os.close(self._fd)


@actor.resource
async def book(settings: Settings) -> AsyncIterator[Book]:
    opened = Book(str(settings.home / "effects"))
    yield opened
    opened.close()


@actor.handles
async def write(request: Write, book: Book, call: Call) -> Written:
    await book.write(request.n, call, request.seconds)
    return Written(n=request.n, pid=os.getpid())


@actor.handles
async def rewrite(request: Rewrite, book: Book, call: Call) -> Written:
    await book.write(request.n, call, request.seconds)
    return Written(n=request.n, pid=os.getpid())


@actor.on(durable=True)
async def note(event: Noted, book: Book, call: Call) -> None:
    await book.write(event.n, call)
