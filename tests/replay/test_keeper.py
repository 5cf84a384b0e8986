"""Replays over the bus, by HTTP and at the command line, on a whole system whose keeper plays."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time

import aiohttp
import psutil
import pytest

from bus.client import Bus
from gateway.torture.system import System, door_open, scratch
from schemas.errors import Failure
from schemas.keeper import GetLog
from schemas.replay import (
    ENDED,
    ListReplays,
    PauseReplay,
    ReplayStatus,
    ResumeReplay,
    StartReplay,
    StepReplay,
    StopReplay,
)

SOLD = "vx11.events.shop.sold"
EVENTS = 400
WAIT_S = 20.0


@pytest.fixture(scope="module")
def system(tmp_path_factory) -> System:
    with scratch(tmp_path_factory.mktemp("kept"), services="madre,keeper,host,tentaculo_link") as system:
        asyncio.run(_fill(system))
        yield system


async def _fill(system: System) -> None:
    await door_open(system)
    async with _client(system) as bus:
        headers = {"correlation_id": "conversation-7"}
        for at in range(0, EVENTS, 100):
            await asyncio.gather(*(bus.publish_raw(SOLD, b'{"n": %d}' % n, headers=headers) for n in range(at, at + 100)))


def _client(system: System, user: str = "client"):
    return Bus.connect(system.url, user=user, seed=system.seed(user), name="test")


@pytest.fixture
async def bus(system):
    async with _client(system) as bus:
        yield bus


async def status_of(bus: Bus, replay: str) -> ReplayStatus:
    return (await bus.request(ListReplays(id=replay))).replays[0]


async def ended(bus: Bus, replay: str) -> ReplayStatus:
    async with asyncio.timeout(WAIT_S):
        while (status := await status_of(bus, replay)).state not in ENDED:
            await asyncio.sleep(0.02)
    return status


async def test_the_keeper_plays_and_streams_its_progress(bus):
    heard = []
    await bus.listen("vx11.sandbox.streamed.>", lambda msg: heard.append(msg.subject))
    await bus.wire.barrier()
    told = [status async for status in bus.stream(StartReplay(id="streamed", pace="max", filters=[SOLD]))]
    await bus.wire.barrier()
    assert (told[-1].state, told[-1].events, told[-1].missing) == ("done", EVENTS, 0)
    assert len(told) > 1
    assert set(heard) == {f"vx11.sandbox.streamed.{SOLD}"}
    assert len(heard) == EVENTS


async def test_the_keeper_plays_live_when_it_is_told_to(bus):
    """Its rights are enough for what anybody may say, and the log has them again."""
    again = []
    await bus.listen("vx11.events.shop.>", lambda msg: again.append((msg.headers or {})["vx11-replay-of"]))
    await bus.wire.barrier()
    first = (await bus.request(StartReplay(pace="max", filters=[SOLD], dry_run=True))).last
    begun = await bus.publish_raw("vx11.events.shop.closed.for_good", b"{}", headers={"vx11-replay-of": "nobody"})
    summary = await bus.request(StartReplay(id="loud", pace="max", live=True, first=begun, last=begun))
    assert (summary.state, summary.events, summary.error) == ("done", 1, "")
    await bus.wire.barrier()
    assert again == ["nobody", f"loud:{begun}"]
    assert begun > first


async def test_a_conversation_is_found_by_the_index_of_the_keeper(bus):
    async with asyncio.timeout(WAIT_S):
        while (state := await bus.request(GetLog())).indexed_events < state.last_sequence:
            await asyncio.sleep(0.02)
    summary = await bus.request(StartReplay(pace="max", correlation_id="conversation-7"))
    assert summary.events == EVENTS
    assert any("index" in told for told in summary.told)


async def test_it_is_paused_stepped_resumed_and_stopped_over_the_bus(bus):
    begun = await bus.request(StartReplay(id="steered", pace="step", detach=True, filters=[SOLD]))
    assert begun.id == "steered"
    await bus.request(StepReplay(id="steered", count=7))
    async with asyncio.timeout(WAIT_S):
        while (await status_of(bus, "steered")).events != 7:
            await asyncio.sleep(0.02)
    await bus.request(ResumeReplay(id="steered", pace=0.1))
    assert (await bus.request(PauseReplay(id="steered"))).state == "paused"
    summary = await bus.request(StopReplay(id="steered"))
    assert summary.state == "stopped"
    assert 7 <= summary.events < EVENTS
    assert await bus.request(StopReplay(id="steered")) == summary
    with pytest.raises(Failure) as failure:
        await bus.request(PauseReplay(id="steered"))
    assert failure.value.code == "conflict"


async def test_a_fifth_at_a_time_is_refused_and_an_id_is_used_once_at_a_time(bus):
    names = [f"many-{n}" for n in range(4)]
    for name in names:
        await bus.request(StartReplay(id=name, pace="step", detach=True))
    try:
        for wanted, code in ((StartReplay(pace="max", detach=True), "busy"), (StartReplay(id="many-1", detach=True), "conflict")):
            with pytest.raises(Failure) as failure:
                await bus.request(wanted)
            assert failure.value.code == code
    finally:
        for name in names:
            assert (await bus.request(StopReplay(id=name))).state == "stopped"


async def test_of_those_that_begin_at_the_same_time_four_play_and_each_id_once(bus):
    """A process takes its time to come up; whoever asks meanwhile must not slip in beside it."""

    async def begun(name: str) -> str:
        try:
            return (await bus.request(StartReplay(id=name, pace="step", detach=True))).id
        except Failure as failure:
            return failure.code

    names = ["twin", "twin", *(f"one-of-{n}" for n in range(5))]
    got = await asyncio.gather(*(begun(name) for name in names))
    try:
        assert sorted(got[:2]) == ["conflict", "twin"]
        assert got[2:].count("busy") == 2
        assert len([one for one in got if one in names]) == 4
    finally:
        for name in {one for one in got if one in names}:
            assert (await bus.request(StopReplay(id=name))).state == "stopped"


async def test_a_killed_process_of_a_replay_is_told_of(system, bus):
    """kill -9 in the middle: the keeper lives, and says where it ended."""
    await bus.request(StartReplay(id="struck", pace="step", detach=True))
    await bus.request(StepReplay(id="struck", count=3))
    keeper = psutil.Process(system.pid("keeper"))
    [process] = [child for child in keeper.children() if "replayer" in " ".join(child.cmdline())]
    assert system.owns(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    status = await ended(bus, "struck")
    assert (status.state, "ended with -9" in status.error) == ("failed", True)
    assert keeper.is_running()


async def test_the_keeper_answers_while_it_plays(bus):
    """Its loop only passes words on: a look takes no longer than it takes a machine with a busy neighbour."""
    playing = asyncio.create_task(bus.request(StartReplay(pace="max", filters=[SOLD])))
    took = []
    while not playing.done():
        began = time.monotonic()
        await bus.request(GetLog())
        took.append(time.monotonic() - began)
    assert (await playing).state == "done"
    assert sorted(took)[len(took) // 2] < 0.2


async def test_it_is_played_and_watched_by_http(system):
    headers = {"X-VX11-Token": system.token}
    async with aiohttp.ClientSession(system.http_url, headers=headers) as http:
        async with http.post("/replay", json={"id": "by-http", "pace": "max", "filters": [SOLD]}) as answer:
            assert answer.status == 200, await answer.text()
        async with asyncio.timeout(WAIT_S):
            while True:
                async with http.get("/replay/by-http") as answer:
                    status = await answer.json()
                if status["state"] in ENDED:
                    break
                await asyncio.sleep(0.02)
        assert (status["state"], status["events"]) == ("done", EVENTS)
        async with http.post("/replay/nothing/pause", json={}) as answer:
            assert answer.status == 404


def vx11(system: System, *words: str, said: str = "") -> subprocess.CompletedProcess[str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("VX11_") or name == "VX11_TEST_RUN"}
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *words],
        env={**kept, "VX11_HOME": str(system.home), "NO_COLOR": "1"},
        input=said,
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )


def test_the_command_plays_and_sums_up(system):
    done = vx11(system, "replay", "--max", "--filter", "shop.sold", "--json")
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["events"], summary["skipped"]) == (0, EVENTS, {})
    told = vx11(system, "replay", "--max", "--filter", "shop.sold", "--id", "mine")
    assert f"replayed {EVENTS} events" in told.stdout
    assert "nats sub 'vx11.sandbox.mine.>'" in told.stderr


def test_steps_are_taken_from_lines_and_each_event_is_shown(system):
    done = vx11(system, "replay", "--step", "--filter", "shop.sold", said="2\n\n")
    assert done.returncode == 0, done.stderr
    assert sum('{"n": ' in line for line in done.stdout.splitlines()) == 3
    assert "stopped after 3 events" in done.stdout


def test_the_state_at_a_moment_is_shown(system):
    asked = vx11(system, "call", "echo.echo", "n=1")
    assert asked.returncode == 0, asked.stderr
    now = json.loads(vx11(system, "replay", "--state", "--json").stdout)
    assert now["actors"]["echo"]["state"] == "active"
    awake_at = now["actors"]["echo"]["sequence"]
    before = json.loads(vx11(system, "replay", "--state", "--seq", f"..{awake_at - 1}", "--json").stdout)
    assert before["through"] == awake_at - 1
    assert before["actors"].get("echo", {"state": "dormant"})["state"] in ("dormant", "waking")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--seq", "9..3"], "above"),
        (["--seq", "x"], "120..180"),
        (["--since", "later"], "no moment"),
        (["--max", "--step"], "one of"),
        (["--live", "--filter", "power.>"], "hosts"),
    ],
)
def test_what_makes_no_sense_is_answered_with_what_to_write(system, words, says):
    done = vx11(system, "replay", *words)
    assert done.returncode not in (0, 1)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_keys_are_obeyed_on_a_terminal(system):
    """One key each: pause, then stop; the line of progress says what it does."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", "--home", str(system.home), "replay", "--speed", "0.1", "--seq", "2.."],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        close_fds=True,
    )
    os.close(theirs)
    try:
        screen = Screen(ours)
        screen.until("playing  ")
        os.write(ours, b" ")
        screen.until("paused  ")
        os.write(ours, b"\n")
        screen.until("paused  ")
        os.write(ours, b"q")
        screen.until("stopped after")
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


class Screen:
    """What a terminal shows, as far as it has been looked at."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._seen = b""

    def until(self, text: str) -> None:
        """Wait for it, behind what was waited for last."""
        end = time.monotonic() + WAIT_S
        while text.encode() not in self._seen:
            assert time.monotonic() < end, f"{text!r} is not in {self._seen!r}"
            if select.select([self._fd], [], [], 0.1)[0]:
                self._seen += os.read(self._fd, 65_536)
        self._seen = self._seen.partition(text.encode())[2]
