"""`vx11 down`, Ctrl-C and a sudden death: what was begun is answered, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import aiohttp
import psutil
import pytest

from bus.daemon import free_port
from gateway.torture.system import System
from tests.e2e.command import Vx11
from tests.e2e.house import ACTORS, NO_MODELS, House, until

STOP_S = 20.0
WORK_S = 1.0
"""Of a handler that is not finished when the end is called for."""


@contextmanager
def started(home: Path) -> Iterator[tuple[Vx11, House]]:
    """`vx11 up -d`, and whatever is left of it is ended."""
    binds = {name: f"127.0.0.1:{free_port()}" for name in ("VX11_HTTP_BIND", "VX11_CONTROL_BIND")}
    more = {"VX11_NATS_PORT": "0", "VX11_REDIS_PORT": "0", "VX11_ACTORS_PATH": str(ACTORS), **binds, **NO_MODELS}
    vx11 = Vx11(home, **more)
    told = vx11("up", "-d")
    run = json.loads((home / "run.json").read_text())
    token = next(line.partition("=")[2].strip() for line in told.splitlines() if "VX11_TOKEN=" in line)
    process = SimpleNamespace(pid=run["supervisor"]["pid"])
    made = House(System(home, process), run["http_url"], run["control_url"], token)
    everybody = made.processes()
    try:
        asyncio.run(until(lambda: known(made), "notebook is known"))
        everybody = made.processes()
        yield vx11, made
    finally:
        for one in everybody:
            if one.is_running():
                one.kill()


async def known(home: House) -> bool:
    return "notebook" in await home.states()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Vx11, House]]:
    with started(tmp_path / "data") as made:
        yield made


def listens(url: str) -> bool:
    parts = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((str(parts.hostname), int(parts.port or 0))) == 0


async def everybody_is_gone(everybody: list[psutil.Process], seconds: float = STOP_S) -> None:
    def gone() -> bool:
        return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in everybody)

    await until(gone, f"all {len(everybody)} processes are gone", seconds)


async def test_down_answers_what_is_under_way_and_leaves_nothing_behind(running) -> None:
    """By HTTP, on the bus, and an open stream: each is told the end of it."""
    vx11, home = running
    run = home.system.document()
    await home.order("wake", name="notebook")
    async with home.stock() as client, home.follow("GET", "/operator/api/events") as stream:
        by_http = asyncio.create_task(home.post("/call/notebook/write", {"text": "by http", "seconds": WORK_S}))
        body = json.dumps({"text": "by bus", "seconds": WORK_S}).encode()
        by_bus = asyncio.create_task(client.request("vx11.notebook.write", body, timeout=10.0))
        await home.begun("by http", "by bus")
        everybody = home.processes()
        down = asyncio.create_task(asyncio.to_thread(vx11, "down"))
        assert (await by_http).status == 200
        assert json.loads((await by_bus).data)["pid"] > 0
        ends = [event async for event in stream if event.name == "end"]
    assert [event.data["reason"] for event in ends] == ["stopping"]
    assert "stopped" in await down
    await everybody_is_gone(everybody)
    assert not (home.home / "run.json").exists()
    assert not any(listens(run[name]) for name in ("http_url", "control_url", "nats_url", "redis_url"))
    kept = [json.loads(line)["text"] for line in (home.home / "notebook.jsonl").read_text().splitlines()]
    assert sorted(kept) == ["by bus", "by http"]


def test_what_is_down_is_said_to_be_down(running) -> None:
    vx11, _ = running
    vx11("down")
    assert "nothing to stop" in vx11.run("down").err
    ran = vx11.run("status")
    assert ran.code == 69
    assert "vx11 up" in ran.err


def test_a_second_one_on_the_same_home_is_refused(home: House) -> None:
    """Two of them on the same data would be the end of it."""
    vx11 = Vx11(home)
    ran = vx11.run("up", "-d")
    assert ran.code == 73
    assert str(home.supervisor.pid) in ran.err
    assert "madre" in vx11("status")


async def test_ctrl_c_stops_in_order(running) -> None:
    """What a terminal sends goes to one process here: it is the one that decides."""
    _, home = running
    everybody = home.processes()
    writing = asyncio.create_task(home.post("/call/notebook/write", {"text": "to the end", "seconds": WORK_S}))
    await home.begun("to the end")
    os.kill(home.system.process.pid, signal.SIGINT)
    assert (await writing).status == 200
    await everybody_is_gone(everybody)
    assert not (home.home / "run.json").exists()


async def test_nobody_outlives_the_supervisor(running) -> None:
    """kill -9 leaves no orphan, and does not stand in the way of the next start."""
    vx11, home = running
    await home.order("wake", name="notebook")
    everybody = home.processes()
    os.kill(home.system.process.pid, signal.SIGKILL)
    await everybody_is_gone(everybody)
    assert vx11.run("status").code == 69
    try:
        await asyncio.to_thread(vx11, "up", "-d")
        names = [actor["name"] for actor in (await asyncio.to_thread(vx11, "status", "--json")).json["actors"]]
        assert "notebook" in names
    finally:
        vx11.run("down")


async def test_the_door_is_shut_before_the_house(running) -> None:
    """While the last ones finish nobody new comes in."""
    _, home = running
    writing = asyncio.create_task(home.post("/call/notebook/write", {"text": "the last one", "seconds": WORK_S}))
    await home.begun("the last one")
    everybody = home.processes()
    os.kill(home.system.process.pid, signal.SIGTERM)

    async def shut() -> bool:
        try:
            await home.get("/health")
        except aiohttp.ClientConnectionError:
            return True
        return False

    await until(shut, "the door is shut")
    assert not writing.done()
    assert (await writing).status == 200
    await everybody_is_gone(everybody)
