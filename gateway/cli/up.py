"""`up` and `down`: start VX11 on this machine, and stop it in order."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.desk import Desk, desk_of, make_desk

if TYPE_CHECKING:
    from gateway.cli.home import Running

READY_S = 60.0
"""From `up -d` until madre answers; a first start on a slow disk makes keys and files."""
STOP_S = 120.0
"""From `down` until the last process is gone; handlers finish what they do."""
LOOK_EVERY_S = 0.1
LOG = "up.log"
ROOT = Path(__file__).parents[2]


def up(
    ctx: typer.Context,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Come back once VX11 is up; stop it with `vx11 down`.")] = False,
    home: Annotated[Path | None, typer.Option(help="The data folder.", metavar="FOLDER")] = None,
) -> None:
    """Start VX11 here. Ctrl-C stops it in order."""
    desk = make_desk(home) if home else desk_of(ctx)
    _refuse_second(desk)
    if detach:
        _detached(desk)
        return
    from gateway.cli import foreground

    raise typer.Exit(foreground.run(desk.settings, desk.screen))


def _refuse_second(desk: Desk) -> None:
    from gateway.cli.home import recorded
    from schemas.errors import Failure

    found = recorded(desk.settings)
    if found and found.supervisor.alive:
        raise Failure(
            "conflict",
            f"VX11 runs on this home already (pid {found.supervisor.pid}, since {found.started_at})",
            next=[
                ["vx11 status", "what it does"],
                ["vx11 down", "stop it"],
                ["vx11 up --home FOLDER", "another one beside it"],
            ],
        )


def _detached(desk: Desk) -> None:
    """Start `vx11 up` in a session of its own and show what it prints until it is ready."""
    folder = desk.settings.home / "logs"
    for made in (desk.settings.home, folder):
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / LOG
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as log:
        child = subprocess.Popen(  # noqa: S603 - this very program
            [sys.executable, "-m", "gateway.cli", "--home", str(desk.settings.home), "up"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))},
        )
    shown = _Shown(desk, path)
    _wait_ready(desk, child, shown)
    desk.screen.advise([("vx11 status", "who is awake"), ("vx11 chat hello", "talk to it"), ("vx11 down", "stop it in order")])


class _Shown:
    """What the child printed, passed on as it comes."""

    def __init__(self, desk: Desk, path: Path) -> None:
        from gateway.cli.logs import Tail

        self._desk = desk
        self._path = path
        self._tail = Tail(path.stat().st_ino, 0)
        self.lines: list[str] = []

    def more(self) -> None:
        new = self._tail.more(self._path)
        self.lines += new
        for line in new:
            self._desk.screen.line(line)


def _wait_ready(desk: Desk, child: subprocess.Popen[bytes], shown: _Shown) -> None:
    """Raises Failure when the child ends or does not get ready in READY_S."""
    from schemas.errors import CODES, Failure

    logs = [["vx11 logs up", "what it printed"], ["vx11 doctor", "what is in its way"]]
    end = time.monotonic() + READY_S
    while not _ready(desk):
        shown.more()
        if (code := child.poll()) is not None:
            shown.more()
            if any(row.exit == code for row in CODES.values()) or code == CONFIGURATION:
                raise typer.Exit(code)  # it has said why, and that has just been shown
            raise Failure("crashed", f"VX11 did not start: it ended with {code}", next=logs)
        if time.monotonic() > end:
            raise Failure("timeout", f"VX11 is not ready after {READY_S:.0f} s (pid {child.pid} goes on)", next=logs)
        time.sleep(LOOK_EVERY_S)
    shown.more()


CONFIGURATION = 78
"""Exit code for settings that are refused (sysexits.h EX_CONFIG)."""


def _ready(desk: Desk) -> bool:
    """run.json is there and madre answers."""
    from gateway.cli.home import recorded
    from schemas.errors import Failure
    from schemas.madre import ListActors

    try:
        found = recorded(desk.settings)
        return found is not None and found.supervisor.alive and bool(desk.ask(ListActors()).actors)
    except Failure:
        return False


def down(
    ctx: typer.Context,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the last process.", min=0.0)] = STOP_S,
) -> None:
    """Stop the VX11 of this home in order: handlers finish, nothing in flight is lost."""
    from gateway.cli.home import recorded

    desk = desk_of(ctx)
    found = recorded(desk.settings)
    if found is None or not found.supervisor.alive:
        desk.screen.talk(f"VX11 is not running here ({desk.settings.home}); there is nothing to stop.")
        return
    began = time.monotonic()
    stop(found, timeout)
    desk.screen.line(f"VX11 stopped in {time.monotonic() - began:.1f} s")


def stop(found: Running, timeout: float, *, pause: Callable[[float], None] = time.sleep) -> None:
    """SIGTERM to the supervisor, then wait for it and all it started. Raises Failure("timeout"), naming who is left.

    Whose start time is not the recorded one is another process by now and is left alone.
    """
    import signal

    from schemas.errors import Failure

    if found.supervisor.alive:
        os.kill(found.supervisor.pid, signal.SIGTERM)
    every = {"supervisor": found.supervisor, **found.pids}
    end = time.monotonic() + timeout
    while left := {name: process.pid for name, process in every.items() if process.alive}:
        if time.monotonic() > end:
            named = ", ".join(f"{name} (pid {pid})" for name, pid in left.items())
            raise Failure(
                "timeout",
                f"VX11 has not stopped after {timeout:g} s",
                why=f"still there: {named}; a handler may be finishing its work",
                next=[
                    ["vx11 down", "wait longer"],
                    [
                        f"kill -9 {' '.join(str(pid) for pid in left.values())}",
                        "end it at once; what is in flight is lost",
                    ],
                ],
            )
        pause(LOOK_EVERY_S)
