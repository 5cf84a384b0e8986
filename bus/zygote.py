"""The process that forks: single-threaded, the common modules imported, parent of every instance on this host.

It speaks lines of JSON with its host over a socket: `start`, `card`, `kill` come in; `started`, `exited`, `card` go out.
One forked child is kept parked: it connects only when it has been given its name. When the host is gone, all end.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bus.cards import card_of, loaded_files, version_of
from bus.instance import BROKEN, Start, live
from bus.loading import TREE, load_actor
from bus.process import close_others, die_with_parent, write_output_to
from bus.settings import Settings

LINE_BYTES = 1_048_576
SPARE_DIED_S = 5.0
"""After the death of a spare none is forked for so long."""
PARK_AFTER_S = 0.05
"""A new spare is forked once it has been quiet for so long: not in the way of the wake that took the last one."""


@dataclass
class Zygote:
    """State of the forking process. `url`: the NATS server that its children connect to."""

    host: socket.socket
    url: str
    settings: Settings
    roots: list[Path]
    children: dict[int, dict[str, Any]] = field(default_factory=dict)
    cards: dict[int, tuple[str, bytearray]] = field(default_factory=dict)
    """Read end of a pipe to the actor whose card comes through it, and what has come."""
    spare: tuple[int, int] | None = None
    """Pid of the parked child and the write end of its pipe."""
    preload: list[str] = field(default_factory=list)
    """Actors that a spare imports while it is parked, so that the one it becomes need not."""
    park_at: float = 0.0

    @property
    def plain(self) -> bool:
        """Start fresh interpreters instead of forking: the default where a fork is not safe, as on macOS."""
        return self.settings.get("VX11_LAUNCHER", "plain" if sys.platform == "darwin" else "fork") == "plain"

    def run(self) -> None:
        """Serve until the host's end of the socket is closed; then end with all children (they die with us)."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        buffer = b""
        while True:
            pause = None if self.spare or self.plain else max(PARK_AFTER_S, self.park_at - time.monotonic())
            watched: list[Any] = [self.host, woken, *self.cards]
            ready, _, _ = select.select(watched, [], [], pause)
            if not ready:
                self.spare = self._park()
                continue
            if woken in ready:
                _empty(woken)
            self._reap()
            for fd in [fd for fd in self.cards if fd in ready]:
                self._read_card(fd)
            if self.host in ready:
                data = self.host.recv(LINE_BYTES)
                if not data:
                    return
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))

    def _obey(self, order: dict[str, Any]) -> None:
        if order["op"] == "start":
            self._start(order["start"])
        elif order["op"] == "card":
            self._fork_card(order["name"])
        elif order["op"] == "preload":
            self.preload = order["names"]
            self._dismiss_spare()
        elif order["op"] == "kill":
            for pid, start in self.children.items():
                if start["run"] == order["run"]:
                    os.kill(pid, signal.SIGKILL)

    def _start(self, start: dict[str, Any]) -> None:
        """Name the parked child, or fork one."""
        line = json.dumps(start).encode() + b"\n"
        if self.spare:
            (pid, pipe), self.spare = self.spare, None
            os.write(pipe, line)
            os.close(pipe)
        else:
            pid = self._fork(lambda: self._be(start))
        self.children[pid] = start
        self._say({"op": "started", "run": start["run"], "pid": pid})

    def _park(self) -> tuple[int, int]:
        read, write = os.pipe()

        def wait_for_a_name() -> int:
            for name in self.preload:
                load_actor(name, self.roots)
            line = b""
            while not line.endswith(b"\n"):
                data = os.read(read, LINE_BYTES)
                if not data:
                    return 0
                line += data
            os.close(read)
            return self._be(json.loads(line))

        pid = self._fork(wait_for_a_name, keep={read})
        os.close(read)
        return pid, write

    def _dismiss_spare(self) -> None:
        """What it has imported is no longer what is on disk."""
        if self.spare:
            (_, pipe), self.spare = self.spare, None
            os.close(pipe)

    def _be(self, start: dict[str, Any]) -> int:
        """In the child: become the instance and live."""
        write_output_to(self.settings.home / "logs" / f"{start['actor']}.log")
        if self.plain:
            _execute(start, self.url, self.settings)
        actor = load_actor(start["actor"], self.roots)
        return asyncio.run(live(actor, Start(**start), self.url, self.settings))

    def _fork_card(self, name: str) -> None:
        """Import the actor in a throw-away child, which sends its card."""
        read, write = os.pipe()

        def send() -> int:
            with os.fdopen(write, "wb") as out:
                out.write(json.dumps(_card_document(name, self.roots)).encode())
            return 0

        self._fork(send, keep={write})
        os.close(write)
        self.cards[read] = (name, bytearray())

    def _read_card(self, fd: int) -> None:
        name, got = self.cards[fd]
        if data := os.read(fd, LINE_BYTES):
            got += data
            return
        os.close(fd)
        del self.cards[fd]
        empty = {"card": {"name": name, "summary": "", "error": "its process ended while it was imported"}, "files": []}
        self._say({"op": "card", "name": name, **(json.loads(bytes(got)) if got else empty)})

    def _fork(self, run: Callable[[], int], keep: set[int] | None = None) -> int:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        code = BROKEN
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            die_with_parent(parent)
            close_others(keep or set())
            code = run()
        except BaseException:
            logging.getLogger("vx11.zygote").exception("a process failed")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if self.spare and pid == self.spare[0]:
                os.close(self.spare[1])
                self.spare = None
                self.park_at = time.monotonic() + SPARE_DIED_S
            start = self.children.pop(pid, None)
            if start:
                code = os.waitstatus_to_exitcode(status)
                self._say({"op": "exited", "run": start["run"], "pid": pid, "code": code})

    def _say(self, told: dict[str, Any]) -> None:
        self.host.sendall(json.dumps(told).encode() + b"\n")


