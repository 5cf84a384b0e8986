"""The process that forks: single-threaded, the common modules imported, parent of every instance on this host.

It speaks lines of JSON with its host over a socket: `start`, `named`, `preload`, `card`, `kill` come in; `started`, `exited`,
`spare`, `card` go out. One forked child is kept parked: it connects only when it has been given its name. The host gives it
that itself, over the pipe that comes with `spare`. When the host is gone, all end.
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

from bus import chaos
from bus.actor import Actor
from bus.examine import examine, faulty
from bus.instance import BROKEN, live
from bus.loading import TREE, load_actor
from bus.process import close_others, die_with_parent, empty, forget_files, kill, write_output_to
from bus.settings import Settings
from bus.start import Start
from bus.warm import rehearse

log = logging.getLogger("vx11.zygote")

LINE_BYTES = 1_048_576
SPARE_DIED_S = 5.0
"""After the death of a spare none is forked for so long."""
EXAMINE_S = 30.0
"""An import that takes longer is ended: it waits for something, or does at once what belongs into a resource."""
PARK_AFTER_S = 0.05
"""A new spare is forked once it has been quiet for so long: not in the way of the wake that took the last one."""


@dataclass
class Examined:
    """An actor that is being imported for its card. `begun`: ns since the epoch."""

    name: str
    pid: int
    begun: int
    got: bytearray = field(default_factory=bytearray)
    late: bool = False


@dataclass
class Zygote:
    """State of the forking process. `url`: the NATS server that its children connect to."""

    host: socket.socket
    url: str
    settings: Settings
    roots: list[Path]
    children: dict[int, dict[str, Any]] = field(default_factory=dict)
    cards: dict[int, Examined] = field(default_factory=dict)
    """Read end of a pipe to the process that imports an actor for its card."""
    spare: int = 0
    """Pid of the parked child."""
    pipe: int | None = None
    """Write end of the pipe to the parked child, until the host has it."""
    warming: int | None = None
    """Read end of a pipe that the spare closes when it is ready: until then a fork is faster than to wait for it."""
    died: int = 0
    """With what the last spare has ended: the host may have named it before it heard of that."""
    preload: list[str] = field(default_factory=list)
    """Actors that a spare imports while it is parked, so that the one it becomes need not."""
    generation: int = 0
    """Of what is preloaded."""
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
            watched: list[Any] = [self.host, woken, *self.cards, *([] if self.warming is None else [self.warming])]
            ready, _, _ = select.select(watched, [], [], self._pause())
            if not ready:
                self._end_late_examinations()
                if self._may_park():
                    self._try_park()
                continue
            if woken in ready:
                empty(woken)
            self._reap()
            if self.warming in ready:
                self._forget_warming()
                self._hand_over()
            for fd in [fd for fd in self.cards if fd in ready]:
                self._read_card(fd)
            if self.host in ready:
                data = self.host.recv(LINE_BYTES)
                if not data:
                    return
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))

    def _try_park(self) -> None:
        try:
            self._park()
        except OSError as error:  # no process or descriptor to be had just now
            log.warning("no spare: %s", error)
            self.park_at = time.monotonic() + SPARE_DIED_S

    def _may_park(self) -> bool:
        return not (self.spare or self.plain or time.monotonic() < self.park_at)

    def _pause(self) -> float | None:
        """Seconds until there is something to do unasked; None when there is nothing."""
        pauses = [max(0.0, EXAMINE_S - (time.time_ns() - one.begun) / 1e9) for one in self.cards.values() if not one.late]
        if not (self.spare or self.plain):
            pauses.append(max(PARK_AFTER_S, self.park_at - time.monotonic()))
        return min(pauses, default=None)

    def _end_late_examinations(self) -> None:
        for one in self.cards.values():
            if not one.late and time.time_ns() - one.begun > EXAMINE_S * 1e9:
                one.late = True
                kill(one.pid)

    def _obey(self, order: dict[str, Any]) -> None:
        if order["op"] == "start":
            self._start(order["start"])
        elif order["op"] == "card":
            self._fork_card(order["name"])
        elif order["op"] == "preload":
            self.preload, self.generation, self.spare = order["names"], order["generation"], 0
            self._close_pipe()
        elif order["op"] == "named":
            self._named(order["pid"], order["start"])
        elif order["op"] == "kill":
            for pid, start in self.children.items():
                if start["run"] == order["run"]:
                    os.kill(pid, signal.SIGKILL)

    def _start(self, start: dict[str, Any]) -> None:
        try:
            pid = self._fork(lambda: self._be(start))
        except OSError as error:
            log.warning("%s cannot be started: %s", start["actor"], error)
            self._say({"op": "exited", "run": start["run"], "pid": 0, "code": BROKEN})
            return
        self.children[pid] = start
        chaos.point("zygote.started")
        self._say({"op": "started", "run": start["run"], "pid": pid})

    def _named(self, pid: int, start: dict[str, Any]) -> None:
        """The host has given the spare its name."""
        chaos.point("zygote.started")
        if pid != self.spare:
            self._say({"op": "exited", "run": start["run"], "pid": pid, "code": self.died})
            return
        self.children[pid] = start
        self.spare = 0

    def _hand_over(self) -> None:
        """The spare is ready, unless it has just died: then nobody reads what the host writes, which notices."""
        if self.pipe is None:
            return
        told = {"op": "spare", "pid": self.spare, "generation": self.generation}
        socket.send_fds(self.host, [json.dumps(told).encode() + b"\n"], [self.pipe])
        self._close_pipe()

    def _park(self) -> None:
        read, write = os.pipe()
        self._forget_warming()
        self.warming, ready = os.pipe()

        def wait_for_a_name() -> int:
            for name in self.preload:
                load_actor(name, self.roots, self.settings)
            return asyncio.run(self._parked(read, ready))

        try:
            self.spare, self.pipe = self._fork(wait_for_a_name, keep={read, ready}), write
        except OSError:
            os.close(write)
            raise
        finally:
            os.close(read)
            os.close(ready)

    async def _parked(self, read: int, ready: int) -> int:
        """Have everything ready but the name, which comes as a line; then live."""
        await rehearse(self.settings)
        gc.freeze()
        forget_files()
        os.close(ready)
        line = _line_of(read)
        os.close(read)
        if not line:
            return 0  # dismissed
        start = json.loads(line)
        return await self._live(start)

    def _forget_warming(self) -> None:
        """The spare has closed its end, because it is ready or because it is gone, which `_reap` will see."""
        if self.warming is not None:
            os.close(self.warming)
            self.warming = None

    def _close_pipe(self) -> None:
        """The spare ends when nobody has it any more: we, or the host that has been given it."""
        if self.pipe is not None:
            os.close(self.pipe)
            self.pipe = None

    def _be(self, start: dict[str, Any]) -> int:
        """In the child: become the instance and live."""
        if self.plain:
            write_output_to(self._log_of(start))
            _execute(start, self.url, self.settings)
        return asyncio.run(self._live(start))

    async def _live(self, start: dict[str, Any]) -> int:
        try:
            return await live(lambda: self._become(start), Start(**start), self.url, self.settings)
        except BaseException:
            write_output_to(self._log_of(start))  # it may not have come as far as `_become`
            raise

    def _become(self, start: dict[str, Any]) -> Actor:
        write_output_to(self._log_of(start))
        return load_actor(start["actor"], self.roots, self.settings)

    def _log_of(self, start: dict[str, Any]) -> Path:
        return self.settings.home / "logs" / f"{start['actor']}.log"

    def _fork_card(self, name: str) -> None:
        """Import the actor in a throw-away child, which sends its card. One that is on it already is late: it is ended."""
        for fd, one in [(fd, one) for fd, one in self.cards.items() if one.name == name]:
            kill(one.pid)
            os.close(fd)
            del self.cards[fd]
        try:
            pid, read = self._send_card(name)
        except OSError as error:  # no process or descriptor to be had just now
            log.warning("%s cannot be examined: %s", name, error)
            self._say({"op": "card", "name": name, **_unexamined(name, error)})
            return
        self.cards[read] = Examined(name, pid, time.time_ns())

    def _send_card(self, name: str) -> tuple[int, int]:
        """Pid of the child and the read end of its pipe."""
        read, write = os.pipe()

        def send() -> int:
            with os.fdopen(write, "wb") as out:
                out.write(json.dumps(examine(name, self.roots, self.settings)).encode())
            return 0

        try:
            return self._fork(send, keep={write}), read
        except OSError:
            os.close(read)
            raise
        finally:
            os.close(write)

    def _read_card(self, fd: int) -> None:
        one = self.cards[fd]
        if data := os.read(fd, LINE_BYTES):
            one.got += data
            return
        os.close(fd)
        del self.cards[fd]
        try:
            told = json.loads(bytes(one.got))
        except ValueError:  # nothing, or half of it: its process ended before it had sent all
            told = self._faulty(one)
        self._say({"op": "card", "name": one.name, **told})

    def _faulty(self, one: Examined) -> dict[str, Any]:
        why = f"its import took more than {EXAMINE_S:g} s" if one.late else "its process ended while it was imported"
        try:
            return faulty(one.name, self.roots, why, one.begun)
        except OSError as error:  # no descriptor to read its source with
            return _unexamined(one.name, error)

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
            if pid == self.spare:
                self._close_pipe()
                self.spare, self.died = 0, os.waitstatus_to_exitcode(status)
                self.park_at = time.monotonic() + SPARE_DIED_S
            start = self.children.pop(pid, None)
            if start:
                code = os.waitstatus_to_exitcode(status)
                self._say({"op": "exited", "run": start["run"], "pid": pid, "code": code})

    def _say(self, told: dict[str, Any]) -> None:
        self.host.sendall(json.dumps(told).encode() + b"\n")


def _unexamined(name: str, error: OSError) -> dict[str, Any]:
    """What is told of an actor that could not even be looked at. Without files: the host asks again at its next look."""
    card = {"name": name, "summary": "", "error": f"it cannot be examined just now: {error}"}
    return {"card": card, "files": [], "begun": time.time_ns(), "grew": 0, "took": 0.0, "dormant": True}


def _execute(start: dict[str, Any], url: str, settings: Settings) -> None:
    """Become a fresh interpreter with the order on its standard input. Never returns."""
    read, write = os.pipe()
    os.write(write, json.dumps(start).encode() + b"\n")
    os.close(write)
    os.dup2(read, 0)
    told = {"VX11_HOME": str(settings.home), "VX11_NATS_URL": url, "PYTHONPATH": str(TREE), "PYTHONUTF8": "1"}
    argv = [sys.executable, "-m", "actors", start["actor"]]
    os.execve(sys.executable, argv, {**settings.variables, **told})  # noqa: S606 - our own module, no shell


def _line_of(fd: int) -> bytes:
    """Up to its end; empty when the other side closes before. Nothing else happens in this process meanwhile."""
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(fd, LINE_BYTES)
        if not data:
            return b""
        line += data
    return line


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
