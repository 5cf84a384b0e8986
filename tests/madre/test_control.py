"""madre's commands and her own decisions, on a real server: who is put to sleep, who is kept awake, what a command says."""

from __future__ import annotations

import asyncio
import time

import pytest

from actors.madre import control as control_module
from bus import call
from schemas.errors import Failure
from tests.bus.bakery import code_of, deadline
from tests.bus.shop import until
from tests.madre.playground import Playground, close, codes, playground


@pytest.fixture
async def ground(nats_server, tmp_path):
    async with playground(nats_server, tmp_path) as ground:
        yield ground


@pytest.fixture
async def restless(nats_server, tmp_path):
    """Its actor is idle after 0.2 s."""
    async with playground(nats_server, tmp_path, options={"idle_after": 0.2}) as ground:
        yield ground


async def awake(ground: Playground) -> None:
    await ground.ask()
    await ground.until("active")


# -- idle ---------------------------------------------------------------------------------------------------------------


async def test_who_has_nothing_to_do_is_put_to_sleep(restless: Playground):
    await awake(restless)
    await restless.until("dormant")
    assert restless.host.started[0].code == 0


async def test_who_has_something_in_hand_is_not(restless: Playground):
    restless.oven.act = restless.oven.wait
    got = restless.send("knead")
    await restless.until("active")
    begun = time.monotonic()
    await until(lambda: time.monotonic() - begun > 0.6)
    assert restless.state == "active"
    restless.oven.gate.set()
    await until(lambda: got)
    await restless.until("dormant")


async def test_a_lease_keeps_it_awake_and_no_longer(restless: Playground):
    await restless.madre.control.renew_lease("baker", 0.8, None)
    begun = time.monotonic()
    await awake(restless)
    await restless.until("dormant")
    assert time.monotonic() - begun > 0.8


async def test_a_look_does_not_keep_it_awake(restless: Playground):
    await awake(restless)
    while restless.state == "active":
        await restless.ask("look", headers={call.DEADLINE: deadline(1.0)})
    await restless.until("dormant")


async def test_who_was_on_its_way_when_its_gate_closed_does_not_stay(restless: Playground):
    restless.madre.policy.set_gate("baker", "on_demand")
    restless.host.deaf = True
    got = restless.send("knead")
    await restless.until("waking")
    restless.madre.policy.set_gate("baker", "closed")
    restless.host.deaf = False
    await until(lambda: got)
    await restless.until("dormant")
    assert codes(got) == ["ok"]


# -- commands -----------------------------------------------------------------------------------------------------------


async def test_a_wake_says_what_it_moved(ground: Playground):
    moved = await ground.madre.control.wake("baker", "test")
    assert (moved.service, moved.from_, moved.to) == ("baker", "dormant", "active")


async def test_a_wake_of_who_is_awake_moves_nothing(ground: Playground):
    await awake(ground)
    moved = await ground.madre.control.wake("baker", "test")
    assert (moved.from_, moved.to, ground.baker.power.wakes) == ("active", "active", 1)


async def test_a_wake_while_it_is_put_to_sleep_ends_awake(ground: Playground):
    """Counterexample of the model, on a real server: asked at any moment of the sleep, it was sometimes forgotten."""
    for turns in range(12):
        await awake(ground)
        sleeping = asyncio.create_task(ground.madre.control.sleep("baker", "test"))
        for _ in range(turns):
            await asyncio.sleep(0)
        moved = await asyncio.wait_for(ground.madre.control.wake("baker", "test"), 5)
        assert moved.to == "active"
        await asyncio.wait([sleeping])
        if not sleeping.exception():
            await ground.sleep()


async def test_a_wake_that_cannot_be_says_why(ground: Playground, monkeypatch: pytest.MonkeyPatch):
    async def broken(_):
        raise OSError("no model")

    monkeypatch.setattr("bus.resources.Resources.open", broken)
    with pytest.raises(Failure, match="unavailable: baker cannot be woken"):
        await ground.madre.control.wake("baker", "test")
    assert len(ground.host.started) == 3


async def test_a_sleep_that_a_request_called_off_is_a_conflict(ground: Playground):
    ground.oven.act = ground.oven.wait
    ground.send()
    await until(lambda: ground.oven.done)
    await ground.until("active")
    sleeping = asyncio.create_task(ground.madre.control.sleep("baker", "test"))
    await until(lambda: ground.baker.power.phase == "drain")
    ground.send()
    with pytest.raises(Failure, match="conflict"):
        await sleeping


async def test_a_sleep_while_it_wakes_waits_until_it_is_awake(ground: Playground):
    ground.host.deaf = True
    got = ground.send()
    await ground.until("waking")
    sleeping = asyncio.create_task(ground.madre.control.sleep("baker", "test"))
    ground.host.deaf = False
    await until(lambda: got)
    moved = await sleeping
    assert (moved.from_, moved.to, codes(got)) == ("waking", "dormant", ["ok"])


