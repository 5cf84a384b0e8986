"""Events that are published at the same time: committed together, each stored once, in order, or said not to be."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from bus import commit, eventlog, publisher, recall, streams
from bus.client import Bus
from bus.eventlog import EventLog, sequence_of
from bus.streams import ensure_stream, stream_configs
from schemas.errors import Failure
from tests.bus.shop import SOLD, connected, until
from tests.bus.wires import freeze, thaw

BATCH_ID = "Nats-Batch-Id"
WINDOW_S = 0.1
"""A duplicate window that a test can outlast."""


async def stored(boss) -> list[tuple[int, str, bytes]]:
    """Sequence, id and body of everything in the stream."""
    log, found, after = EventLog(boss), [], 0
    while page := await log.page(after, 256):
        after = sequence_of(page[-1])
        found += [(sequence_of(msg), msg.headers["Nats-Msg-Id"], msg.data) for msg in page]
    return found


async def batched(boss) -> int:
    """How many of the stored events came in a batch."""
    return sum(BATCH_ID in msg.headers for msg in await EventLog(boss).page(0, 10_000))


async def set_stream(boss, **settings) -> None:
    [config, *_] = stream_configs(boss.wire.max_payload)
    await ensure_stream(boss.api, config | settings)


def publish(bus, id_: str, body: bytes = b"{}", subject: str = SOLD) -> asyncio.Task[int]:
    return asyncio.create_task(bus.publish_raw(subject, body, message_id=id_))


async def outcomes(tasks) -> list[int | str]:
    """Sequences, and the codes of failures."""
    done = await asyncio.gather(*tasks, return_exceptions=True)
    return [one.code if isinstance(one, Failure) else one for one in done]


def drop_answers(monkeypatch, number: int) -> list[bytes]:
    """The first `number` words of the stream are lost on their way; what they were."""
    lost, real = [], commit._hear

    def hear(msg, told):
        if len(lost) < number:
            lost.append(msg.data)
        else:
            real(msg, told)

    monkeypatch.setattr(commit, "_hear", hear)
    return lost


async def window_passed() -> None:
    """Until the server has certainly forgotten the ids of before; it looks after each window."""
    await asyncio.sleep(3 * WINDOW_S)


async def test_what_is_published_together_is_stored_in_the_order_of_the_calls(boss, bus):
    tasks = [publish(bus, f"e{n}") for n in range(700)]
    sequences = await asyncio.gather(*tasks)
    assert [(seq, id_) for seq, id_, _ in await stored(boss)] == [(seq, f"e{n}") for n, seq in enumerate(sequences)]
    assert sequences == list(range(1, 701))
    assert await batched(boss) > 600


async def test_each_publishers_events_keep_their_order(boss, bus):
    async def one(name: int) -> None:
        for n in range(20):
            await bus.publish_raw(SOLD, b"{}", message_id=f"{name}:{n}")

    await asyncio.gather(*(one(name) for name in range(40)))
    found = [tuple(map(int, id_.split(":"))) for _, id_, _ in await stored(boss)]
    assert len(found) == 800
    for name in range(40):
        assert [n for who, n in found if who == name] == list(range(20))


async def test_a_lonely_event_waits_for_nobody(boss, bus):
    """Nor for a timer: it is on its way before `publish` has given up control for the first time."""
    sent, send = [], bus.wire.send
    bus.wire.send = lambda *args, **more: (sent.append(args), send(*args, **more))
    task = publish(bus, "one")
    await asyncio.sleep(0)
    assert len(sent) == 1
    assert await task == 1
    assert await batched(boss) == 0


async def test_a_batch_with_stored_ids_is_taken_apart(boss, bus):
    """The server refuses the whole and does not say which one it was."""
    before = [await bus.publish_raw(SOLD, b"{}", message_id=f"e{n}") for n in (3, 57, 171)]
    got = await asyncio.gather(*(publish(bus, f"e{n}") for n in range(200)))
    assert [got[n] for n in (3, 57, 171)] == before
    found = await stored(boss)
    assert len(found) == 200
    assert {id_: seq for seq, id_, _ in found} == {f"e{n}": seq for n, seq in enumerate(got)}


async def test_an_id_that_is_published_twice_at_the_same_time_is_stored_once(boss, bus):
    got = await asyncio.gather(*(publish(bus, f"e{n % 40}") for n in range(120)))
    assert got[:40] == got[40:80] == got[80:]
    assert len(await stored(boss)) == 40


async def test_one_that_is_too_large_fails_alone(boss, bus):
    sizes = [10] * 30 + [boss.wire.max_payload - streams.HEADER_ROOM_BYTES, boss.wire.max_payload + 1] + [10] * 30
    got = await outcomes([publish(bus, f"e{n}", b"x" * size) for n, size in enumerate(sizes)])
    assert got[30:32] == ["too_large", "too_large"]
    assert len(await stored(boss)) == 60


async def test_what_is_no_name_of_an_event_is_invalid_at_once(boss, bus):
    names = ["vx11.events..a", "vx11.events.a b", "vx11.events.a.*", "vx11.events.>", "vx11.events.", "vx11.events.a\r\nPUB x 0"]
    tasks = [publish(bus, f"e{n}") for n in range(30)]
    assert await outcomes([publish(bus, "bad", subject=name) for name in names]) == ["invalid"] * len(names)
    assert await outcomes(tasks) == list(range(1, 31))


async def test_what_this_user_may_not_publish_is_told_and_neither_harms_nor_holds_up_others(boss, bus):
    """The server answers nothing then, not even about the batch in which it was; but it says at once which subject it was."""
    denied = 'vx11.events.power.sp"oi\\led.ä'
    tasks = [publish(bus, f"e{n}", subject=denied if n % 4 == 3 else SOLD) for n in range(40)]
    async with asyncio.timeout(commit.TRY_S):
        got = await outcomes(tasks)
    assert got[3::4] == ["forbidden"] * 10
    assert sorted(one for one in got if one != "forbidden") == list(range(1, 31))
    assert bus._publisher._unsettled == {}


async def test_a_full_stream_stores_what_fits_and_says_so_of_the_rest(boss, bus):
    await set_stream(boss, max_bytes=60_000)
    got = await outcomes([publish(bus, f"e{n}", b"x" * 500) for n in range(150)])
    acknowledged = {f"e{n}": seq for n, seq in enumerate(got) if seq != "storage_full"}
    found = await stored(boss)
    assert 20 < len(found) < 140
    assert {id_: seq for seq, id_, _ in found} == acknowledged
    assert all(body == b"x" * 500 for _, _, body in found)


async def test_events_of_any_size_arrive_whole_or_not_at_all(boss, bus):
    chance = random.Random(5)
    bodies = [bytes([65 + n % 26]) * int(2 ** chance.uniform(0, 20.2)) for n in range(120)]
    got = await outcomes([publish(bus, f"e{n}", body) for n, body in enumerate(bodies)])
    kept = {f"e{n}": body for n, body in enumerate(bodies) if got[n] != "too_large"}
    assert {id_: body for _, id_, body in await stored(boss)} == kept
    assert 100 < len(kept) < 120


async def test_whoever_answers_an_event_is_not_taken_for_the_stream(boss, bus):
    """A listener that answers, as a framework's handler does that returns something, would acknowledge what is not stored."""
    for answer in (b'{"seq": 99}', b"thank you", b"", b'{"stream": "OTHER", "seq": 1}', b"[1]", b'{"error": "what?"}'):
        await boss.listen(SOLD, lambda msg, answer=answer: boss.wire.send(msg.reply, answer) if msg.reply else None)
    await boss.wire.barrier()
    for n in range(20):
        assert await bus.publish_raw(SOLD, b"{}", message_id=f"e{n}") == n + 1


