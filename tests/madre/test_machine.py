"""madre's driver on a real server: one move at a time, effects done, nothing dropped between them."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from actors.madre import machine as machine_module
from actors.madre import power as power_module
from bus import call
from bus.nats_server import embedded
from bus.records import Records
from schemas.errors import Failure
from tests.bus.bakery import Bake, Knead, code_of, deadline
from tests.bus.shop import until
from tests.madre.playground import Playground, close, codes, playground


@pytest.fixture
async def ground(nats_server, tmp_path):
    async with playground(nats_server, tmp_path) as ground:
        yield ground


class Store:
    """The store as it is, until a test stops it or has it fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.failure: Failure | None = None
        self.asked = 0
        real = Records.swap

        async def swap(records, record, revision):
            self.asked += 1
            await self.open.wait()
            if self.failure and records._bus.name == "madre":
                raise self.failure
            return await real(records, record, revision)

        monkeypatch.setattr(Records, "swap", swap)


@pytest.fixture
def store(ground: Playground, monkeypatch: pytest.MonkeyPatch) -> Store:
    return Store(monkeypatch)


async def record(ground: Playground):
    found, _ = await ground.madre._records.get("baker")
    return found


# -- waking and sleeping ------------------------------------------------------------------------------------------------


async def test_the_first_request_wakes_it_and_is_answered(ground: Playground):
    assert code_of(await ground.ask()) == "ok"
    await ground.until("active")


async def test_the_record_is_a_live_panel_of_its_life(ground: Playground):
    await ground.ask()
    await ground.until("active")
    awake = await record(ground)
    run = ground.host.started[0].start.run
    assert (awake.state, awake.owner, awake.host, awake.wakes) == ("active", run, "h", 1)
    await ground.sleep()
    asleep = await record(ground)
    assert (asleep.state, asleep.owner, asleep.host, asleep.pid, asleep.card_version) == ("dormant", "", "", 0, "")


async def test_the_record_says_which_code_runs(ground: Playground):
    """Found by reading: madre's own write put the code's version back to that of the life before."""
    await ground.ask()
    await ground.until("active")
    await until(lambda: ground.baker.power.beat.run)
    ground.madre.machine.note(ground.baker, gate="window")
    await until(lambda: not ground.baker.storing)
    assert (await record(ground)).card_version == "card1"


async def test_every_request_of_a_storm_of_sleeps_is_answered_and_executed_once(ground: Playground):
    """The promise of the whole protocol, on a real server."""
    asked: list[list] = []
    for turn in range(60):
        asked += [ground.send() for _ in range(3)]
        for _ in range(turn % 7):
            await asyncio.sleep(0)  # another moment of the sleep each time
        asked += [ground.send() for _ in range(2)]
        await until(lambda: asked[-3] or ground.state == "active")  # noqa: B023 - awaited here
        ground.madre.machine.sleep(ground.baker, "test")
        if turn % 5 == 0:
            await until(lambda: all(asked))  # noqa: B023 - awaited here
            await ground.sleep()
    await until(lambda: all(asked))
    await ground.asks.barrier()
    assert [codes(got) for got in asked] == [["ok"]] * 300
    assert len(ground.oven.done) == 300
    assert len(ground.host.started) > 5


async def test_an_actor_that_calls_itself_while_it_is_put_to_sleep_is_called_back(ground: Playground):
    """Else both wait for each other until the hold's time is over."""

    async def bake(request, _):
        if isinstance(request, Bake):
            await ground.oven.gate.wait()
            await ground.host.started[-1].bus.request(Knead(n=1))

    ground.oven.act = bake
    got = ground.send()
    await until(lambda: ground.oven.done)
    await ground.until("active")
    ground.madre.machine.sleep(ground.baker, "test", recall=False)
    await until(lambda: ground.baker.power.phase == "drain")
    ground.oven.gate.set()
    await until(lambda: got)
    assert (codes(got), ground.oven.done, len(ground.host.started)) == (["ok"], ["Bake", "Knead"], 1)


async def test_noting_something_in_the_record_does_not_refuse_a_claim_that_is_on_its_way(ground: Playground):
    """Found by reading: a gate that was set during a wake cost the first instance its claim."""
    ground.host.deaf = True
    got = ground.send()
    await ground.until("waking")
    ground.madre.machine.note(ground.baker, gate="window")
    ground.host.deaf = False
    await until(lambda: got)
    assert (codes(got), len(ground.host.started)) == (["ok"], 1)
    await ground.until("active")
    assert (await record(ground)).gate == "window"


# -- while the record is written or read --------------------------------------------------------------------------------


