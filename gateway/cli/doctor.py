"""`doctor`: is this machine fit for VX11, and does what runs on it answer?"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from gateway.cli.desk import AsJson, Desk, desk_of, run_async

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.cli.check import Check, Finding
    from gateway.cli.home import Running
    from gateway.cli.remote import Remote

PYTHON = (3, 11)
USUAL_PORTS = {"bus": 4_222, "gateway": 8_000, "control": 8_001}
CONNECT_S = 1.0
ROUNDS = 20
SLOW_MS = 50.0
"""A round trip on loopback takes about 1 ms; beyond this the machine is overloaded or something is wrong."""
CLOCK_SLACK_S = 2.0
EARLIEST = 1_735_689_600
"""2025-01-01: a clock before this was never set."""
NOT_RUNNING = "VX11 is not running here"
BAD_NEWS = 1


def doctor(
    ctx: typer.Context,
    contract: Annotated[
        bool, typer.Option("--contract", help="Check every claim that VX11 makes, on the running system.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Check this machine and what runs on it; each line passes, fails, or says why it cannot be looked at."""
    from gateway.cli import check

    desk = desk_of(ctx, json=json)
    if contract:
        from gateway.cli.contract import examine_contract

        findings = examine_contract(desk)
    else:
        findings = run_async(_examine(desk))
    if not check.show(desk, findings):
        raise typer.Exit(BAD_NEWS)


@dataclass
class Patient:
    """What is examined. `remote` is None when there is no way to the system; `trouble` says why."""

    desk: Desk
    run: Running | None
    remote: Remote | None
    trouble: str = ""


async def _examine(desk: Desk) -> list[tuple[str, Finding]]:
    from gateway.cli.check import examine
    from gateway.cli.home import recorded
    from schemas.errors import Failure

    async with AsyncExitStack() as stack:
        patient = Patient(desk, None, None)
        try:
            found = recorded(desk.settings)
            patient.run = found if found and found.supervisor.alive else None
            patient.remote = await stack.enter_async_context(desk.open(desk.settings))
        except Failure as failure:
            patient.trouble = failure.message
        return await examine(_checks(), patient)


def _checks() -> list[Check[Patient]]:
    from gateway.cli.check import Check

    return [
        Check("python", _python),
        Check("home", _home),
        Check("disk", _disk),
        Check("clock", _clock),
        Check("nats-server", _nats_server),
        Check("ports", _ports),
        Check("connection", _connection),
        Check("round trip", _round_trip),
        Check("redis", _redis),
        Check("event log", _event_log),
    ]


async def _python(_patient: Patient) -> Finding:
    from gateway.cli.check import failed, passed

    version = platform.python_version()
    if sys.version_info < PYTHON:
        return failed(f"{version}; VX11 needs {'.'.join(map(str, PYTHON))} or later")
    return passed(f"{version}, {sys.executable}")


async def _home(patient: Patient) -> Finding:
    """A file is written to disk, read and removed."""
    from gateway.cli.check import failed, passed

    home = patient.desk.settings.home
    folder = _existing(home)
    probe = folder / f".doctor-{os.getpid()}"
    try:
        with probe.open("xb") as file:
            file.write(b"x")
            os.fsync(file.fileno())
    except OSError as error:
        return failed(f"{folder} cannot be written: {error.strerror}", "vx11 --home FOLDER up")
    finally:
        probe.unlink(missing_ok=True)
    if folder != home:
        return passed(f"{home} is not there yet; `vx11 up` makes it")
    if home.stat().st_mode & 0o077:
        return passed(f"{home}; others of this machine can look into it (chmod 700)")
    return passed(str(home))


async def _disk(patient: Patient) -> Finding:
    from bus.space import VARIABLE, Reserve
    from gateway.cli.amount import size
    from gateway.cli.check import failed, passed

    settings = patient.desk.settings
    room = Reserve.of(replace(settings, home=_existing(settings.home))).room()
    said = f"{size(room.free)} free, {size(room.reserve)} of it kept in reserve"
    return failed(f"{said} ({VARIABLE}): nothing is accepted that would have to be stored") if room.low else passed(said)


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that is there."""
    return next(one for one in (path, *path.parents) if one.exists())


async def _clock(patient: Patient) -> Finding:
    """The clock was set, agrees with the disk's, and has not run backwards since the start."""
    from datetime import datetime

    from gateway.cli.check import failed, passed

    now = time.time()
    if now < EARLIEST:
        return failed(f"the clock says {time.strftime('%Y-%m-%d')}; set it")
    probe = _existing(patient.desk.settings.home) / f".doctor-clock-{os.getpid()}"
    try:
        probe.touch()
        skew = probe.stat().st_mtime - time.time()
    finally:
        probe.unlink(missing_ok=True)
    if abs(skew) > CLOCK_SLACK_S:
        return failed(f"the disk's clock and this machine's differ by {skew:.1f} s")
    if patient.run:
        ahead = datetime.fromisoformat(patient.run.started_at).timestamp() - now
        if ahead > CLOCK_SLACK_S:
            return failed(f"VX11 was started {ahead:.0f} s in the future: the clock was set back; restart it")
    return passed(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)))


