"""A scratch system of one's own: servers, madre and host in a temporary home, as a child process that is always ended."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from bus.daemon import LOOPBACK, free_port
from bus.loading import TREE
from bus.process import die_with_parent
from bus.supervisor import read_run_file
from schemas.errors import Failure

GATEWAY = "tentaculo_link"
KEPT = ("VX11_NATS_SERVER", "VX11_REDIS_SERVER", "VX11_LAUNCHER", "VX11_TEST_RUN")
"""What of the caller's own settings holds here, too: with which programs it runs, and the mark by which tests find leftovers."""
READY_S = 20.0
STOP_S = 40.0
ACTORS = Path(__file__).parent / "actors"
LISTENERS = Path(__file__).parent / "listeners"
"""The actor with a durable handler is apart, so that only who tortures with events has it."""


class System:
    """`home`, and what run.json says of the processes in it."""

    def __init__(self, home: Path, process: subprocess.Popen[bytes]) -> None:
        self.home = home
        self.process = process

    def document(self) -> dict[str, Any]:
        """run.json as it is now. Raises Failure when the system is down."""
        found = read_run_file(self.home / "run.json")
        if found is None:
            raise Failure("unavailable", f"the system in {self.home} is down; {self.home}/logs says why")
        return found

    @property
    def url(self) -> str:
        return str(self.document()["nats_url"])

    @property
    def http_url(self) -> str:
        """Empty without a gateway."""
        return str(self.document()["http_url"])

    @property
    def token(self) -> str:
        """Good for everything at the gateway of this system, and nowhere else."""
        return self.token_of(self.home)

    @staticmethod
    def token_of(home: Path) -> str:
        return hashlib.sha256(str(home).encode()).hexdigest()

    def pid(self, name: str) -> int:
        """Of a service or server; 0 while it is down."""
        return int(self.document()["pids"][name]["pid"])

    def owns(self, pid: int) -> bool:
        """Whether the process belongs to this system: nothing else may be struck."""
        try:
            return any(parent.pid == self.process.pid for parent in psutil.Process(pid).parents())
        except psutil.Error:
            return False

    def seed(self, user: str) -> Path:
        return self.home / "nats" / f"{user}.nk"


@contextmanager
def scratch(home: Path, *, services: str = "madre,host", variables: Mapping[str, str] | None = None) -> Iterator[System]:
    """Start and, whatever happens, stop, on Linux also when this process is killed. Ports are free ones."""
    home.mkdir(parents=True, exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("VX11_") or k in KEPT}
    made = {"VX11_HOME": str(home), "VX11_ACTORS_PATH": str(ACTORS), "VX11_NATS_PORT": "0", "VX11_REDIS_PORT": "0"}
    if GATEWAY in services.split(","):
        made |= {"VX11_HTTP_BIND": f"{LOOPBACK}:{free_port()}", "VX11_CONTROL_BIND": "off"}
        made |= {"VX11_HTTP_RATE": "0", "VX11_TOKEN": System.token_of(home)}
    environment = {**kept, **made, "VX11_SERVICES": services, **(variables or {})}
    with (home / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bus"],
            cwd=TREE,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509 - two system calls, no lock
        )
    try:
        system = System(home, process)
        _wait_ready(system)
        yield system
    finally:
        _stop(process)


def copies(folder: Path, number: int) -> tuple[str, ...]:
    """Write copies of the actor `echo` until there are `number` in all; the names of all."""
    names = ("echo", *(f"echo{i}" for i in range(2, number + 1)))
    for name in names[1:]:
        (folder / name).mkdir(parents=True)
        for file in (ACTORS / "echo").glob("*.py"):
            text = file.read_text()
            for old, new in (
                ("from echo.", f"from {name}."),
                ('Actor("echo"', f'Actor("{name}"'),
                ('"vx11.echo.', f'"vx11.{name}.'),
                ('"vx11.events.echo.', f'"vx11.events.{name}.'),
            ):
                text = text.replace(old, new)
            (folder / name / file.name).write_text(text)
    return names


async def door_open(system: System) -> None:
    """Return once the gateway answers. Raises Failure after READY_S seconds."""
    end = time.monotonic() + READY_S
    async with aiohttp.ClientSession() as http:
        while time.monotonic() < end:
            try:
                async with http.get(f"{system.http_url}/health"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.01)
    raise Failure("unavailable", f"the gateway of the scratch system does not answer; {system.home}/logs says why")


def _wait_ready(system: System) -> None:
    end = time.monotonic() + READY_S
    while read_run_file(system.home / "run.json") is None:
        if system.process.poll() is not None or time.monotonic() > end:
            text = (system.home / "supervisor.log").read_text()[-2_000:]
            raise Failure("unavailable", f"the scratch system did not start: {text}")
        time.sleep(0.01)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
