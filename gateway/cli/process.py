"""The processes of a running VX11 as the operating system sees them, with their memory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from gateway.cli.home import Running

Kind = Literal["pss", "rss"]
FORKS = {"host": "zygote", "zygote": "spare"}
"""Parent to child: what a process without a name of its own is, by who forked it."""


@dataclass(frozen=True)
class Seen:
    """One process. `kind`: PSS shares what forked processes have in common between them; RSS counts it for each."""

    name: str
    pid: int
    parent: int
    depth: int
    memory_bytes: int
    kind: Kind
    cpu_s: float
    age_s: float

    def document(self) -> dict[str, Any]:
        return asdict(self)


def processes(run: Running, actors: Mapping[int, str]) -> list[Seen]:
    """The supervisor, what `run.json` names, and all their children, parents before children.

    `actors`: pid to actor, as madre knows them. Processes that ended meanwhile are left out.
    """
    names = {process.pid: name for name, process in run.pids.items() if process.alive}
    names.setdefault(run.supervisor.pid, "supervisor")
    names |= {pid: name for pid, name in actors.items() if pid not in names}
    roots = [run.supervisor.pid, *(pid for pid in names if pid in {p.pid for p in run.pids.values()})]
    found: dict[int, Seen] = {}
    for root in roots:
        _walk(root, 0, "", names, found)
    return list(found.values())


def _walk(pid: int, depth: int, parent: str, names: Mapping[int, str], found: dict[int, Seen]) -> None:
    if pid in found:
        return
    try:
        process = psutil.Process(pid)
        name = names.get(pid) or FORKS.get(parent) or _program(process)
        found[pid] = _seen(process, depth, name)
        children = process.children()
    except psutil.Error:
        return
    for child in children:
        _walk(child.pid, depth + 1, name, names, found)


def _program(process: psutil.Process) -> str:
    """What it runs: of Python a file, for `python` says nothing of it."""
    name = process.name()
    files = [Path(word).stem for word in process.cmdline()[1:] if word.endswith(".py")] if name.startswith("python") else []
    return files[0] if files else name


def _seen(process: psutil.Process, depth: int, name: str) -> Seen:
    with process.oneshot():
        memory, kind = _memory(process)
        times = process.cpu_times()
        age = time.time() - process.create_time()
        return Seen(name, process.pid, process.ppid(), depth, memory, kind, times.user + times.system, age)


def _memory(process: psutil.Process) -> tuple[int, Kind]:
    """PSS where the system tells it and lets us read it, else RSS."""
    try:
        return int(process.memory_full_info().pss), "pss"
    except (psutil.AccessDenied, AttributeError):
        return int(process.memory_info().rss), "rss"
