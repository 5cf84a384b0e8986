"""scribe: writes each event that it is told of to a file, also what was said while it slept."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import AsyncIterator

from bus import Actor, Settings
from scribe.schema import Said

actor = Actor("scribe", summary="writes down what is said")


class Sink:
    """One JSON line per event: its number, the instance that handled it, and when."""

    def __init__(self, path: str) -> None:
        self._instance = secrets.token_hex(6)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, n: int) -> None:
        line = {"n": n, "actor": actor.name, "instance": self._instance, "at": round(time.time(), 6)}
        os.write(self._fd, json.dumps(line).encode() + b"\n")


@actor.resource
async def sink(settings: Settings) -> AsyncIterator[Sink]:
    yield Sink(settings.get("VX11_TORTURE_HANDLED"))


@actor.on(durable=True)
async def note(event: Said, sink: Sink) -> None:
    sink.write(event.n)
