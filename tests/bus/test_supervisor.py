"""The parent of everything: starts, starts again, refuses a second of itself, stops in order, and takes all with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from itertools import pairwise
from types import SimpleNamespace
from urllib.parse import urlsplit

import psutil
import pytest

from bus import supervisor
from bus.client import Bus
from bus.loading import TREE
from bus.logs import LOG_BYTES_MOST
from bus.process import is_same, started_at
from bus.settings import Settings
from bus.supervisor import Service, Supervisor, read_run_file
from gateway.torture.system import System, scratch
from schemas.errors import CODES, Failure
from schemas.madre import ListActors
from tests.bus.hosting import gone, kill
from tests.bus.shop import until

PARTS = ("madre", "host", "nats-server", "redis")


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """One system for the tests that leave it running."""
    with scratch(tmp_path_factory.mktemp("supervised") / "home") as system:
        yield system


def connected(system: System):
    return Bus.connect(system.url, user="client", seed=system.seed("client"), name="test", fast=True)


async def answers(bus: Bus, seconds: float = 10.0) -> None:
    """Wait until madre answers and has heard from the host."""
    end = time.monotonic() + seconds
    while True:
        try:
            actors = (await bus.request(ListActors(), timeout=1.0)).actors
            if any(actor.name == "echo" for actor in actors):
                return
        except Failure:
            assert time.monotonic() < end, "madre does not answer"
        await asyncio.sleep(0.02)


def parts(system: System) -> dict[str, psutil.Process]:
    return {name: psutil.Process(system.pid(name)) for name in PARTS}


# -- what it starts ------------------------------------------------------------------------------------------------------


def test_the_run_file_names_everything_that_runs(system):
    document = json.loads((system.home / "run.json").read_text())
    assert set(document["pids"]) == set(PARTS)
    for entry in [document["supervisor"], *document["pids"].values()]:
        assert is_same(entry["pid"], entry["born"])
    assert document["supervisor"]["pid"] == system.process.pid
    assert (document["version"], document["http_url"]) == (supervisor.VERSION, "")
    assert document["nats_url"].startswith("nats://127.0.0.1:")
    assert urlsplit(document["redis_url"]).password


async def test_a_log_that_has_grown_long_is_begun_anew_while_its_process_goes_on_writing(system):
    """They grew for as long as there was room on the disk."""
    log = system.home / "logs" / "redis.log"
    with log.open("ab") as grown:
        grown.truncate(LOG_BYTES_MOST + 1)
    await until(lambda: log.stat().st_size == 0, 2 * supervisor.LOGS_S + 10)
    assert log.with_name("redis.log.1").stat().st_size == LOG_BYTES_MOST + 1


def test_the_run_file_is_for_its_owner_only(system):
    """The Redis URL has its password in it."""
    assert stat.S_IMODE((system.home / "run.json").stat().st_mode) == 0o600


def test_a_second_one_on_the_same_home_is_refused_with_the_way_out(system):
    environ = {**os.environ, "VX11_HOME": str(system.home), "VX11_NATS_PORT": "0", "VX11_REDIS_PORT": "0"}
    before = parts(system)
    done = subprocess.run([sys.executable, "-m", "bus"], cwd=TREE, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == CODES["conflict"].exit
    assert f"already up in {system.home} (pid {system.process.pid}); `vx11 down` stops it" in done.stderr
    assert {name: p.pid for name, p in parts(system).items()} == {name: p.pid for name, p in before.items()}


@pytest.mark.parametrize("part", PARTS)
async def test_what_ends_is_started_again_and_all_is_well(system, part):
    """On the same port, with the same data; the run file follows."""
    url, redis = system.url, system.document()["redis_url"]
    async with connected(system) as bus:
        await answers(bus)
        before = system.pid(part)
        kill(before)
        await until(lambda: system.pid(part) != before and psutil.pid_exists(system.pid(part)), 5.0)
        await answers(bus)
    assert (system.url, system.document()["redis_url"]) == (url, redis)


def test_each_service_has_its_log(system):
    for name in ("madre", "host"):
        assert (system.home / "logs" / f"{name}.log").exists()


# -- how it ends ---------------------------------------------------------------------------------------------------------


async def test_told_to_stop_it_lets_work_finish_and_takes_everything_with_it(tmp_path):
    """Ctrl-C: the door first, then the actors, madre who drains them, the servers last."""
    with scratch(tmp_path / "home") as system:
        async with connected(system) as bus:
            await answers(bus)
            asking = asyncio.create_task(bus.ask("vx11.echo.echo", b'{"n": 7, "seconds": 1.0}', timeout=10))
            await until(lambda: len(psutil.Process(system.pid("host")).children(recursive=True)) >= 2)
            await bus.ask("vx11.echo.echo", b"{}", timeout=10)
            family = psutil.Process(system.process.pid).children(recursive=True)
            system.process.send_signal(signal.SIGINT)
            assert json.loads((await asking).body)["n"] == 7
        assert await asyncio.to_thread(system.process.wait, 20) == 0
        assert gone(*family)
        assert not (system.home / "run.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has ended")
async def test_killed_it_takes_everything_with_it_and_the_next_start_goes_well(tmp_path):
    with scratch(tmp_path / "home") as system:
        async with connected(system) as bus:
            await answers(bus)
        family = psutil.Process(system.process.pid).children(recursive=True)
        kill(system.process.pid)
        await asyncio.to_thread(system.process.wait)
        await until(lambda: gone(*family), 5.0)
        assert read_run_file(system.home / "run.json") is None
    with scratch(tmp_path / "home") as system:
        async with connected(system) as bus:
            await answers(bus)


# -- decisions -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["service", "server"])
def clock(request, monkeypatch):
    """A supervisor of one that always ends, and the moments of its starts; `live` seconds after each start."""
    now, starts = [1_000.0], [1_000.0]
    made = Supervisor(Settings.read({}), ("madre",))

    def start(service: Service | None = None) -> None:
        if service:
            service.pid = 1
        starts.append(now[0])

    def ended(_: int = 1) -> int | None:
        return 1 if not starts or now[0] - starts[-1] >= made.live else None

    if request.param == "service":
        made.services = [Service("madre", "nowhere:run", pid=1)]
    else:
        made.daemons = {"server": SimpleNamespace(process=SimpleNamespace(poll=ended), spawn=start)}
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(supervisor, "_reaped", ended)
    monkeypatch.setattr(made, "_fork", start)
    monkeypatch.setattr(made, "write_run_file", lambda: None)

    def run(live: float, count: int) -> list[float]:
        """The pauses between an end and the next start."""
        made.live = live
        starts.clear()
        while len(starts) < count + 1:
            made._look()
            now[0] += 0.01
        return [round(b - a - live, 2) for a, b in pairwise(starts)]

    return run


def test_what_dies_young_is_started_ever_more_slowly(clock):
    """The first few at once: a crash of madre must not cost a second. Then a broken one must not take the machine.

    A server whose settings were broken was started 870 times in 5 s.
    """
    pauses = clock(0.0, 14)
    assert max(pauses[:4]) <= supervisor.AGAIN_FIRST_S + 0.02
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(supervisor.AGAIN_MOST_S, abs=0.05)


def test_what_lived_long_enough_is_started_again_at_once(clock):
    clock(0.0, 12)
    assert max(clock(supervisor.STEADY_S + 1, 4)[1:]) <= supervisor.AGAIN_FIRST_S + 0.02


def test_the_next_look_is_when_the_next_start_is_due():
    made = Supervisor(Settings.read({}), ())
    assert made._pause(1.0) == 1.0
    made.paces["redis"].due = time.monotonic() + 0.5
    assert 0.0 < made._pause(1.0) <= 0.5
    made.paces["redis"].start(time.monotonic())
    assert made._pause(1.0) == 1.0


@pytest.mark.parametrize(
    "text", [None, "", "no json", "{}", "[]", '{"supervisor": {"pid": 1, "born": 5.0}}', '{"supervisor": {}}']
)
def test_a_run_file_without_its_process_is_none(tmp_path, text):
    """Also when its pid belongs to somebody else by now."""
    path = tmp_path / "run.json"
    if text is not None:
        path.write_text(text)
    assert read_run_file(path) is None


def test_a_run_file_of_a_living_process_is_read(tmp_path):
    path = tmp_path / "run.json"
    born = started_at(os.getpid())
    path.write_text(json.dumps({"supervisor": {"pid": os.getpid(), "born": born}}))
    assert read_run_file(path)["supervisor"]["pid"] == os.getpid()
