"""notebook: keeps on disk what it is told and what it hears, also what was said while it slept."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from bus import Actor, Call, Settings
from notebook.schema import Jotted, Line, Lines, ListLines, Write, Written

actor = Actor("notebook", summary="keeps what it is told")


class Pages:
    """A file with one JSON line for each thing that was written down, beside it one with what was begun."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, text: str) -> None:
        with self._path.with_suffix(".begun").open("a") as file:
            file.write(text + "\n")

    def add(self, text: str, call: Call) -> None:
        line = Line(text=text, pid=os.getpid(), correlation_id=call.correlation_id, caller=call.caller, path=call.path)
        with self._path.open("a") as file:
            file.write(line.model_dump_json() + "\n")

    def all(self) -> list[Line]:
        if not self._path.exists():
            return []
        return [Line.model_validate_json(text) for text in self._path.read_text().splitlines()]


@actor.resource
async def pages(settings: Settings) -> AsyncIterator[Pages]:
    yield Pages(settings.home / "notebook.jsonl")


@actor.on(durable=True)
async def keep(event: Jotted, pages: Pages, call: Call) -> None:
    pages.add(event.text, call)


@actor.handles
async def list_lines(request: ListLines, pages: Pages) -> Lines:
    return Lines(lines=pages.all())


@actor.handles
async def write(request: Write, pages: Pages, call: Call) -> Written:
    pages.begin(request.text)
    await asyncio.sleep(request.seconds)
    pages.add(request.text, call)
    return Written(pid=os.getpid())