async def test_an_event_with_a_condition_goes_by_itself(boss, bus):
    tasks = [publish(bus, f"e{n}") for n in range(50)]
    with pytest.raises(Failure, match="conflict"):
        await bus.publish_raw(SOLD, b"{}", headers={"Nats-Expected-Last-Sequence": "7000"})
    assert await outcomes(tasks) == list(range(1, 51))


@pytest.mark.parametrize("number", [1, 5, 60])
async def test_a_lost_answer_doubles_nothing_even_after_the_duplicate_window(boss, bus, monkeypatch, number):
    await set_stream(boss, duplicate_window=int(WINDOW_S * streams.NS))
    monkeypatch.setattr(commit, "TRY_S", 4 * WINDOW_S)
    lost = drop_answers(monkeypatch, 1 if number != 5 else 5)
    got = await asyncio.gather(*(publish(bus, f"e{n}") for n in range(number)))
    assert lost
    assert [(seq, id_) for seq, id_, _ in await stored(boss)] == [(seq, f"e{n}") for n, seq in enumerate(got)]


@pytest.mark.parametrize("others", [0, 20])
async def test_a_lost_answer_doubles_nothing_in_a_stream_that_was_made_anew(boss, bus, monkeypatch, others):
    """Its numbers begin again, far below those that were acknowledged before."""
    await asyncio.gather(*(publish(bus, f"old{n}") for n in range(10)))
    config = (await boss.api(f"$JS.API.STREAM.INFO.{streams.EVENTS}"))["config"]
    await boss.api(f"$JS.API.STREAM.DELETE.{streams.EVENTS}")
    await boss.api(f"$JS.API.STREAM.CREATE.{streams.EVENTS}", json.dumps(config).encode())
    await set_stream(boss, duplicate_window=int(WINDOW_S * streams.NS))
    if others:
        assert await publish(bus, "new") == 1
    monkeypatch.setattr(commit, "TRY_S", 4 * WINDOW_S)
    lost = drop_answers(monkeypatch, 1)
    task = publish(bus, "doubtful")
    await until(lambda: lost)
    for n in range(others):
        await boss.api("vx11.events.shop.bought", b"{}", headers={"Nats-Msg-Id": f"other{n}"})
    assert await task == (2 if others else 1)
    assert [id_ for _, id_, _ in await stored(boss)].count("doubtful") == 1


