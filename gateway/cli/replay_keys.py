"""What may be said to a replay while it plays: single keys on a terminal, lines from anything else."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from schemas.errors import Failure

if TYPE_CHECKING:
    from bus.replay import Replay

HELP = "space: pause and go on   enter: the next one   + -: faster, slower   m: as fast as it goes   q: stop"
FACTOR = 2.0
"""How much faster or slower at a key."""
READ_BYTES = 1_024
STEPS = [["echo 5 | vx11 replay --step", "five events"], ["vx11 replay --max", "all of them"]]


def obey(replay: Replay, said: str) -> None:
    """A key, or a line: a number steps so often. What is not understood does nothing."""
    status = replay.status
    match said.strip(" \t") if len(said) > 1 else said:
        case " " | "p" | "pause":
            (replay.resume if status.state == "paused" else replay.pause)()
        case "r" | "resume":
            replay.resume()
        case "" | "\n" | "\r" | "s" | "step":
            _step(replay, 1)
        case "+" | "-" as sign:
            _faster(replay, FACTOR if sign == "+" else 1 / FACTOR)
        case "m" | "max":
            replay.resume("max")
        case "q" | "stop" | "\x04":
            replay.stop()
        case number if number.isascii() and number.isdigit() and int(number):
            _step(replay, int(number))


def _step(replay: Replay, count: int) -> None:
    """One that plays is paused by it."""
    replay.pause()
    replay.step(count)


def _faster(replay: Replay, factor: float) -> None:
    from schemas.replay import SPEED_LEAST, SPEED_MOST

    pace = replay.status.pace
    speed = pace if isinstance(pace, float) else 1.0
    replay.resume(min(SPEED_MOST, max(SPEED_LEAST, speed * factor)))


@contextmanager
def listening(replay: Replay, *, lines: bool) -> Iterator[bool]:
    """Hear what is typed while inside; True when single keys are understood. `lines`: also read a stdin that is none."""
    if not sys.stdin or not (sys.stdin.isatty() or lines):
        yield False
        return
    keys, fd, loop = sys.stdin.isatty(), sys.stdin.fileno(), asyncio.get_running_loop()
    with _single_keys(fd) if keys else _nothing():
        rest = b""

        def heard() -> None:
            nonlocal rest
            data = os.read(fd, READ_BYTES)
            if not data:
                loop.remove_reader(fd)
                replay.finish()
                return
            if keys:
                for key in data.decode(errors="replace"):
                    obey(replay, key)
                return
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                obey(replay, line.decode(errors="replace"))

        try:
            loop.add_reader(fd, heard)
        except PermissionError:
            raise Failure("invalid", "--step reads a terminal or a pipe, and stdin is neither", next=STEPS) from None
        try:
            yield keys
        finally:
            loop.remove_reader(fd)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _single_keys(fd: int) -> Iterator[None]:
    """The terminal hands over each key as it is typed, and does not show it."""
    import termios
    import tty

    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
