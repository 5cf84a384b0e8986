"""Single deaths in a quiet system, one request at a time: what is served meanwhile, what is asked again, what is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager, suppress

import psutil
import pytest

from bus.client import Bus
from gateway.torture.cycles import known
from gateway.torture.history import read_executions
from gateway.torture.load import ECHO, ECHO_AGAIN
from gateway.torture.storm import asleep
from gateway.torture.system import System, scratch
from schemas.errors import Failure
from schemas.madre import GetActor, Restart

PATIENCE_S = 10.0
ASK_S = 8.0


@pytest.fixture
def sink(tmp_path):
    return tmp_path / "home" / "executions"


@pytest.fixture
def system(tmp_path, sink):
    with scratch(tmp_path / "home", variables={"VX11_TORTURE_SINK": str(sink)}) as system:
        yield system


@pytest.fixture
async def bus(system):
    async with client(system) as bus:
        await known(bus)
        yield bus


@asynccontextmanager
async def client(system: System) -> AsyncIterator[Bus]:
    async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="test", fast=True) as bus:
        yield bus


async def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


@contextmanager
def frozen(pid: int):
    """Stopped inside the block, at whose end it may be gone."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def executed(sink, number: int) -> list[str]:
    """The instances that have executed request `number`."""
    return [execution.instance for execution in read_executions(sink) if execution.n == number]


async def death_of(bus: Bus, system: System, victim: str, subject: str = "vx11.events.madre.started") -> asyncio.Event:
    """kill -9; the event is set by a message on `subject`."""
    heard = asyncio.Event()
    await bus.listen(subject, lambda _: heard.set())
    await bus.wire.barrier()
    os.kill(system.pid(victim), signal.SIGKILL)
    return heard


async def test_while_madre_is_dead_the_awake_go_on_and_the_next_one_takes_them_over(bus, system):
    """Her death stops only new wakes and sleeps (8): no answer waits for her successor, no instance is replaced."""
    await bus.ask(ECHO, b"{}", timeout=ASK_S)
    before = (await bus.request(GetActor(name="echo"))).status
    with frozen(system.process.pid):  # nobody starts her again
        os.kill(system.pid("madre"), signal.SIGKILL)
        for _ in range(20):
            await bus.ask(ECHO, b"{}", timeout=1.0)
    await known(bus)
    after = (await bus.request(GetActor(name="echo"))).status
    assert (after.pid, after.wakes) == (before.pid, before.wakes)
    assert (await bus.request(Restart(name="echo", reason="test"))).to == "active"


async def test_a_sleeper_is_woken_by_the_next_madre(bus, system, sink):
    """Asked while nobody stood in: surely not executed, so that it is simply sent again."""
    await asleep(bus)
    with frozen(system.process.pid):
        os.kill(system.pid("madre"), signal.SIGKILL)
        await until(lambda: not psutil.pid_exists(system.pid("madre")) or _dead(system.pid("madre")))
        asking = asyncio.create_task(bus.ask(ECHO, b'{"n": 5}', timeout=ASK_S))
        await until(lambda: [a.nobody for a, _ in bus._asked.values() if a.subject == ECHO] > [1])
    await asking
    assert len(await executed(sink, 5)) == 1


