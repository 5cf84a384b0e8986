"""A server program that runs as our child on a loopback port and dies with us."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from schemas.errors import Failure

LOOPBACK = "127.0.0.1"
POLL_S = 0.002
"""Between two looks at a server that starts: both servers take 10-40 ms."""
START_S = 10.0
LOCK_S = 10.0
"""For an earlier server on the same data that has been told to stop."""
STOP_S = 5.0
"""After this a server that was told to stop is killed."""
PORTS = range(15_000, 32_000)
"""Where a free port is looked for: below the ephemeral ports, so that a server that restarts finds its port free."""
LOG_TAIL_CHARS = 2_000

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Daemon:
    """One server process. `answers(port)` says whether it serves: it must know its own server from a stranger.

    `on_orphan`: the signal that it gets when this process ends, however it ends (Linux only; elsewhere a killed parent
    leaves it running). `data`: its folder, locked by the process itself for as long as it lives, so that no second one
    ever writes there. `logs`: the first takes what the process prints; the others it writes itself.
    `start`, `stop` and `kill` may be repeated, on the same port and data.
    """

    def __init__(
        self,
        argv: Sequence[str],
        port: int,
        data: Path,
        logs: Sequence[Path],
        answers: Callable[[int], bool],
        on_orphan: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.argv = list(argv)
        self.port = port
        self.data = data
        self.logs = tuple(logs)
        self.process: subprocess.Popen[bytes] | None = None
        self._answers = answers
        self._on_orphan = on_orphan

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process, without waiting for it. Raises Failure("conflict") when another one is on its data.

        Only from the main thread: Linux counts the end of the thread that started a child as the parent's end.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a server is started from the main thread only: it dies with the thread that starts it")
        for folder in (self.data, *(log.parent for log in self.logs)):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(self.data) as lock, self.logs[0].open("ab") as out:  # appended to: `bus.logs` may cut it
            self.process = subprocess.Popen(  # noqa: S603 - argv comes from our own configuration
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                pass_fds=(lock.fileno(),),
                start_new_session=True,  # a Ctrl-C in the terminal is for us; we stop the servers last
                preexec_fn=self._tie(),  # noqa: PLW1509 - two system calls, no locks
            )
        return self.process

    def start(self, timeout: float = START_S) -> None:
        """Start and wait until it serves. Raises Failure("unavailable") with the log's end when it does not."""
        self.spawn()
        deadline = time.monotonic() + timeout
        while not self._up(deadline):
            time.sleep(POLL_S)

    async def start_async(self, timeout: float = START_S) -> None:
        """The same without holding the loop."""
        self.spawn()
        deadline = time.monotonic() + timeout
        while not self._up(deadline):  # noqa: ASYNC110 - another process cannot set an Event
            await asyncio.sleep(POLL_S)

    def stop(self, timeout: float = STOP_S) -> None:
        """SIGTERM, then SIGKILL after `timeout` seconds. Returns when the process is gone."""
        if self.process is None:
            return
        self.process.terminate()
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL. Returns when the process is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def _up(self, deadline: float) -> bool:
        if not self.running:
            raise Failure("unavailable", f"{self.argv[0]} did not start: {self._tail()}")
        if self._answers(self.port):
            return True
        if time.monotonic() > deadline:
            self.kill()
            raise Failure("unavailable", f"{self.argv[0]} did not answer on port {self.port}: {self._tail()}")
        return False

    def _tail(self) -> str:
        text = "\n".join(log.read_text(errors="replace").strip() for log in self.logs if log.exists()).strip()
        return text[-LOG_TAIL_CHARS:] or f"it wrote nothing to {self.logs[0]}"

    def _tie(self) -> Callable[[], None] | None:
        if _LIBC is None:
            return None
        prctl, parent, wanted = _LIBC.prctl, os.getpid(), int(self._on_orphan)

        def tie() -> None:
            prctl(_PR_SET_PDEATHSIG, wanted)
            if os.getppid() != parent:  # it ended between the fork and the line above
                os.kill(os.getpid(), signal.SIGKILL)

        return tie


def _locked(data: Path) -> BinaryIO:
    """`<data>/lock`, locked; the lock lasts until the last process that has the file open has ended."""
    file = (data / "lock").open("ab")
    deadline = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                raise Failure("conflict", f"another server still runs on {data}; end it, then start again") from None
            time.sleep(POLL_S)
        else:
            return file


def free_port(preferred: int = 0) -> int:
    """`preferred` when nobody listens on it, else one that is free now. Raises Failure("unavailable") when none is."""
    if preferred and _is_free(preferred):
        return preferred
    for port in random.sample(PORTS, len(PORTS)):
        if _is_free(port):
            return port
    raise Failure("unavailable", f"no free port between {PORTS.start} and {PORTS.stop}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ports that only wait in TIME_WAIT are free
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
