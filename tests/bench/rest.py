"""What VX11 costs while nothing happens."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from bus.supervisor import SERVICES
from gateway.torture.system import System, scratch
from tests.bench.numbers import Rounds
from tests.bench.process import begun, cpu_s, pss_kib, wait_for
from tests.bench.report import Claim, Figure

ALL = "all together"
STILL_S = 1.0
STILL_CPU_S = 0.02
"""When all together use less in STILL_S seconds the start is over."""
ABOUT = """What VX11 costs while nothing happens.
A whole system that has just started and that nobody asks: proportional memory and processor time of each process."""


@dataclass(frozen=True)
class Size:
    seconds: float = 30.0


def measure(home: Path, size: Size) -> Figure:
    """Raises Failure when the system does not start, TimeoutError when it does not come to rest."""
    with scratch(home, services=",".join(SERVICES)) as system:
        asyncio.run(begun(system))
        wait_for("the system to come to rest", lambda: _spent(system, STILL_S) < STILL_CPU_S)
        named = processes(system)
        before = {name: cpu_s([pid]) for name, pid in named.items()}
        time.sleep(size.seconds)
        rounds = Rounds()
        for name, pid in named.items():
            rounds.add(name, pss_mb=pss_kib(pid) / 1024, cpu_percent=100 * (cpu_s([pid]) - before[name]) / size.seconds)
    quantities = {q: sum(rounds.median(name, q) for name in named) for q in ("pss_mb", "cpu_percent")}
    rounds.add(ALL, **quantities)
    return Figure("rest", f"{ABOUT} Over {size.seconds:g} s.", rounds, claims(rounds))


def claims(rounds: Rounds) -> list[Claim]:
    return [
        Claim("memory of all", rounds.median(ALL, "pss_mb"), most=120.0, gross=200.0, unit="MB"),
        Claim("of a core", rounds.median(ALL, "cpu_percent"), most=1.0, gross=10.0, unit="%"),
    ]


def processes(system: System) -> dict[str, int]:
    """Every process of the system by what it is."""
    names = {system.process.pid: "supervisor"}
    names |= {int(told["pid"]): name for name, told in system.document()["pids"].items()}
    for zygote in psutil.Process(system.pid("host")).children():
        names[zygote.pid] = "zygote"
        for n, child in enumerate(zygote.children()):
            names[child.pid] = f"spare {n + 1}"
    everybody = psutil.Process(system.process.pid).children(recursive=True)
    for child in everybody:
        names.setdefault(child.pid, f"process {child.pid}")
    return {name: pid for pid, name in names.items()}


def _spent(system: System, seconds: float) -> float:
    """Processor time of all that live through the next `seconds`."""
    before = {pid: cpu_s([pid]) for pid in processes(system).values()}
    time.sleep(seconds)
    if set(processes(system).values()) != set(before):
        return seconds  # somebody came or went: it is not at rest
    return sum(cpu_s([pid]) - spent for pid, spent in before.items())