def _dead(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_what_madre_held_when_she_died_is_served_by_the_next_one(bus, system, sink):
    """A class that may not run twice, too: nobody can have begun it, because nobody was awake since it was sent."""
    await asleep(bus)
    with frozen(system.pid("host")):  # nobody can wake it
        asking = [asyncio.create_task(bus.ask(s, b'{"n": %d}' % n, timeout=ASK_S)) for n, s in ((1, ECHO), (2, ECHO_AGAIN))]
        await until_held(bus, 2)
        started = await death_of(bus, system, "madre")
        await asyncio.wait_for(started.wait(), PATIENCE_S)
    answers = await asyncio.gather(*asking)
    assert [b'"n":1' in answers[0].body, b'"n":2' in answers[1].body] == [True, True]
    assert len(await executed(sink, 1)) == len(await executed(sink, 2)) == 1


async def until_held(bus: Bus, number: int) -> None:
    end = time.monotonic() + PATIENCE_S
    while (await bus.request(GetActor(name="echo"))).status.held < number:
        assert time.monotonic() < end


async def test_what_an_instance_had_begun_when_it_died_ends_crashed_and_is_not_begun_again(bus, system, sink):
    slow = asyncio.create_task(bus.ask(ECHO, b'{"n": 3, "seconds": 30}', timeout=ASK_S))
    twice = asyncio.create_task(bus.ask(ECHO_AGAIN, b'{"n": 4, "seconds": 0.3}', timeout=ASK_S))
    await until(lambda: {3, 4} <= {e.n for e in read_executions(sink)})
    os.kill((await bus.request(GetActor(name="echo"))).status.pid, signal.SIGKILL)
    with pytest.raises(Failure) as failed:
        await slow
    assert failed.value.code == "crashed"
    assert b'"n":4' in (await twice).body
    assert len(await executed(sink, 3)) == 1
    assert len(set(await executed(sink, 4))) == 2


async def test_an_actor_that_madre_has_not_yet_been_told_of_is_not_called_unknown(bus, system):
    """Its record says that it exists; that no host has registered it yet says nothing against it."""
    with frozen(system.pid("host")):
        started = await death_of(bus, system, "madre")
        await asyncio.wait_for(started.wait(), PATIENCE_S)
        with pytest.raises(Failure) as failed:
            await bus.request(GetActor(name="echo"), timeout=2.0)
        assert failed.value.code == "unavailable"
    await known(bus)


async def test_when_the_host_dies_its_instances_do_and_the_next_request_wakes_another(bus, system):
    """No instance outlives its host."""
    await bus.ask(ECHO, b"{}", timeout=ASK_S)
    pid = (await bus.request(GetActor(name="echo"))).status.pid
    os.kill(system.pid("host"), signal.SIGKILL)
    await until(lambda: not psutil.pid_exists(pid) or _dead(pid))
    await bus.ask(ECHO_AGAIN, b"{}", timeout=ASK_S, idempotent=True)
    assert (await bus.request(GetActor(name="echo"))).status.pid not in (0, pid)


async def test_a_short_stop_of_an_actor_changes_nothing(bus):
    """Less than three heartbeats: it goes on, and answers what waited for it."""
    await bus.ask(ECHO, b"{}", timeout=ASK_S)
    before = (await bus.request(GetActor(name="echo"))).status
    with frozen(before.pid):
        asking = asyncio.create_task(bus.ask(ECHO, b"{}", timeout=ASK_S))
        await asyncio.sleep(3.0)  # the time that it stands still is what is tested
        assert not asking.done()
    await asking
    after = (await bus.request(GetActor(name="echo"))).status
    assert (after.pid, after.wakes) == (before.pid, before.wakes)


async def test_a_long_stop_of_an_actor_is_its_end(bus, sink):
    """Three heartbeats missed: killed by its host and replaced; what was given up meanwhile is never begun."""
    await bus.ask(ECHO, b"{}", timeout=ASK_S)
    before = (await bus.request(GetActor(name="echo"))).status
    with frozen(before.pid):
        hasty = [bus.ask(ECHO, b'{"n": %d}' % n, timeout=0.5 + n / 10) for n in range(20)]
        patient = asyncio.create_task(bus.ask(ECHO_AGAIN, b'{"n": 99}', timeout=20.0, idempotent=True))
        outcomes = await asyncio.gather(*hasty, return_exceptions=True)
        assert {outcome.code for outcome in outcomes} == {"timeout"}
        await patient
        after = (await bus.request(GetActor(name="echo"))).status
        assert after.pid != before.pid
        assert not psutil.pid_exists(before.pid)
    assert [e.n for e in read_executions(sink) if e.n != 0 or e.deadline] == [0, 99]
