"""echo: answers what it is asked, and writes each execution to a file before it answers."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import AsyncIterator

from bus import Actor, Bus, Call, Settings
from echo.schema import AskSelf, Count, Crash, Echo, EchoAgain, Echoed, Piece

actor = Actor("echo", summary="answers what it is asked", concurrency=2_000, queue=10_000)


class Sink:
    """One JSON line per execution: number, instance, when it started, until when it was allowed to (0: no deadline).

    The instance has a name of its own: process ids come again.
    """

    def __init__(self, path: str) -> None:
        self._instance = secrets.token_hex(6)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if path else -1

    def write(self, n: int, call: Call) -> None:
        if self._fd >= 0:
            line = {
                "n": n,
                "actor": actor.name,
                "instance": self._instance,
                "at": round(time.time(), 6),
                "deadline": call.deadline,
            }
            os.write(self._fd, json.dumps(line).encode() + b"\n")


@actor.resource
async def sink(settings: Settings) -> AsyncIterator[Sink]:
    yield Sink(settings.get("VX11_TORTURE_SINK"))


@actor.handles
async def echo(request: Echo, sink: Sink, call: Call) -> Echoed:
    sink.write(request.n, call)
    if request.seconds:
        await asyncio.sleep(request.seconds)
    return Echoed(n=request.n, pid=os.getpid())


@actor.handles
async def echo_again(request: EchoAgain, sink: Sink, call: Call) -> Echoed:
    sink.write(request.n, call)
    if request.seconds:
        await asyncio.sleep(request.seconds)
    return Echoed(n=request.n, pid=os.getpid())


@actor.handles
async def count(request: Count, sink: Sink, call: Call) -> AsyncIterator[Piece | Echoed]:
    sink.write(request.mark, call)
    for i in range(request.n):
        await asyncio.sleep(request.seconds)
        yield Piece(i=i)
    yield Echoed(n=request.n if request.mark < 0 else request.mark, pid=os.getpid())


@actor.handles
async def ask_self(request: AskSelf, bus: Bus) -> Echoed:
    await asyncio.sleep(request.seconds)
    if request.depth:
        return await bus.request(AskSelf(depth=request.depth - 1, seconds=request.seconds))
    return Echoed(n=0, pid=os.getpid())


@actor.handles
async def crash(request: Crash) -> Echoed:
    os._exit(9)