async def test_a_first_copy_that_arrives_late_keeps_the_second_one_out(boss, bus, monkeypatch):
    """The server stood still, and takes what waited in its socket after it was asked, and has forgotten the ids since."""
    await set_stream(boss, duplicate_window=int(WINDOW_S * streams.NS))
    monkeypatch.setattr(commit, "TRY_S", 0.2)
    asked, real = [], recall.recalled

    async def recalled(bus, events):
        told = await real(bus, events)
        if not asked:
            await boss.api(SOLD, b"{}", headers={"Nats-Msg-Id": "e0"})
            await window_passed()
        asked.append(told)
        return told

    monkeypatch.setattr(recall, "recalled", recalled)
    send, held = bus.wire.send, []
    bus.wire.send = lambda *args, **more: held.append(args) if not held else send(*args, **more)
    assert await bus.publish_raw(SOLD, b"{}", message_id="e0") == 1
    assert [told.sequences.get("e0") for told in asked] == [None, 1]
    assert [id_ for _, id_, _ in await stored(boss)] == ["e0"]


async def test_a_subject_that_others_write_all_the_time_does_not_hold_up_a_doubtful_event(boss, bus, monkeypatch):
    monkeypatch.setattr(commit, "TRY_S", 0.2)
    monkeypatch.setattr(publisher, "AGAIN_S", 0.01)
    asked, real = [], recall.recalled

    async def recalled(bus, events):
        told = await real(bus, events)
        asked.append(await boss.api(SOLD, b"{}", headers={"Nats-Msg-Id": f"other{len(asked)}"}))
        return told

    monkeypatch.setattr(recall, "recalled", recalled)
    send, held = bus.wire.send, []
    bus.wire.send = lambda *args, **more: held.append(args) if not held else send(*args, **more)
    await bus.publish_raw(SOLD, b"{}", message_id="e0")
    assert len(asked) == publisher.OVERTAKEN_MOST + 1
    assert [id_ for _, id_, _ in await stored(boss)].count("e0") == 1