async def test_a_request_while_the_record_is_written_waits_for_its_turn(ground: Playground, store: Store):
    store.open.clear()
    ground.madre.machine.note(ground.baker, gate="window")
    got = ground.send()
    await until(lambda: ground.baker.waiting)
    assert ground.state == "dormant"
    store.open.set()
    await until(lambda: got)
    assert codes(got) == ["ok"]


@pytest.mark.parametrize(("failure", "code"), [("unavailable", "unavailable"), ("storage_full", "storage_full")])
async def test_a_request_that_waits_for_a_store_that_fails_is_answered_in_time(ground: Playground, store: Store, failure, code):
    """Found by reading: it was never answered, nor counted, for as long as the store was away."""
    store.failure = Failure(failure, "no")
    ground.madre.machine.note(ground.baker, gate="window")
    msg = await ground.ask(headers={call.DEADLINE: deadline(0.5), call.REQUEST_ID: "r1"})
    assert code_of(msg) == code
    store.failure = None
    await until(lambda: not ground.baker.storing)


async def test_a_held_request_is_answered_in_time_while_the_record_is_written(ground: Playground, store: Store):
    ground.host.deaf = True
    got = ground.send()
    await ground.until("waking")
    store.open.clear()
    ground.baker.power.limit_at = ground.baker.power.look_at = 0.0
    await until(lambda: ground.baker.storing and store.asked)
    for held in ground.baker.power.held:
        held.expires = time.time()
    await until(lambda: got)
    assert codes(got) == ["waking"]
    store.open.set()


