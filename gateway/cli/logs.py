"""`logs`: what the processes printed, from the files in `<home>/logs`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.desk import desk_of

KINDS = ("*.log", "*.err")
LOOK_EVERY_S = 0.2
"""While following: how often the files are looked at."""
CHUNK_BYTES = 1024 * 1024
LINES = 50
TAIL_BYTES_A_LINE = 4_096
"""A longer line counts as several when the end of a large file is looked for."""


def logs(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Whose: madre, tentaculo_link, an actor. Without it all.", metavar="NAME")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more is printed; Ctrl-C ends it.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines of each.")] = LINES,
) -> None:
    """Show what VX11's processes printed. (What happened, as events: `vx11 events`.)"""
    desk = desk_of(ctx)
    folder = desk.settings.home / "logs"
    chosen = files(folder, name)
    single = len(chosen) == 1
    for path in chosen:
        for line in last_lines(path, lines):
            desk.screen.line(line if single else f"{label(path)}  {line}")
    if follow:
        try:
            for whose, line in followed(lambda: files(folder, name), tell_all=False):
                desk.screen.line(line if single else f"{whose}  {line}")
        except KeyboardInterrupt:
            return


def files(folder: Path, name: str) -> list[Path]:
    """The log files of `name`, or all. Raises Failure("not_found"), naming those there are."""
    from schemas.errors import Failure

    every = sorted(path for kind in KINDS for path in folder.glob(kind))
    chosen = [path for path in every if not name or name in (path.stem, path.name)]
    if chosen:
        return chosen
    known = ", ".join(dict.fromkeys(path.stem for path in every))
    raise Failure(
        "not_found",
        f"there is no log of {name}" if name else f"there are no logs in {folder}",
        why=f"there are logs of {known}" if known else "nothing has been started on this home yet",
        next=[["vx11 logs", "all of them"]] if known else [["vx11 up", "start VX11"]],
    )


def label(path: Path) -> str:
    """Whose line it is: `madre`, or `nats.err` for what a server printed before it had a log."""
    return path.stem if path.suffix == ".log" else path.name


def last_lines(path: Path, count: int) -> list[str]:
    """The last `count` lines; of a large file only its end is read."""
    if count == 0:
        return []
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - count * TAIL_BYTES_A_LINE))
        cut = file.tell() > 0
        found = deque(file.read(size).decode(errors="replace").splitlines(), maxlen=count + 1)
    kept = list(found)
    return kept[-count:] if len(kept) > count or not cut else kept[1:]


@dataclass
class Tail:
    """One file being followed: `position` in the file `inode`, and the line that is not ended yet."""

    inode: int
    position: int
    rest: bytes = b""

    def more(self, path: Path) -> list[str]:
        """Whole lines since the last look; from the beginning when the file was replaced or cut."""
        try:
            stat = path.stat()
        except FileNotFoundError:
            return []
        if stat.st_ino != self.inode or stat.st_size < self.position:
            self.inode, self.position, self.rest = stat.st_ino, 0, b""
        if stat.st_size == self.position:
            return []
        with path.open("rb") as file:
            file.seek(self.position)
            data = file.read(CHUNK_BYTES)
        self.position += len(data)
        *whole, self.rest = (self.rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in whole]


def followed(
    look: Callable[[], list[Path]], *, tell_all: bool, pause: Callable[[float], None] = time.sleep
) -> Iterator[tuple[str, str]]:
    """(name, line) as they are written, of new files too. `tell_all`: also what stands there already."""
    tails = {path: Tail(path.stat().st_ino, 0 if tell_all else path.stat().st_size) for path in look()}
    while True:
        for path in look():
            tail = tails.setdefault(path, Tail(0, 0))
            for line in tail.more(path):
                yield label(path), line
        pause(LOOK_EVERY_S)
