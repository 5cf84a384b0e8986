"""What a process is kept from while it only tries things out: other hosts, other processes, files outside its folder.

Python tells of each of these before it happens, and a refusal there is an error where it would have happened. Code that is
not Python's own (a library in C, uvloop) may go around it: this keeps mistakes in, not attackers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", None})
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PROCESSES = {
    **dict.fromkeys(("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty"), "start"),
    **dict.fromkeys(("os.kill", "os.killpg"), "signal"),
}
LOOKUPS = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})
CHANGES = {
    "os.remove": 1,
    "os.rename": 2,
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.truncate": 1,
    "os.chmod": 1,
    "os.chown": 1,
    "os.utime": 1,
    "os.link": 2,
    "os.symlink": 2,
    "shutil.rmtree": 1,
    "sqlite3.connect": 1,
}
"""What changes files, and how many of its first arguments are paths."""


class Fence:
    """`ports`: on this machine, those that may be reached. Up for good, but only where `up` is set."""

    def __init__(self, folder: Path, ports: Collection[int]) -> None:
        self.up = False
        self.refused: list[str] = []
        """What was tried."""
        self._folder = os.path.realpath(folder)
        self._ports = ports
        sys.addaudithook(self._look)

    def _look(self, event: str, args: tuple[Any, ...]) -> None:
        if self.up and (tried := self._forbidden(event, args)):
            self.refused.append(tried)
            raise PermissionError(f"{tried}: not from inside a golden replay")

    def _forbidden(self, event: str, args: tuple[Any, ...]) -> str:
        """What would be done, empty when it may."""
        if event == "open":
            path, mode, flags = args
            writes = any(letter in (mode or "") for letter in "wax+") or (isinstance(flags, int) and flags & WRITES)
            return f"write {path}" if writes and not self._inside(path) else ""
        if event in {"socket.connect", "socket.sendto"}:
            return self._reached(args[1])
        if event in LOOKUPS:
            return "" if args[0] in LOOPBACK else f"look up {args[0]}"
        if event in PROCESSES:
            return f"{PROCESSES[event]} a process ({event})"
        for path in args[: CHANGES.get(event, 0)]:
            if not self._inside(path):
                return f"{event} {path}"
        return ""

    def _reached(self, address: Any) -> str:
        if isinstance(address, tuple) and address[0] in LOOPBACK and address[1] in self._ports:
            return ""
        return f"connect to {':'.join(map(str, address[:2])) if isinstance(address, tuple) else address}"

    def _inside(self, path: Any) -> bool:
        """An open descriptor is where it is; what was opened was looked at then."""
        if isinstance(path, int) or path in {os.devnull, ":memory:"}:
            return True
        real = os.path.realpath(os.fsdecode(path))
        return real == self._folder or real.startswith(self._folder + os.sep)