async def test_more_requests_than_can_be_held_are_refused_while_the_record_is_written(
    ground: Playground, store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(machine_module, "HELD_MOST", 10)
    store.open.clear()
    ground.madre.machine.note(ground.baker, gate="window")
    asked = [ground.send() for _ in range(20)]
    await until(lambda: asked[-1])
    store.open.set()
    await until(lambda: all(asked))
    told = [code for got in asked for code in codes(got)]
    assert told == ["ok"] * told.count("ok") + ["busy"] * told.count("busy")
    assert 1 <= told.count("ok") <= 10


async def test_what_happens_while_an_actor_is_taken_over_is_done_after_it(ground: Playground, store: Store):
    """Found by reading: it stayed in the queue until the record was written the next time, perhaps for ever."""
    await ground.ask()
    await ground.until("active")
    run = ground.host.started[0].start.run
    store.open.clear()
    taking = asyncio.create_task(ground.new_madre())
    await until(lambda: len(ground.madres) == 2 and "baker" not in ground.madre.machine.driven and store.asked)
    store.open.set()
    await taking
    assert ground.baker.power.run == run
    assert not ground.baker.waiting


# -- deaths -------------------------------------------------------------------------------------------------------------


async def test_a_death_while_a_request_is_in_hand_is_told_to_a_typed_caller(ground: Playground):
    ground.oven.act = ground.oven.wait
    asking = asyncio.create_task(ground.caller.request(Bake()))
    await until(lambda: ground.oven.done)
    ground.host.started[0].task.cancel()
    with pytest.raises(Failure, match="crashed"):
        await asking


async def test_after_a_death_the_next_request_wakes_another(ground: Playground):
    await ground.ask()
    await ground.until("active")
    ground.host.started[0].task.cancel()
    await ground.until("dormant")
    assert code_of(await ground.ask()) == "ok"
    assert len(ground.host.started) == 2


async def test_a_death_that_nobody_told_of_is_found_out(ground: Playground, monkeypatch: pytest.MonkeyPatch):
    """The report may be lost: then the heartbeats are missed, and the host is asked."""
    monkeypatch.setattr(power_module, "BEATS_MISSED_S", 0.3)
    await ground.ask()
    await ground.until("active")
    ground.host.silent = True
    ground.host.started[0].task.cancel()
    await ground.until("dormant")
    assert any(order["kill"] for order in ground.host.asked)


async def test_who_is_silent_is_killed_and_followed_by_another(ground: Playground, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(power_module, "BEATS_MISSED_S", 0.3)
    await ground.ask()
    await ground.until("active")
    monkeypatch.setattr("bus.instance.Instance._send_beat", lambda _: None)
    await until(lambda: ground.host.started[0].code == -9)
    monkeypatch.undo()
    assert code_of(await ground.ask()) == "ok"


async def test_an_actor_that_cannot_open_its_resources_fails_and_says_why(ground: Playground, monkeypatch: pytest.MonkeyPatch):
    """Three beginnings, then everybody is told, for a while, without a fourth."""

    async def broken(_):
        raise OSError("no model")

    monkeypatch.setattr("bus.resources.Resources.open", broken)
    msg = await ground.ask()
    assert (code_of(msg), len(ground.host.started)) == ("unavailable", 3)
    assert json.loads(msg.data)["retry_after"] == 1
    assert code_of(await ground.ask()) == "unavailable"
    await until(lambda: ground.state == "failed" and not ground.baker.storing)
    assert (await record(ground)).state == "failed"


async def test_a_wake_that_nobody_hears_is_given_up(ground: Playground, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(power_module, "GIVE_UP_S", 0.3)
    ground.host.deaf = True
    assert code_of(await ground.ask()) == "unavailable"


async def test_a_fault_in_the_clock_of_one_actor_leaves_the_others_theirs(ground: Playground, monkeypatch: pytest.MonkeyPatch):
    other = await ground.madre.machine.add("other")
    monkeypatch.setattr(other.power, "tick", lambda _: 1 / 0)
    ground.madre.machine.wake(other, "test")
    ground.host.deaf = True
    assert code_of(await ground.ask(headers={call.DEADLINE: deadline(0.3)})) == "waking"


@pytest.mark.parametrize("again", [call.AGAIN_HELD, "1"])
async def test_a_repeat_that_is_given_up_is_not_said_to_have_never_been_begun(ground: Playground, again: str):
    """Its first copy may have been executed before the server was lost; who hears `waking` would ask anew, and run it twice."""
    ground.host.deaf = True
    headers = {call.DEADLINE: deadline(0.3), call.REQUEST_ID: "r1", call.AGAIN: again}
    assert code_of(await ground.ask(headers=headers)) == "timeout"


async def test_what_only_a_dead_madre_can_have_held_is_refused_with_the_reason(ground: Playground):
    """A gate that is closed is no time-out, only because she was started again a moment ago."""
    ground.host.deaf = True
    headers = {call.DEADLINE: deadline(0.3), call.REQUEST_ID: "r1", call.AGAIN: call.AGAIN_HELD}
    for sent, code in ((time.time(), "waking"), (time.time() + 60, "timeout")):
        assert code_of(await ground.ask(headers={**headers, call.SENT: str(int(sent * 1000))})) == code


# -- another madre, a server that was away ------------------------------------------------------------------------------


async def test_a_madre_that_hears_of_her_successor_steps_down(ground: Playground):
    """Found by the model: one that had stood still with nothing in hand stayed in the queue groups beside her."""
    first = ground.madre
    await ground.new_madre()
    await until(first.machine.stepped_down.is_set)


async def test_what_she_held_is_served_by_her_successor(ground: Playground):
    first = ground.madre
    ground.host.deaf = True
    got = ground.send()
    await ground.until("waking")
    await ground.new_madre()
    await until(first.machine.stepped_down.is_set)
    ground.host.deaf = False
    await close(first, successor=True)
    await ground.host.register()
    await until(lambda: got)
    assert codes(got) == ["ok"]


async def test_what_reaches_her_after_she_has_stepped_down_is_served_by_her_successor(ground: Playground):
    """Found by reading: it was queued as a move that is never made."""
    first = ground.madre
    await ground.new_madre()
    await until(first.machine.stepped_down.is_set)
    asked = [ground.send(document={"n": n}) for n in range(20)]
    await until(lambda: first.machine.driven["baker"].waiting or all(asked))
    await close(first, successor=True)
    await until(lambda: all(asked))
    assert [codes(got) for got in asked] == [["ok"]] * 20


async def test_when_she_stops_she_says_so_to_whoever_waits(ground: Playground):
    ground.host.deaf = True
    got = ground.send()
    await ground.until("waking")
    await close(ground.madre)
    await until(lambda: got)
    assert codes(got) == ["unavailable"]


async def test_a_new_madre_finds_who_is_awake_and_lets_it_be(ground: Playground):
    await ground.ask()
    await ground.until("active")
    await close(ground.madre)
    await ground.new_madre()
    await ground.host.register()
    await ground.until("active")
    assert code_of(await ground.ask()) == "ok"
    assert len(ground.host.started) == 1


async def test_a_new_madre_finds_that_somebody_died_while_there_was_none(ground: Playground):
    await ground.ask()
    await ground.until("active")
    await close(ground.madre)
    ground.host.started[0].task.cancel()
    await until(lambda: ground.host.started[0].code is not None)
    await ground.new_madre()
    await ground.until("dormant")


async def test_after_a_restart_of_the_server_everything_goes_on(tmp_path):
    with embedded(tmp_path / "server") as server:
        async with playground(server, tmp_path) as ground:
            await ground.ask()
            await ground.until("active")
            server.stop()
            server.start()
            await until(lambda: ground.asks.is_connected and ground.host.bus.connected)
            answer = await ground.caller.ask("vx11.baker.knead", b"{}", timeout=10.0, idempotent=True)
            assert json.loads(answer.body) == {"n": 0}
            await ground.until("active")
            assert len(ground.host.started) == 1