async def test_whoever_gave_up_may_try_again_after_the_duplicate_window(boss, bus, monkeypatch):
    """The connection remembers what nobody heard the outcome of: told `timeout`, or cancelled while it was under way."""
    await set_stream(boss, duplicate_window=int(WINDOW_S * streams.NS))
    monkeypatch.setattr(commit, "TRY_S", 0.1)
    monkeypatch.setattr(publisher, "PUBLISH_S", 0.05)
    lost, real = drop_answers(monkeypatch, 2), recall.recalled

    async def unreadable(*_):
        raise Failure("unavailable", "the stream cannot be asked just now")

    monkeypatch.setattr(recall, "recalled", unreadable)
    with pytest.raises(Failure, match="unavailable"):
        await publish(bus, "failed")
    monkeypatch.setattr(recall, "recalled", real)
    cancelled = publish(bus, "cancelled")
    await until(lambda: len(lost) == 2)
    cancelled.cancel()
    await asyncio.wait((cancelled,))
    await window_passed()
    monkeypatch.setattr(publisher, "PUBLISH_S", 10.0)
    assert await asyncio.gather(publish(bus, "failed"), publish(bus, "cancelled")) == [1, 2]
    assert len(await stored(boss)) == 2


async def test_who_is_cancelled_while_its_event_waits_has_published_nothing(own):
    server, boss, bus = own
    freeze(server.process.pid)
    first = publish(bus, "first")
    await asyncio.sleep(0)
    waiting = [publish(bus, f"e{n}") for n in range(30)]
    await asyncio.sleep(0)
    for n in (0, 7, 29):
        waiting[n].cancel()
    thaw(server.process.pid)
    await asyncio.wait([first, *waiting])
    assert {id_ for _, id_, _ in await stored(boss)} == {"first"} | {f"e{n}" for n in range(30) if n not in (0, 7, 29)}


async def test_what_waits_is_bounded_in_number_and_in_bytes(own, monkeypatch):
    server, _, bus = own
    monkeypatch.setattr(publisher, "WAITING_MOST", 20)
    monkeypatch.setattr(publisher, "WAITING_BYTES", 50_000)
    freeze(server.process.pid)
    tasks = [publish(bus, f"e{n}") for n in range(22)]
    await asyncio.sleep(0)
    assert (await outcomes(tasks[21:])) == ["busy"]
    thaw(server.process.pid)
    assert await outcomes(tasks[:21]) == list(range(1, 22))
    freeze(server.process.pid)
    large = [publish(bus, f"l{n}", b"x" * 20_000) for n in range(4)]
    await asyncio.sleep(0)
    assert (await outcomes(large[3:])) == ["busy"]
    thaw(server.process.pid)
    assert await outcomes(large[:3]) == [22, 23, 24]
    assert bus._publisher._bytes == 0


async def test_a_server_that_is_killed_before_it_answers_costs_no_event_and_doubles_none(own):
    server, boss, bus = own
    tasks = [publish(bus, f"e{n}") for n in range(400)]
    await until(tasks[0].done)
    server.kill()
    await until(lambda: not bus.connected)
    tasks += [publish(bus, f"e{n}") for n in range(400, 450)]
    server.start()
    got = await outcomes(tasks)
    assert {id_: seq for seq, id_, _ in await stored(boss)} == {f"e{n}": seq for n, seq in enumerate(got)}
    assert len(await stored(boss)) == 450


