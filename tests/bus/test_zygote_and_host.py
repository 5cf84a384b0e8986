"""A host starts what it is told to, reports every end, notices every edit, and leaves nobody behind."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import socket
import sys
import time

import psutil
import pytest

from bus import call
from bus.host import Host, Source
from bus.instance import LOST_CLAIM
from bus.process import started_at
from bus.settings import Settings
from tests.bus.hosting import GREETER, gone, hosted, kill, madre_of, spare_of
from tests.bus.shop import until

NOTICED_S = 1.0
"""Within this time an edit is known to madre."""


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """One host for the tests that do not kill it."""
    with hosted(tmp_path_factory.mktemp("host")) as house:
        house.write("greeter")
        house.write("broken", source="import nowhere\n")
        house.write("fatal", source="import os; os._exit(3)\n")
        house.start()
        yield house


@pytest.fixture
async def madre(house):
    async with madre_of(house) as madre:
        yield madre
        for fact, told in list(madre.told):
            if fact == "active":
                await madre.drain(told["actor"], told["run"])
                await until(lambda told=told: any(e["run"] == told["run"] for e in madre.events("exited", told["actor"])))


# -- starting ------------------------------------------------------------------------------------------------------------


async def test_an_actor_is_started_when_it_is_called_for_and_answers(house, madre):
    active = await madre.wake("greeter")
    greeted = await madre.greeted("greeter")
    assert (greeted["text"], greeted["pid"]) == ("hello", active["pid"])
    assert [told["pid"] for told in madre.events("waking", "greeter")] == [active["pid"]]
    assert psutil.Process(active["pid"]).ppid() == house.zygote().pid


async def test_a_parked_process_is_given_the_name_and_another_one_is_parked(house, madre):
    """Forking and importing was done in advance."""
    spare = await spare_of(house, madre)
    active = await madre.wake("greeter")
    assert active["pid"] == spare
    assert await spare_of(house, madre, but=spare)


async def test_a_known_activation_is_told_again_and_not_started_again(house, madre):
    """madre repeats it until it is answered."""
    active = await madre.wake("greeter")
    for _ in range(3):
        await madre.activate("greeter", active["id"], revision=1)
    await until(lambda: len(madre.events("waking", "greeter")) == 4)
    assert {told["pid"] for told in madre.events("waking", "greeter")} == {active["pid"]}
    assert len(madre.events("active", "greeter")) == 1


async def test_all_that_a_wake_is_told_of_belongs_to_the_conversation_that_caused_it(house, madre):
    """Else nobody who follows a request by its id sees why it took longer."""
    told: list[tuple[str, str, str]] = []
    await madre.bus.listen(
        "vx11.events.power.*.greeter",
        lambda msg: told.append((msg.subject.split(".")[3], msg.headers[call.CORRELATION], msg.headers[call.TRACEPARENT][:35])),
    )
    await madre.bus.wire.barrier()
    await madre.knows("greeter")
    trace = call.new_traceparent()
    headers = {call.CORRELATION: "conversation-1", call.TRACEPARENT: trace, call.PATH: "switch"}
    await madre.activate("greeter", headers=headers)
    await until(lambda: madre.events("active", "greeter"))
    await until(lambda: {fact for fact, *_ in told} >= {"waking", "active"})
    assert {(ids, traced) for fact, ids, traced in told if fact != "activate"} == {("conversation-1", trace[:35])}


@pytest.mark.parametrize("name", ["nobody", "broken", "fatal"])
async def test_what_it_cannot_start_it_leaves_to_others(house, madre, name):
    await madre.knows("greeter", "broken", "fatal")
    await madre.activate(name)
    await madre.wake("greeter")
    assert {told["actor"] for _, told in madre.told} == {"greeter"}


async def test_an_old_activation_is_a_lost_claim_and_a_clean_end(house, madre):
    """Somebody else has claimed meanwhile: nobody has crashed."""
    await madre.knows("greeter")
    await madre.activate("greeter", revision=0)
    exited = await madre.exited("greeter")
    assert (exited["code"], exited["clean"]) == (LOST_CLAIM, True)


async def test_what_an_actor_prints_is_in_its_log(house, madre):
    await madre.wake("greeter")
    await madre.greeted("greeter")
    await until(lambda: "greeting" in (house.home / "logs" / "greeter.log").read_text())


# -- ends ----------------------------------------------------------------------------------------------------------------


async def test_an_instance_that_was_drained_has_ended_cleanly(house, madre):
    active = await madre.wake("greeter")
    await madre.drain("greeter", active["run"])
    exited = await madre.exited("greeter")
    assert (exited["run"], exited["pid"], exited["code"], exited["clean"]) == (active["run"], active["pid"], 0, True)
    assert [fact for fact, _ in madre.told][-2:] == ["slept", "exited"]


@pytest.mark.parametrize("how", ["killed", "crashed"])
async def test_a_death_is_reported_as_one(house, madre, how):
    active = await madre.wake("greeter")
    if how == "killed":
        kill(active["pid"])
    else:
        madre.wire.send("vx11.greeter.crash", b"{}")
    exited = await madre.exited("greeter")
    assert (exited["run"], exited["code"], exited["clean"]) == (active["run"], -9 if how == "killed" else 9, False)
    assert "greeter.log" in exited["reason"]


async def test_an_end_is_told_again_to_who_asks(house, madre):
    """The first report may have been lost with a server."""
    active = await madre.wake("greeter")
    kill(active["pid"])
    first = await madre.exited("greeter")
    madre.ask_host(active)
    again = await madre.exited("greeter", 2)
    assert (again["run"], again["code"]) == (first["run"], first["code"])


async def test_of_the_living_nothing_is_told_and_the_frozen_are_killed_on_order(house, madre):
    active = await madre.wake("greeter")
    psutil.Process(active["pid"]).suspend()
    madre.ask_host(active)
    madre.ask_host(active, kill=True)
    exited = await madre.exited("greeter")
    assert (exited["code"], exited["clean"]) == (-9, False)
    assert len(madre.events("exited", "greeter")) == 1


async def test_of_a_run_that_it_never_knew_only_the_death_is_told(house, madre):
    """The host was started anew; the process may have outlived its report."""
    unknown = {"actor": "greeter", "id": "old", "run": "old", "pid": house.process.pid, "born": 1.0}
    alive = unknown | {"run": "alive", "born": started_at(house.process.pid)}
    madre.ask_host(alive)
    madre.ask_host(unknown)
    exited = await madre.exited("greeter")
    assert (exited["run"], exited["code"], exited["clean"]) == ("old", None, False)


# -- cards ---------------------------------------------------------------------------------------------------------------


async def test_an_actor_that_cannot_be_loaded_has_a_card_that_says_why(house, madre):
    await madre.knows("broken", "fatal", "greeter")
    assert "No module named 'nowhere'" in madre.cards["broken"]["error"]
    assert "its process ended while it was imported" in madre.cards["fatal"]["error"]
    assert madre.cards["broken"]["verbs"] == []
    assert madre.cards["greeter"]["error"] == ""
    assert [verb["name"] for verb in madre.cards["greeter"]["verbs"]] == ["crash", "greet"]
    assert madre.cards["greeter"]["built_in"] is False


async def test_the_built_in_actors_are_there_too(house, madre):
    await madre.knows("switch", "operator_backend")
    assert madre.cards["switch"]["built_in"] is True


async def test_an_edit_is_a_new_card_within_a_second_and_the_next_wake_runs_it(house, madre):
    house.write("edited", "before")
    await madre.knows("edited")
    version = madre.cards["edited"]["card_version"]
    house.write("edited", "after!")
    begun = time.monotonic()
    await until(lambda: madre.cards["edited"]["card_version"] != version)
    assert time.monotonic() - begun < NOTICED_S
    await madre.wake("edited")
    assert (await madre.greeted("edited"))["text"] == "after!"


async def test_a_wake_at_the_moment_of_an_edit_runs_what_was_written(house, madre):
    """Within a look, 0.25 s, it was answered by the source of before."""
    house.write("hasty", "0")
    await madre.knows("hasty")
    for text in ("1", "2", "3"):
        house.write("hasty", text)
        active = await madre.wake("hasty")
        assert (await madre.greeted("hasty"))["text"] == text
        await madre.drain("hasty", active["run"])


async def test_a_file_from_the_future_is_looked_at_and_left_alone(house, madre):
    """Found by reading: it was imported anew four times a second until its date had come."""
    registered: list[str] = []
    await madre.bus.listen("vx11.madre.register", lambda msg: registered.append(json.loads(msg.data)["card"]["name"]))
    await madre.bus.wire.barrier()
    file = house.write("ahead")
    os.utime(file, ns=(time.time_ns() + 10**13,) * 2)
    await madre.knows("ahead")
    for text in ("a", "b", "c", "d", "e", "f"):
        house.write("other", text)
        count = registered.count("other")
        await until(lambda: registered.count("other") > count)  # noqa: B023 - awaited here
    assert registered.count("ahead") <= 2


@pytest.mark.parametrize(("name", "pause", "preloaded"), [("quick", 0.0, True), ("sluggish", 0.5, False)])
async def test_a_parked_process_imports_only_what_is_imported_quickly(house, madre, name, pause, preloaded):
    """It is of no use until it is ready: one slow actor would cost every second wake of all others."""
    trace = house.home / f"{name}.imported"
    line = f"import os, time; print(os.getpid(), file=open({str(trace)!r}, 'a')); time.sleep({pause})\n"
    house.write(name, source=GREETER.replace("import os\n", f"import os\n{line}"))
    spare = await spare_of(house, madre)
    if preloaded:
        await until(lambda: str(spare) in trace.read_text().split())
    assert preloaded or str(spare) not in trace.read_text().split()
    active = await madre.wake(name)
    assert str(active["pid"]) in trace.read_text().split()


def test_all_that_a_parked_process_imports_is_imported_quickly(tmp_path):
    """The quickest first; what does not fit any more is imported by its own instances."""
    here, there = socket.socketpair()
    with here, there:
        host = Host(None, here, Settings(tmp_path), name="h")
        costs = {"b": 0.25, "a": 0.05, "d": 0.29, "c": 0.26, "heavy": math.inf}
        host._sources = {name: Source({"name": name}, light_s=cost) for name, cost in costs.items()}
        assert host._light() == ["a", "b", "c"]


async def test_a_mistake_and_its_correction_are_noticed_within_a_second(house, madre):
    house.write("clumsy")
    await madre.knows("clumsy")
    good = madre.cards["clumsy"]["card_version"]
    for source, wrong in (("this is no Python", "SyntaxError"), (None, "")):
        begun = time.monotonic()
        house.write("clumsy", **({"source": source} if source else {}))
        await until(lambda: wrong in madre.cards["clumsy"]["error"] and bool(wrong) == bool(madre.cards["clumsy"]["error"]))  # noqa: B023 - awaited here
        assert time.monotonic() - begun < NOTICED_S
    assert madre.cards["clumsy"]["card_version"] == good


async def test_an_actor_that_was_taken_away_cannot_be_loaded_until_it_is_back(house, madre):
    """It went on being shown, and the parked process went on being it."""
    file = house.write("guest")
    await madre.knows("guest")
    file.rename(house.home / "guest.py")
    file.parent.rmdir()
    await until(lambda: "ModuleNotFoundError" in madre.cards["guest"]["error"])
    house.write("guest")
    await until(lambda: madre.cards["guest"]["error"] == "")


async def test_a_new_actor_is_noticed_within_a_second(house, madre):
    await madre.knows("greeter")
    begun = time.monotonic()
    house.write("newcomer")
    await madre.knows("newcomer")
    assert time.monotonic() - begun < NOTICED_S


# -- the end of the host -------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """A host that the test may kill."""
    with hosted(tmp_path / "own") as own:
        own.write("greeter")
        own.start()
        yield own


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has ended")
async def test_nobody_outlives_a_host_that_was_killed(own):
    """Not the zygote, not the parked process, not an instance: the next host would start a second one."""
    async with madre_of(own) as madre:
        active = await madre.wake("greeter")
        await spare_of(own, madre, but=active["pid"])
        family = psutil.Process(own.process.pid).children(recursive=True)
        assert len(family) == 3, "the zygote, the instance, the parked one"
        kill(own.process.pid)
        await until(lambda: gone(*family), 2.0)


async def test_without_its_zygote_a_host_ends_so_that_both_are_started_afresh(own):
    async with madre_of(own) as madre:
        active = await madre.wake("greeter")
        instance = psutil.Process(active["pid"])
        kill(own.zygote().pid)
        await until(lambda: own.process.poll() is not None, 3.0)
        await until(lambda: gone(instance), 2.0)
    assert own.process.returncode == 1


async def test_a_host_that_is_told_to_stop_lets_its_instances_finish(own):
    async with madre_of(own) as madre:
        active = await madre.wake("greeter")
        own.process.send_signal(signal.SIGTERM)
        await until(lambda: madre.sleeps == ["greeter"])
        assert own.process.poll() is None
        await madre.drain("greeter", active["run"])
        exited = await madre.exited("greeter")
        await until(lambda: own.process.poll() is not None, 3.0)
    assert exited["clean"]
    assert own.process.returncode == 0


async def test_a_host_that_stops_asks_again_when_its_order_was_lost(own):
    """With the server, or with madre: it waited to its very end for an instance that nobody had told to leave."""
    async with madre_of(own) as madre:
        active = await madre.wake("greeter")
        own.process.send_signal(signal.SIGTERM)
        await until(lambda: madre.sleeps == ["greeter"])
        own.server.kill()
        own.server.start()
        await until(lambda: len(madre.sleeps) > 1)

        def drained() -> bool:
            madre.wire.send(f"vx11.inst.greeter.{active['run']}._drain", b'{"epoch": 1}')  # until it has found the server, too
            return own.process.poll() is not None

        await until(drained)
    assert own.process.returncode == 0


async def test_a_host_that_stops_takes_no_new_orders(own):
    async with madre_of(own) as madre:
        active = await madre.wake("greeter")
        own.process.send_signal(signal.SIGTERM)
        await until(lambda: madre.sleeps)
        started = len(madre.events("waking", "greeter"))
        await madre.activate("greeter", revision=0)
        madre.ask_host(active)
        await madre.drain("greeter", active["run"])
        await until(lambda: own.process.poll() is not None, 3.0)
        assert len(madre.events("waking", "greeter")) == started


async def test_fresh_interpreters_do_the_same_where_forking_is_not_safe(tmp_path):
    with hosted(tmp_path / "plain", variables={"VX11_LAUNCHER": "plain"}) as plain:
        plain.write("greeter")
        plain.start()
        async with madre_of(plain) as madre:
            active = await madre.wake("greeter")
            assert (await madre.greeted("greeter"))["pid"] == active["pid"]
            assert "-m" in psutil.Process(active["pid"]).cmdline()
            kill(active["pid"])
            assert (await madre.exited("greeter"))["code"] == -9


async def test_a_host_outlives_its_server(own):
    """And so do its instances; what it has to say is said when there is one again."""
    async with madre_of(own) as madre:
        active = await madre.wake("greeter")
        own.server.kill()
        kill(active["pid"])
        await asyncio.sleep(0)
        own.server.start()
        await until(lambda: madre.bus.connected)
        madre.ask_host(active)
        await madre.exited("greeter")
        assert own.process.poll() is None
