"""One running copy of an actor: claims, proves itself, works, can be called back, leaves with empty hands."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from bus import streams
from bus.instance import LEFT, LOST_CLAIM
from bus.nats_server import embedded
from bus.process import started_at
from bus.records import Records
from bus.wire import status_of
from schemas.card import DescribeReply
from schemas.errors import Failure
from schemas.message import Event
from schemas.power import ActorRecord
from tests.bus.bakery import Bake, Oven, bakery
from tests.bus.life import EPOCH, RUN, life
from tests.bus.micro_schemas import SCHEMAS
from tests.bus.shop import until
from tests.bus.wires import freeze, opened, thaw


@pytest.fixture
async def one(nats_server, tmp_path):
    async with life(nats_server, tmp_path) as one:
        yield one


class Yeast: ...


class Sold(Event):
    subject: ClassVar = "vx11.events.shop.sold"

    number: int


# -- the claim -----------------------------------------------------------------------------------------------------------


async def test_the_claim_takes_the_record_and_keeps_what_madre_knows(nats_server, tmp_path):
    known = ActorRecord(actor="baker", epoch=EPOCH, gate="window", wakes=7, reason="a request")
    async with life(nats_server, tmp_path, record=known) as one:
        await one.active()
        record, _ = await one.records.get("baker")
    assert (record.state, record.owner, record.instance, record.host) == ("waking", RUN, "id1", "host1")
    assert (record.pid, record.born, record.card_version) == (os.getpid(), started_at(os.getpid()), "card1")
    assert (record.epoch, record.gate, record.wakes, record.reason) == (EPOCH, "window", 7, "a request")


async def test_a_lost_claim_is_an_exit_without_a_word(one):
    """Somebody was faster: nothing is opened, nothing subscribed, nothing said."""
    await one.records.swap(ActorRecord(actor="baker", owner="other"), 0)
    assert await one.start() == LOST_CLAIM
    assert one.resources == []
    assert one.told == []
    assert status_of(await one.ask()) == "503"


async def test_a_claim_whose_outcome_is_unknown_is_looked_up_and_found(tmp_path, monkeypatch):
    """The store was slow to answer, and wrote it."""
    monkeypatch.setattr("bus.records.SWAP_S", 0.1)
    with embedded(tmp_path) as server:
        async with life(server, tmp_path) as one:
            freeze(server.process.pid)
            living = one.start()
            await asyncio.wait([living], timeout=0.2)
            thaw(server.process.pid)
            await until(lambda: one.told or living.done())
            assert one.facts() == ["active"]
            assert (await one.records.get("baker"))[0].owner == RUN


async def test_a_claim_whose_outcome_is_unknown_and_that_another_has_won_is_lost(one, monkeypatch):
    swap = Records.swap

    async def lost_on_the_way(self, record, revision):
        await swap(self, ActorRecord(actor="baker", owner="other"), revision)
        raise Failure("timeout", "no answer")

    monkeypatch.setattr(Records, "swap", lost_on_the_way)
    assert await asyncio.wait_for(one.start(), 5) == LOST_CLAIM
    assert one.told == []


async def test_a_claim_that_never_arrived_is_made_again(one, monkeypatch):
    swap = Records.swap
    tries = []

    async def lost_at_first(self, record, revision):
        tries.append(revision)
        if len(tries) == 1:
            raise Failure("timeout", "no answer")
        return await swap(self, record, revision)

    monkeypatch.setattr(Records, "swap", lost_at_first)
    await one.active()
    assert (await one.records.get("baker"))[0].owner == RUN


# -- serving -------------------------------------------------------------------------------------------------------------


async def test_active_says_who_it_is_and_a_request_after_it_is_answered(one):
    told = await one.active()
    expected = {"actor": "baker", "id": "id1", "run": RUN, "revision": 1, "epoch": EPOCH, "stay": 0, "host": "host1"}
    assert told == told | expected | {"pid": os.getpid(), "born": started_at(os.getpid())}
    assert json.loads((await one.ask()).data) == {"n": 0}


async def test_it_serves_its_private_subject_too(one):
    await one.active()
    assert json.loads((await one.ask(private=True)).data) == {"n": 0}


async def test_resources_are_open_before_it_can_be_asked(one):
    await one.active()
    assert one.resources == ["open cellar", "open oven"]


async def test_it_describes_itself(one):
    await one.active()
    described = DescribeReply.model_validate_json((await one.ask("describe")).data)
    assert (described.state, described.instance, described.card.card_version) == ("active", "id1", "card1")
    assert [verb.name for verb in described.card.verbs] == ["bake", "knead", "login", "look", "slice"]


async def test_discovery_finds_it(nats_server, one):
    import fastjsonschema

    await one.active()
    async with opened(nats_server, "client") as asks:
        got: list[bytes] = []
        _, reply = asks.await_answer(lambda msg: got.append(msg.data))
        asks.send(f"$SRV.INFO.baker.{RUN}", reply=reply)
        await until(lambda: any(got))
    fastjsonschema.compile(SCHEMAS["INFO"])(json.loads(got[0]))


async def test_it_beats_twice_as_often_as_it_could_fall_asleep(nats_server, tmp_path):
    async with life(nats_server, tmp_path, actor=bakery(idle_after=0.2)) as one:
        await one.active()
        await until(lambda: len(one.beats) > 5, 1.5)


async def test_it_beats_and_says_what_it_has_in_hand(one):
    await one.active()
    one.oven.act = one.oven.wait
    asking = asyncio.create_task(one.ask())
    await until(lambda: one.beats and one.beats[-1]["in_flight"] == 1)
    assert one.beats[-1]["idle_s"] == 0
    one.oven.gate.set()
    await asking
    await until(lambda: one.beats[-1]["answered"] == 1 and one.beats[-1]["idle_s"] > 0)
    beat = one.beats[-1]
    assert (beat["actor"], beat["run"], beat["instance"], beat["card_version"]) == ("baker", RUN, "id1", "card1")
    assert (beat["pending"], beat["shed"], beat["in_flight"]) == (0, 0, 0)


async def test_the_first_answer_is_told_at_once(nats_server, tmp_path):
    """madre counts crashes without one answered request between them."""
    async with life(nats_server, tmp_path, actor=bakery(idle_after=300)) as one:
        await one.active()
        await one.ask()
        await until(lambda: any(beat["answered"] == 1 for beat in one.beats), 1.0)


async def test_a_ping_is_answered_with_a_beat(one):
    await one.active()
    assert json.loads((await one.ask("_ping", private=True)).data)["run"] == RUN


async def test_a_resource_that_cannot_be_opened_is_the_end_before_anything_is_said(nats_server, tmp_path):
    actor = bakery()

    @actor.resource
    async def yeast() -> AsyncIterator[Yeast]:
        if actor:
            raise OSError("no flour")
        yield Yeast()

    async with life(nats_server, tmp_path, actor=actor) as one:
        with pytest.raises(OSError, match="no flour"):
            await one.start()
        assert one.told == []
        assert status_of(await one.ask()) == "503"


# -- leaving -------------------------------------------------------------------------------------------------------------


async def test_with_empty_hands_it_leaves_closes_and_says_so(one):
    await one.active()
    assert await one.drained() == LEFT
    assert one.facts() == ["active", "slept"]
    assert one.told[-1][1]["run"] == RUN
    assert one.resources == ["open cellar", "open oven", "close oven", "close cellar"]
    for private in (True, False):
        assert status_of(await one.ask(private=private)) == "503"


async def test_work_in_hand_is_finished_and_what_is_forwarded_meanwhile_too(one):
    """A ten-minute handler is never cut; the shared subject has been left by then."""
    await one.active()
    one.oven.act = one.oven.wait
    first = asyncio.create_task(one.ask())
    await until(lambda: one.oven.done)
    one.order("_drain")
    await until(lambda: one.instance._shared is None)
    forwarded = asyncio.create_task(one.ask(private=True))
    await until(lambda: len(one.oven.done) == 2)
    assert status_of(await one.ask()) == "503"
    assert not one.living.done()
    assert one.resources == ["open cellar", "open oven"]
    one.oven.gate.set()
    assert await one.left() == LEFT
    assert [json.loads((await asking).data) for asking in (first, forwarded)] == [{"n": 0}, {"n": 0}]


async def test_an_order_that_is_repeated_is_one_order(one):
    await one.active()
    one.oven.act = one.oven.wait
    asking = asyncio.create_task(one.ask())
    await until(lambda: one.oven.done)
    for _ in range(5):
        one.order("_drain")
    await one.boss.wire.barrier()
    one.oven.gate.set()
    assert await one.left() == LEFT
    await asking
    assert one.facts() == ["active", "slept"]


async def test_a_drain_can_be_called_back_while_something_is_in_hand(one):
    """An actor that asks itself while it drains would wait for itself."""
    await one.active()
    one.oven.act = one.oven.wait
    asking = asyncio.create_task(one.ask())
    await until(lambda: one.oven.done)
    one.order("_drain")
    await until(lambda: one.instance._shared is None)
    one.order("_stay", stay=3)
    await until(lambda: len(one.told) == 2)
    assert (one.facts(), one.told[1][1]["stay"]) == (["active", "active"], 3)
    one.oven.gate.set()
    await asking
    assert json.loads((await one.ask()).data) == {"n": 0}
    assert await one.drained() == LEFT


async def test_asked_to_stay_it_proves_itself_again(one):
    """A new madre does not know whether it still serves."""
    await one.active()
    one.order("_stay", stay=1, epoch=EPOCH + 1)
    await until(lambda: len(one.told) == 2)
    assert (one.told[1][1]["stay"], one.told[1][1]["epoch"]) == (1, EPOCH + 1)


@pytest.mark.parametrize("order", [{"epoch": EPOCH - 1}, {"epoch": 0}, {}])
async def test_an_old_madres_orders_are_ignored(one, order):
    await one.active()
    one.say("_drain", json.dumps(order).encode())
    one.say("_stay", json.dumps(order | {"stay": 9}).encode())
    one.order("_stay", stay=1)
    await until(lambda: len(one.told) == 2)
    assert one.told[1][1]["stay"] == 1
    assert json.loads((await one.ask()).data) == {"n": 0}


async def test_after_a_higher_epoch_the_lower_one_has_nothing_to_say(one):
    await one.active()
    one.order("_stay", stay=1, epoch=EPOCH + 1)
    one.order("_drain")
    await until(lambda: len(one.told) == 2)
    assert json.loads((await one.ask()).data) == {"n": 0}
    assert one.instance._shared is not None


@pytest.mark.parametrize("body", [b"no json", b"[]", b"3", b'{"epoch": "x"}', b'{"epoch": 9}'])
async def test_an_order_that_is_none_changes_nothing(one, body):
    await one.active()
    one.say("_stay", body)
    one.say("_what", b"{}")
    assert json.loads((await one.ask()).data) == {"n": 0}
    one.order("_drain", epoch=99)
    assert await one.left() == LEFT


async def test_it_leaves_although_the_server_dies_meanwhile(tmp_path):
    with embedded(tmp_path) as server:
        async with life(server, tmp_path) as one:
            await one.active()
            one.oven.act = one.oven.wait
            asking = asyncio.create_task(one.ask())
            await until(lambda: one.oven.done)
            one.order("_drain")
            await until(lambda: one.instance._shared is None)
            server.kill()
            one.oven.gate.set()
            server.start()
            assert await one.left() == LEFT
            await until(lambda: one.boss.connected)
            assert status_of(await one.ask()) == "503"
            asking.cancel()
            await asyncio.wait([asking])


async def test_told_to_end_it_asks_madre_to_be_drained(one):
    """SIGTERM: leaving by itself could lose what is on its way."""
    heard = asyncio.get_running_loop().create_future()
    await one.boss.listen("vx11.madre.sleep", lambda msg: heard.set_result(json.loads(msg.data)))
    await one.boss.wire.barrier()
    await one.active()
    one.instance.ask_to_leave()
    assert (await heard)["name"] == "baker"
    assert not one.living.done()


# -- events --------------------------------------------------------------------------------------------------------------


def listener(oven: Oven, *, durable: bool):
    """A baker that hears of sales."""
    actor = bakery()

    @actor.on(durable=durable)
    async def count(event: Sold) -> None:
        oven.done.append(f"begin {event.number}")
        if event.number == 13:
            raise ValueError("bad luck")
        if event.number == 99:
            await oven.gate.wait()
        oven.done.append(f"end {event.number}")

    return actor


async def test_events_are_heard_while_it_is_awake_and_a_bad_one_is_in_nobodys_way(nats_server, tmp_path, caplog):
    oven = Oven()
    async with life(nats_server, tmp_path, actor=listener(oven, durable=False)) as one:
        await one.active()
        for body in (b'{"number": 13}', b"no json", b'{"number": 1, "later": true}'):
            one.boss.wire.send(Sold.subject, body)
        await until(lambda: "end 1" in oven.done)
        assert json.loads((await one.ask()).data) == {"n": 0}
    assert "bad luck" in caplog.text
    assert "Invalid JSON" in caplog.text


@pytest.mark.parametrize("durable", [False, True])
async def test_an_event_in_hand_is_finished_before_it_leaves(nats_server, tmp_path, durable):
    """And is counted, so that nobody takes it for idle."""
    oven = Oven()
    async with life(nats_server, tmp_path, actor=listener(oven, durable=durable)) as one:
        if durable:
            await streams.ensure_consumer(one.boss.api, streams.EVENTS, "baker__count", [Sold.subject])
        await one.active()
        await one.boss.publish(Sold(number=99))
        await until(lambda: "begin 99" in oven.done)
        assert json.loads((await one.ask("_ping", private=True)).data)["pending"] == 1
        one.order("_drain")
        await until(lambda: one.instance._shared is None)
        await one.boss.wire.barrier()
        assert not one.living.done()
        oven.gate.set()
        assert await one.left() == LEFT
    assert oven.done == ["begin 99", "end 99"]


async def test_a_request_class_is_what_the_handler_gets(one):
    seen = []

    async def act(request, call):
        seen.append(request)

    one.oven.act = act
    await one.active()
    await one.ask()
    assert seen == [Bake()]


async def test_a_durable_event_that_was_handled_counts_like_an_answer_and_the_first_is_told_at_once(nats_server, tmp_path):
    """Else an actor that is woken by events only would be taken for one that crashes again and again without doing anything."""
    oven = Oven()
    async with life(nats_server, tmp_path, actor=listener(oven, durable=True)) as one:
        await streams.ensure_consumer(one.boss.api, streams.EVENTS, "baker__count", [Sold.subject])
        await one.active()
        await one.boss.publish(Sold(number=1))
        await until(lambda: any(beat["answered"] == 1 for beat in one.beats), 1.5)
        assert await one.drained() == LEFT