async def test_a_restart_lets_work_finish_and_starts_another(ground: Playground):
    ground.oven.act = ground.oven.wait
    first = ground.send()
    await until(lambda: ground.oven.done)
    await ground.until("active")
    restarting = asyncio.create_task(ground.madre.control.restart("baker", "test"))
    await until(lambda: ground.baker.power.phase == "drain")
    second = ground.send()
    await until(lambda: second or ground.baker.power.held)
    ground.oven.gate.set()
    moved = await restarting
    await until(lambda: first and second)
    assert (codes(first), codes(second), moved.to) == (["ok"], ["ok"], "active")
    assert [run.code for run in ground.host.started] == [0, None]


async def test_changed_code_is_followed_by_an_instance_that_runs_it(ground: Playground):
    await awake(ground)
    ground.host.version = "card2"
    await ground.host.register()
    await ground.until("dormant")
    await awake(ground)
    await until(lambda: ground.baker.power.beat.run)
    assert ground.baker.card_version == "card2"


async def test_changed_code_that_was_noticed_while_there_was_no_madre_is_followed_too(ground: Playground):
    await awake(ground)
    await close(ground.madre)
    await ground.new_madre()
    ground.host.version = "card2"
    await ground.host.register()
    await until(lambda: ground.host.started[0].code == 0)


async def test_an_actor_that_does_not_exist_is_named_with_those_that_do(ground: Playground, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control_module, "YOUNG_S", 0.0)
    with pytest.raises(Failure, match="not_found: there is no actor 'bakr'; there are: baker"):
        await ground.madre.control.wake("bakr", "test")


@pytest.mark.parametrize("name", ["madre", "keeper"])
async def test_what_always_runs_is_not_said_to_be_missing(ground: Playground, name: str):
    """Whoever sees it in `vx11 ps` and types `vx11 sleep` would look for a fault."""
    with pytest.raises(Failure, match=f"not_found: {name} is a part of VX11 that always runs"):
        await ground.madre.control.wake(name, "test")


# -- kept awake ---------------------------------------------------------------------------------------------------------


async def test_who_crashes_in_its_window_is_woken_again(ground: Playground):
    """Nobody knocks, and still the window promises that it is awake."""
    await ground.madre.control.open_window(["baker"], None, "test")
    ground.host.started[0].task.cancel()
    await until(lambda: len(ground.host.started) == 2)
    await ground.until("active")


async def test_who_was_put_to_sleep_in_its_window_stays_asleep(ground: Playground):
    await ground.madre.control.open_window(["baker"], None, "test")
    await ground.sleep()
    await ground.madre._bus.wire.barrier()
    assert (ground.state, len(ground.host.started)) == ("dormant", 1)


async def test_after_a_restart_of_all_who_is_in_a_window_is_woken(ground: Playground):
    """The window was kept; the instance was not."""
    await ground.madre.control.open_window(["baker"], None, "test")
    await ground.sleep()
    await close(ground.madre)
    await ground.new_madre()
    await ground.host.register()
    await ground.until("active")


async def test_who_crashes_outside_of_any_window_stays_asleep(ground: Playground):
    await awake(ground)
    ground.host.started[0].task.cancel()
    await ground.until("dormant")
    assert len(ground.host.started) == 1


async def test_windows_and_gates_are_those_of_the_life_before(ground: Playground):
    window, _ = await ground.madre.control.open_window(["baker"], 60.0, "test")
    await ground.madre.control.set_gate("baker", "window")
    await close(ground.madre)
    await ground.new_madre()
    assert list(ground.madre.policy.windows) == [window.window_id]
    assert ground.madre.policy.gate("baker") == "window"


# -- what is told -------------------------------------------------------------------------------------------------------


async def test_a_life_is_explained_by_what_was_seen_of_it(ground: Playground):
    await awake(ground)
    told = ground.madre.control.explain("baker")
    assert told.sentence.startswith("baker is active since ")
    assert [step.what for step in told.transitions] == ["dormant", "waking", "handover", "active"]


async def test_status_tells_of_a_beat_only_while_there_is_one(ground: Playground):
    """Nothing observed is not zero."""
    assert ground.madre.control.status(ground.baker).idle_s is None
    await awake(ground)
    await until(lambda: ground.baker.power.beat.run)
    assert ground.madre.control.status(ground.baker).idle_s is not None


async def test_a_request_to_an_actor_whose_gate_is_closed_wakes_nobody(ground: Playground):
    await ground.madre.control.set_gate("baker", "closed")
    assert code_of(await ground.ask()) == "off_by_policy"
    assert not ground.host.started