def _execute(start: dict[str, Any], url: str, settings: Settings) -> None:
    """Become a fresh interpreter with the order on its standard input. Never returns."""
    read, write = os.pipe()
    os.write(write, json.dumps(start).encode() + b"\n")
    os.close(write)
    os.dup2(read, 0)
    told = {"VX11_HOME": str(settings.home), "VX11_NATS_URL": url, "PYTHONPATH": str(TREE), "PYTHONUTF8": "1"}
    argv = [sys.executable, "-m", "actors", start["actor"]]
    os.execve(sys.executable, argv, {**settings.variables, **told})  # noqa: S606 - our own module, no shell


def _empty(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            continue
    except BlockingIOError:
        return


def _card_document(name: str, roots: list[Path]) -> dict[str, Any]:
    try:
        before = psutil.Process().memory_info().rss
        actor = load_actor(name, roots)
        grew = psutil.Process().memory_info().rss - before
        files = loaded_files(roots)
        built_in = len(roots) > 0 and (roots[0] / "actors" / name).is_dir()
        card = card_of(actor, card_version=version_of(files), built_in=built_in)
        return {"card": card.model_dump(mode="json"), "files": [str(file) for file in files], "grew": grew}
    except Exception as error:  # noqa: BLE001 - the author's code may raise anything; it is shown to its author
        told = f"{type(error).__name__}: {error}"
        files = sorted({*loaded_files(roots), *(root / name / "actor.py" for root in roots[1:])})
        document = {"name": name, "summary": "", "error": told, "card_version": version_of(files)}
        return {"card": document, "files": [str(file) for file in files]}


def fork_zygote(url: str, settings: Settings, roots: list[Path]) -> tuple[int, socket.socket]:
    """Fork the zygote from this process, which must have no running loop and no thread. Returns its pid and socket."""
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    gc.collect()
    gc.freeze()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    code = 1
    try:
        die_with_parent(parent)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        close_others({theirs.fileno()})
        Zygote(theirs, url, settings, roots).run()
        code = 0
    except BaseException:
        logging.getLogger("vx11.zygote").exception("the zygote failed")
    finally:
        os._exit(code)
