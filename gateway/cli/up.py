"""`up` and `down`: start VX11 on this machine, and stop it in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.desk import Desk, desk_of, make_desk

if TYPE_CHECKING:
    from gateway.cli.home import Running
    from schemas.errors import Failure

READY_S = 60.0
"""From `up -d` until madre answers; a first start on a slow disk makes keys and files."""
STOP_S = 120.0
"""From `down` until the last process is gone; handlers finish what they do."""
LOOK_EVERY_S = 0.1
SUPERVISOR = "supervisor"
LOG = "up.log"
OUTPUT_BYTES = 64 * 1024
ROOT = Path(__file__).parents[2]


def up(
    ctx: typer.Context,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Come back once VX11 is up; stop it with `vx11 down`.")] = False,
    home: Annotated[Path | None, typer.Option(help="The data folder.", metavar="FOLDER")] = None,
    pull: Annotated[
        str, typer.Option(help="Once it is up, fetch this model unless it was taken away before.", metavar="MODEL")
    ] = "",
) -> None:
    """Start VX11 here. Ctrl-C stops it in order."""
    desk = make_desk(home) if home else desk_of(ctx)
    _refuse_second(desk)
    if detach:
        _detached(desk, _pulling(pull))
        return
    sys.stdout.flush()
    # this process goes on as a smaller program: what a command line needs would be in every process that is forked from it
    environ = _environ() | {"VX11_HOME": str(desk.settings.home)}
    os.execve(sys.executable, [sys.executable, "-m", "gateway.cli.foreground", *_pulling(pull)], environ)  # noqa: S606 - our own module, no shell


def _pulling(model: str) -> list[str]:
    return ["--pull", model] if model else []


def _environ() -> dict[str, str]:
    """For a child that runs a module of this very program."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}


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


def _detached(desk: Desk, more: list[str]) -> None:
    """Start `vx11 up` in a session of its own and show what it prints until it is ready.

    The first start prints a token: that goes through a file without a name, never into a log.
    """
    folder = desk.settings.home / "logs"
    for made in (desk.settings.home, folder):
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / LOG
    path.unlink(missing_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)  # `bus.logs` may cut it
    with tempfile.TemporaryFile() as printed, os.fdopen(log, "wb") as errors:
        child = subprocess.Popen(  # noqa: S603 - this very program
            [sys.executable, "-m", "gateway.cli", "--home", str(desk.settings.home), "up", *more],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=errors,
            start_new_session=True,
            env=_environ(),
        )
        _wait_ready(desk, child, _Shown(desk, printed.fileno(), path))
    desk.screen.advise([("vx11 status", "who is awake"), ("vx11 chat hello", "talk to it"), ("vx11 down", "stop it in order")])


class _Shown:
    """What the child printed, passed on as it comes: `printed` to stdout, its log to stderr."""

    def __init__(self, desk: Desk, printed: int, log: Path) -> None:
        from gateway.cli.logs import Tail

        self._screen = desk.screen
        self._printed = printed
        self._position = 0
        self._log = log
        self._tail = Tail(log.stat().st_ino, 0)
        self.said_up = False

    def more(self) -> None:
        from gateway.cli.foreground import SAYS_UP

        data = os.pread(self._printed, OUTPUT_BYTES, self._position)
        whole = data[: data.rfind(b"\n") + 1]
        self._position += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            self.said_up = self.said_up or line.startswith(SAYS_UP)
            self._screen.line(line)
        for line in self._tail.more(self._log):
            self._screen.talk(line)


def _wait_ready(desk: Desk, child: subprocess.Popen[bytes], shown: _Shown) -> None:
    """Raises Failure when the child ends or does not get ready in READY_S."""
    from schemas.errors import CODES, Failure

    logs = [["vx11 logs up", "what it printed"], ["vx11 doctor", "what is in its way"]]
    end = time.monotonic() + READY_S
    while not (shown.said_up and _ready(desk)):
        ended = child.poll()
        shown.more()
        if ended is not None:
            if any(row.exit == ended for row in CODES.values()) or ended == CONFIGURATION:
                raise typer.Exit(ended)  # it has said why, and that has just been shown
            raise Failure("crashed", f"VX11 did not start: it ended with {ended}", next=logs)
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
    if found is None or not _left(found):
        desk.screen.talk(f"VX11 is not running here ({desk.settings.home}); there is nothing to stop.")
        return
    began = time.monotonic()
    stop(found, timeout)
    desk.screen.line(f"VX11 stopped in {time.monotonic() - began:.1f} s")


def stop(found: Running, timeout: float) -> None:
    """SIGTERM to the supervisor, which ends the others in order; to them when it is gone. Then wait for all.

    Raises Failure("timeout"), naming who is left.
    """
    left = _left(found)
    for pid in [left[SUPERVISOR]] if SUPERVISOR in left else left.values():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + timeout
    while left := _left(found):
        if time.monotonic() > end:
            raise _still_there(left, timeout)
        time.sleep(LOOK_EVERY_S)


def _left(found: Running) -> dict[str, int]:
    """Name to pid of what still runs; who began at another time than recorded is somebody else by now."""
    every = {SUPERVISOR: found.supervisor, **found.pids}
    return {name: process.pid for name, process in every.items() if process.alive}


def _still_there(left: dict[str, int], timeout: float) -> Failure:
    from schemas.errors import Failure

    named = ", ".join(f"{name} (pid {pid})" for name, pid in left.items())
    kill = f"kill -9 {' '.join(str(pid) for pid in left.values())}"
    return Failure(
        "timeout",
        f"VX11 has not stopped after {timeout:g} s",
        why=f"still there: {named}; a handler may be finishing its work",
        next=[["vx11 down", "wait longer"], [kill, "end it at once; what is in flight is lost"]],
    )
