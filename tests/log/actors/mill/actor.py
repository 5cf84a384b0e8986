"""mill: grinds what it is fed, and writes down each piece; stones and bombs only once it is mended."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from bus import Actor, Settings
from mill.schema import Fed, Smash, Smashed

actor = Actor("mill", summary="grinds what it is fed")


class Flour:
    """A file with one JSON line for each piece, another for each time the mill blew up. `mended`: the file that says so."""

    def __init__(self, home: Path) -> None:
        self._flour = (home / "mill.jsonl").open("a")
        self._bangs = (home / "mill.bangs").open("a")
        self.mended = home / "mill.mended"

    def ground(self, event: Fed) -> None:
        self._flour.write(json.dumps({"n": event.n, "at": time.time()}) + "\n")
        self._flour.flush()

    def bang(self, event: Fed) -> None:
        self._bangs.write(f"{event.n}\n")
        self._bangs.flush()


@actor.resource
async def flour(settings: Settings) -> AsyncIterator[Flour]:
    yield Flour(settings.home)


@actor.on(durable=True)
async def grind(event: Fed, flour: Flour) -> None:
    if event.kind != "grain" and not flour.mended.exists():
        if event.kind == "bomb":
            flour.bang(event)
            os._exit(9)
        raise ArithmeticError(f"stone {event.n}")
    flour.ground(event)


@actor.handles
async def smash(request: Smash, flour: Flour) -> Smashed:
    if not flour.mended.exists():
        with (flour.mended.parent / "mill.smashed").open("a") as file:
            file.write(f"{request.n}\n")
        os._exit(9)
    return Smashed(n=request.n)