async def test_without_a_server_everybody_is_told_in_time_and_nothing_waits_on(own, monkeypatch):
    server, _, bus = own
    monkeypatch.setattr(publisher, "PUBLISH_S", 0.3)
    monkeypatch.setattr(commit, "TRY_S", 0.2)
    monkeypatch.setattr(eventlog, "READ_S", 0.2)
    server.kill()
    await until(lambda: not bus.connected)
    got = await outcomes([publish(bus, f"e{n}") for n in range(50)])
    assert set(got) <= {"timeout", "unavailable"}
    await until(lambda: bus._publisher._worker is None)
    assert not bus._publisher._queue
    server.start()


async def test_the_end_of_the_connection_is_told_to_whoever_waits(own, monkeypatch):
    server, _, _ = own
    monkeypatch.setattr(commit, "TRY_S", 0.5)
    async with connected(server, "actor") as bus:
        freeze(server.process.pid)
        tasks = [publish(bus, f"e{n}") for n in range(50)]
        await asyncio.sleep(0)
        thaw(server.process.pid)
    got = await outcomes(tasks)
    assert got[-1] == "unavailable"
    assert {one for one in got if isinstance(one, str)} <= {"timeout", "unavailable"}


async def test_the_end_of_the_connection_is_told_at_once_to_whoever_published_alone(own, monkeypatch):
    """To what was asked over it no answer comes any more."""
    server, _, _ = own
    monkeypatch.setattr(commit, "TRY_S", 60.0)
    async with asyncio.timeout(10):
        async with connected(server, "actor") as bus:
            freeze(server.process.pid)
            task = publish(bus, "alone")
            await asyncio.sleep(0)
        assert await outcomes([task]) == ["unavailable"]
    thaw(server.process.pid)


async def test_a_stream_that_knows_no_batches_gets_the_events_one_by_one(boss, bus):
    """As after an update from a home of before, until madre has brought the settings up to date."""
    config = (await boss.api(f"$JS.API.STREAM.INFO.{streams.EVENTS}"))["config"]
    await boss.api(f"$JS.API.STREAM.UPDATE.{streams.EVENTS}", json.dumps(config | {"allow_atomic": False}).encode())
    assert sorted(await outcomes([publish(bus, f"e{n}") for n in range(60)])) == list(range(1, 61))


async def test_with_lost_answers_impatient_callers_and_a_killed_server_each_event_is_stored_once(own, monkeypatch):
    """A fifth of the answers is lost, ids are forgotten after a tenth of a second, and whoever gives up tries again."""
    server, boss, actor = own
    await set_stream(boss, duplicate_window=streams.NS // 10)
    monkeypatch.setattr(commit, "TRY_S", 0.1)
    monkeypatch.setattr(publisher, "PUBLISH_S", 0.4)
    chance, real = random.Random(3), commit._hear
    monkeypatch.setattr(commit, "_hear", lambda msg, told: real(msg, told) if chance.random() > 0.2 else None)
    acknowledged, numbers = {}, iter(range(600))

    async def one(bus) -> None:
        for n in numbers:
            id_ = f"e{n}"
            while id_ not in acknowledged:
                task = publish(bus, id_, subject=f"vx11.events.shop.sold{n % 3}")
                if chance.random() < 0.05:
                    await asyncio.sleep(0.01 * chance.random())
                    task.cancel()
                [outcome] = await asyncio.gather(task, return_exceptions=True)
                if isinstance(outcome, int):
                    acknowledged[id_] = outcome
                await asyncio.sleep(0)

    seed = server.seed_file("gateway")
    async with Bus.connect(server.url, user="gateway", seed=seed, name="test", buffered=False, fast=True) as gateway:
        publishing = asyncio.gather(*(one(bus) for bus in (actor, gateway) * 40))
        await until(lambda: len(acknowledged) > 200)
        server.kill()
        await server.start_async()
        await publishing
    found = await stored(boss)
    assert len(found) == 600
    assert {id_: seq for seq, id_, _ in found} == acknowledged