async def _nats_server(patient: Patient) -> Finding:
    """The program is there and is the one that was pinned."""
    from bus.nats_server import binary
    from gateway.cli.check import passed, skipped

    settings = patient.desk.settings
    if settings.get("VX11_NATS_URL"):
        return skipped("VX11_NATS_URL names a server of your own")
    path = binary(settings)
    if settings.get("VX11_NATS_SERVER"):
        return passed(f"{path}, your own, not checked")
    return passed(f"{path}, its SHA-256 is the pinned one")


async def _ports(patient: Patient) -> Finding:
    """Running: each address takes a connection. Not running: are the usual ports free?"""
    from gateway.cli.check import failed, passed

    if patient.run is None:
        taken = [f"{port} ({name})" for name, port in USUAL_PORTS.items() if await _listens("127.0.0.1", port)]
        return passed(f"taken by others: {', '.join(taken)}; VX11 will take other ones" if taken else "the usual ones are free")
    run = patient.run
    urls = {"bus": run.nats_url, "gateway": run.http_url, "control": run.control_url, "redis": run.redis_url}
    wanted = {name: urlsplit(url) for name, url in urls.items() if url and urlsplit(url).port}
    deaf = [f"{name} {one.hostname}:{one.port}" for name, one in wanted.items() if not await _listens(one.hostname, one.port)]
    if deaf:
        return failed(f"nobody listens: {', '.join(deaf)}", "vx11 logs")
    return passed(", ".join(f"{name} {one.port}" for name, one in wanted.items()))


async def _listens(host: str | None, port: int | None) -> bool:
    import asyncio

    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _connection(patient: Patient) -> Finding:
    from gateway.cli.check import failed, passed, skipped

    if patient.remote:
        return passed(patient.remote.where)
    if patient.trouble.startswith(NOT_RUNNING):
        return skipped(patient.trouble, "vx11 up")
    return failed(patient.trouble)


async def _round_trip(patient: Patient) -> Finding:
    """One look at madre, a few times."""
    from gateway.cli.check import failed, passed, skipped
    from gateway.cli.remote import request
    from schemas.madre import ListActors

    if patient.remote is None:
        return skipped("there is no connection")
    took: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await request(patient.remote, ListActors())
        took.append((time.perf_counter() - began) * 1000)
    median = statistics.median(took)
    said = f"madre answers in {median:.1f} ms (median of {ROUNDS}; longest {max(took):.1f} ms)"
    return passed(said) if median <= SLOW_MS else failed(said, "vx11 ps")


async def _redis(patient: Patient) -> Finding:
    from bus.cache import open_cache
    from gateway.cli.check import passed, skipped

    url = patient.run.redis_url if patient.run else patient.desk.settings.get("VX11_REDIS_URL")
    if not url:
        return skipped(NOT_RUNNING, "vx11 up")
    async with open_cache(url) as cache:
        return passed(f"PONG in {await cache.ping():.1f} ms")


async def _event_log(patient: Patient) -> Finding:
    """What its keeper knows of it."""
    from gateway.cli.check import failed, passed, skipped
    from gateway.cli.remote import request
    from schemas.errors import Failure
    from schemas.keeper import GetLog

    if patient.remote is None:
        return skipped("there is no connection")
    if patient.run is None:
        return skipped("its keeper answers on the machine that VX11 runs on")
    try:
        state = await request(patient.remote, GetLog())
    except Failure as failure:
        return failed(f"its keeper does not answer: {failure.message}", "vx11 logs keeper")
    if state.state == "broken":
        return failed(
            f"broken at {min(one.sequence for one in state.findings if not one.accepted_at)}: {state.reason}", "vx11 log status"
        )
    return passed(f"{state.state}: {state.last_sequence - state.first_sequence + 1} events, {state.lag} not in the chain yet")
