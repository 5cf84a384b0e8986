"""Processes under test: started, waited for until ready, asked what they cost, and always ended."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bus.client import Bus
from gateway.torture.cycles import known
from gateway.torture.system import System, door_open

TREE = Path(__file__).resolve().parents[2]
READY_S = 30.0
STOP_S = 10.0


class Program:
    """A module of `tests.bench.programs` in a process of its own, which says `ready` and what else is to be known."""

    def __init__(self, name: str, *words: object, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"tests.bench.programs.{name}", *map(str, words)],
            cwd=TREE,
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def ready(self, patience: float = READY_S) -> str:
        """What it said behind `ready`. Raises RuntimeError when it says nothing or something else."""
        assert self.process.stdout
        readable, _, _ = select.select([self.process.stdout], [], [], patience)
        word, _, rest = (self.process.stdout.readline().strip() if readable else "").partition(" ")
        if word != "ready":
            raise RuntimeError(f"{self.name} did not get ready, exit code {self.process.poll()}")
        return rest

    def result(self, patience: float) -> str:
        """All that it printed, once it has ended. Raises RuntimeError when it failed."""
        out, _ = self.process.communicate(timeout=patience)
        if self.process.returncode:
            raise RuntimeError(f"{self.name} failed with exit code {self.process.returncode}")
        return out

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


@contextmanager
def program(name: str, *words: object) -> Iterator[Program]:
    one = Program(name, *words)
    try:
        yield one
    finally:
        one.stop()


async def begun(system: System) -> None:
    """Return once its door is open and its actors are known. Raises Failure."""
    await door_open(system)
    async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="bench", fast=True) as bus:
        await known(bus)


def cpu_s(pids: Iterable[int]) -> float:
    """Seconds of processor time that these processes have used so far, by their own clocks: /proc counts hundredths only.

    Raises OSError for a process that is gone. The number of a process's clock: clock_getcpuclockid(3) of Linux.
    """
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def pss_kib(pid: int) -> float:
    """Proportional memory: what is shared counts by the part."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith("Pss:")))


def wait_for(what: str, look: Any, patience: float = READY_S) -> Any:
    """The first true thing that `look` returns. Raises TimeoutError."""
    end = time.monotonic() + patience
    while not (found := look()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {patience:g} s for {what}")
        time.sleep(0.01)
    return found
