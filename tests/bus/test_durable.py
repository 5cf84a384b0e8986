"""Durable handlers on a real server: at least once, again later, buried with a reason; nothing goes deaf."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from typing import ClassVar

import nats
import pytest
from faststream.nats.parser import JsParser

from bus import call, dead, retry, streams
from bus.durable import Durable, DurableConsumers
from bus.pull import CANCEL_S
from bus.streams import ensure_consumer
from bus.wire import Msg
from schemas.message import Event
from tests.bus.shop import (
    LONG_S,
    QUICK,
    SOLD,
    TRIES,
    Shop,
    backlog_is,
    consuming,
    fail,
    letters,
    make_streams,
    until,
    until_settled,
)


class Sold(Event):
    subject: ClassVar = SOLD

    number: int


async def test_a_handler_that_fails_twice_gets_its_event_a_third_time(boss, bus):
    shop = Shop()

    async def act(_: Msg) -> None:
        if len(shop.seen) < 3:
            raise ConnectionError("not yet")

    shop._act = act
    async with consuming(bus, shop):
        await boss.publish_raw(SOLD, b"1")
        await until_settled(boss)
    first, second, third = shop.at
    assert second - first >= QUICK[0]
    assert third - second >= QUICK[1]
    assert await letters(boss) == []


async def test_an_event_that_always_fails_is_buried_whole_with_reason_and_history(boss, bus):
    """The letter keeps the conversation; what would make the DLQ drop or refuse it is renamed."""
    shop = Shop(fail)
    sent = {"correlation_id": "conversation-1", "Nats-Expected-Stream": streams.EVENTS}
    async with consuming(bus, shop):
        seq = await boss.publish_raw(SOLD, b"poison", message_id="m1", headers=sent)
        await until_settled(boss)
    [(subject, body, headers)] = await letters(boss)
    assert (subject, body) == ("vx11.dlq.events.shop.sold", b"poison")
    assert shop.seen == [b"poison"] * TRIES
    assert headers["correlation_id"] == "conversation-1"
    assert headers["vx11-orig-Nats-Msg-Id"] == "m1"
    assert headers["vx11-orig-Nats-Expected-Stream"] == streams.EVENTS
    assert [headers[h] for h in (dead.REASON, dead.SUBJECT, dead.STREAM, dead.SEQUENCE, dead.CONSUMER, dead.TRIES)] == [
        "failed",
        SOLD,
        streams.EVENTS,
        str(seq),
        "c",
        str(TRIES),
    ]
    history = json.loads(headers[dead.HISTORY])
    assert [(h["try"], h["error"]) for h in history] == [
        (n, "ConnectionError('no way with poison')") for n in range(1, TRIES + 1)
    ]


async def test_a_body_that_no_try_can_help_is_buried_at_once_and_whole(boss, bus):
    hopeless = [b'{"number": "no"}', b"not json", b"", b"\xff\xfe", b"0", b"[1]", b"null"]

    async def act(msg: Msg) -> None:
        Sold.model_validate_json(msg.data)

    shop = Shop(act)
    async with consuming(bus, shop):
        for body in hopeless:
            await boss.publish_raw(SOLD, body)
        await boss.publish_raw(SOLD, b'{"number": 1}')
        await until_settled(boss)
    found = await letters(boss)
    assert shop.seen == [*hopeless, b'{"number": 1}']
    assert [body for _, body, _ in found] == hopeless
    assert {headers[dead.REASON] for _, _, headers in found} == {"invalid"}
    assert "number: Input should be a valid integer" in found[0][2][dead.DETAIL]
    told = [headers[name] for _, _, headers in found for name in (dead.DETAIL, dead.HISTORY)]
    assert not [text for text in told if "not json" in text or "input_value" in text], "headers are read by more people"


async def test_a_failing_event_does_not_hold_up_the_others(boss, bus):
    async def act(msg: Msg) -> None:
        if msg.data == b"poison":
            raise ConnectionError

    shop = Shop(act)
    async with consuming(bus, shop, ladder=(30.0,)):
        for body in (b"poison", b"1", b"2", b"3"):
            await boss.publish_raw(SOLD, body)
        await until(lambda: shop.seen == [b"poison", b"1", b"2", b"3"])


async def leak_cancel(_: Msg) -> None:
    raise asyncio.CancelledError


async def leak_exit(_: Msg) -> None:
    sys.exit(1)


async def cancel_itself(_: Msg) -> None:
    asyncio.current_task().cancel()
    await asyncio.sleep(1)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("leak", [leak_cancel, leak_exit, cancel_itself])
async def test_a_handler_that_leaks_its_end_does_not_end_the_consumer(boss, bus, leak, workers):
    """Bare, each of these stops the subscriber for good and nobody hears of it."""

    async def act(msg: Msg) -> None:
        if msg.data == b"bad":
            await leak(msg)

    shop = Shop(act)
    async with consuming(bus, shop, workers=workers, ladder=(0.05,)):
        await boss.publish_raw(SOLD, b"bad")
        await boss.publish_raw(SOLD, b"good")
        await until_settled(boss)
    [(_, body, headers)] = await letters(boss)
    assert Counter(shop.seen) == {b"bad": 2, b"good": 1}
    assert (body, headers[dead.REASON]) == (b"bad", "failed")


async def test_what_was_published_before_the_first_start_is_handled(boss, bus):
    """Madre makes the consumer when the actor is registered; the actor may have never run."""
    await boss.publish_raw(SOLD, b"1")
    shop = Shop()
    async with consuming(bus, shop):
        await until(lambda: shop.seen == [b"1"])


async def test_starting_changes_no_setting_of_the_stream_and_corrects_the_consumer(boss, bus):
    """FastStream by itself resets the one and ignores differences of the other."""
    before = (await boss.api(f"$JS.API.STREAM.INFO.{streams.EVENTS}"))["config"]
    await boss.publish_raw(SOLD, b"1")
    shop = Shop()
    async with consuming(bus, shop, ack_wait_s=7):
        await until(lambda: shop.seen)
    after = (await boss.api(f"$JS.API.STREAM.INFO.{streams.EVENTS}"))["config"]
    consumer = await streams.consumer_info(boss.api, streams.EVENTS, "c")
    assert after == before
    assert consumer["config"]["ack_wait"] == 7 * streams.NS


async def test_the_dead_letters_of_two_consumers_of_one_event_are_both_kept(boss, bus):
    """With the event's own message id the second would be taken for a copy of the first."""
    await ensure_consumer(boss.api, streams.EVENTS, "d", [SOLD])
    durables = [Durable(name, streams.EVENTS, [SOLD], Shop(fail)) for name in ("c", "d")]
    consumers = DurableConsumers(bus.wire, durables, ladder=(0.05,))
    await consumers.start()
    await boss.publish_raw(SOLD, b"1", message_id="m1")
    await until_settled(boss, "c")
    await until_settled(boss, "d")
    await consumers.stop()
    assert sorted(headers[dead.CONSUMER] for _, _, headers in await letters(boss)) == ["c", "d"]


async def test_an_event_whose_every_try_ended_with_its_process_is_buried_unrun(boss, bus, nats_server):
    """Else it would kill each new instance for ever."""
    await boss.publish_raw(SOLD, b"killer")
    async with await nats.connect(**nats_server.options("madre")) as client:
        pulled = await client.jetstream().pull_subscribe_bind("c", streams.EVENTS)
        for _ in range(TRIES):
            [msg] = await pulled.fetch(1)
            await msg.nak()
        await client.flush()
    shop = Shop()
    async with consuming(bus, shop):
        await until_settled(boss)
    [(_, body, headers)] = await letters(boss)
    assert (body, headers[dead.REASON], shop.seen) == (b"killer", "crashed", [])


async def test_a_dead_letter_that_cannot_be_stored_leaves_its_event_where_it_is(boss, bus, monkeypatch):
    monkeypatch.setattr(retry, "LETTER_AGAIN_S", 0.1)
    await boss.api(f"$JS.API.STREAM.DELETE.{streams.DLQ}")
    shop = Shop(fail)
    async with consuming(bus, shop, ladder=(0.05,)):
        await boss.publish_raw(SOLD, b"1")
        await until(lambda: len(shop.seen) == 2)
        await backlog_is(boss, 0, 1)
        await make_streams(boss)
        await until_settled(boss)
    [(_, _, headers)] = await letters(boss)
    assert (headers[dead.REASON], headers[dead.TRIES], len(shop.seen)) == ("failed", "2", 2)


async def test_the_largest_event_can_be_buried_without_losing_the_connection(boss, bus):
    """The server cuts whoever sends more than max_payload, headers counted."""
    cuts = []
    bus.wire.on_disconnect.append(lambda: cuts.append("cut"))

    async def act(_: Msg) -> None:
        raise ConnectionError("ñ" * 5_000)

    body = b"x" * (bus.wire.max_payload - streams.HEADER_ROOM_BYTES - 400)
    async with consuming(bus, Shop(act)):
        await boss.publish_raw(SOLD, body)
        await until_settled(boss)
    [(_, found, headers)] = await letters(boss)
    assert (found == body, len(json.loads(headers[dead.HISTORY])), cuts) == (True, TRIES, [])


async def test_what_faststream_itself_cannot_read_is_tried_again_and_buried(boss, bus, monkeypatch):
    """Its parsing happens before any handler; bare, such an event is gone."""

    async def choke(*_: object) -> None:
        raise ValueError("choked")

    monkeypatch.setattr(JsParser, "parse_message", choke)
    async with consuming(bus, Shop(), ladder=(0.05,)):
        await boss.publish_raw(SOLD, b"1")
        await until_settled(boss)
    [(_, _, headers)] = await letters(boss)
    assert (headers[dead.REASON], headers[dead.TRIES], headers[dead.DETAIL]) == (
        "failed",
        "2",
        "ValueError('choked')",
    )


async def test_a_publisher_cannot_make_the_consumer_answer(boss, bus):
    """FastStream sends what a handler returns to the subject in the header `reply_to`."""
    heard = []
    await boss.listen("vx11.events.shop.stolen", heard.append)
    await boss.wire.barrier()
    shop = Shop()
    async with consuming(bus, shop):
        await boss.publish_raw(SOLD, b"1", headers={"reply_to": "vx11.events.shop.stolen"})
        await until(lambda: shop.seen)
        await until_settled(boss)
        await bus.wire.barrier()
    await boss.wire.barrier()
    assert heard == []


async def test_a_handler_is_inside_the_conversation_of_its_event(boss, bus):
    """What it sends carries the same correlation id and trace; the deadline of a request is not its own."""
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    inside = []

    async def act(_: Msg) -> None:
        inside.append(call.current.get())

    async with consuming(bus, Shop(act)):
        headers = {"correlation_id": "conversation-1", "traceparent": trace, "vx11-deadline": "1000"}
        await boss.publish_raw(SOLD, b"1", headers=headers)
        await until(lambda: inside)
    assert (inside[0].correlation_id, inside[0].traceparent[:36], inside[0].deadline) == ("conversation-1", trace[:36], 0.0)
    assert call.current.get() is None


async def test_pending_counts_what_is_in_hand(boss, bus):
    gate = asyncio.Event()
    shop = Shop(lambda _: gate.wait())
    async with consuming(bus, shop, workers=2) as consumers:
        for body in (b"1", b"2", b"3"):
            await boss.publish_raw(SOLD, body)
        await until(lambda: len(shop.seen) == 2)
        held = consumers.pending()
        gate.set()
        await until_settled(boss)
        await until(lambda: consumers.pending() == 0)
    assert held == 2


async def test_stopping_lets_handlers_finish_and_takes_nothing_new(boss, bus):
    gate = asyncio.Event()
    shop = Shop(lambda _: gate.wait())
    async with consuming(bus, shop) as consumers:
        await boss.publish_raw(SOLD, b"1")
        await until(lambda: shop.seen)
        stopping = asyncio.create_task(consumers.stop())
        await boss.publish_raw(SOLD, b"2")
        await until(lambda: all(pull.leaving for pull, _ in consumers._consumers.values()))
        assert not stopping.done()
        gate.set()
        await stopping
    assert shop.seen == [b"1"]
    await backlog_is(boss, 1, 0)
    assert bus.connected


async def test_a_handler_that_outlasts_the_patience_is_cut_and_its_event_handed_back(boss, bus):
    shop = Shop(lambda _: asyncio.sleep(60 if len(shop.seen) == 1 else 0))
    async with consuming(bus, shop, ack_wait_s=LONG_S, ladder=(LONG_S,)) as consumers:
        await boss.publish_raw(SOLD, b"1")
        await until(lambda: shop.seen)
        begun = time.monotonic()
        await consumers.stop(patience_s=0.1)
        assert time.monotonic() - begun < CANCEL_S
    async with consuming(bus, shop, ack_wait_s=LONG_S, ladder=(LONG_S,)):
        await until_settled(boss, seconds=5)
    assert shop.seen == [b"1", b"1"]
    assert await letters(boss) == []


async def test_it_can_be_started_again_after_a_stop(boss, bus):
    """An instance that was called back while it was leaving."""
    shop = Shop()
    consumers = DurableConsumers(bus.wire, [Durable("c", streams.EVENTS, [SOLD], shop)])
    for body in (b"1", b"2"):
        await consumers.start()
        await boss.publish_raw(SOLD, body)
        await until(lambda body=body: shop.seen[-1:] == [body])
        await until_settled(boss)
        await consumers.stop()
    await consumers.stop()
    assert shop.seen == [b"1", b"2"]


LOADED = """
import sys
{before}
wanted = ("faststream", "fast_depends", "uvicorn", "aiohttp")
print(" ".join(name for name in wanted if name in sys.modules))
{after}
"""


def loaded(before: str, after: str = "", path: str = "") -> list[str]:
    code = LOADED.format(before=before, after=after)
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([path, *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environ)
    return done.stdout.decode().split()


def test_the_bus_alone_loads_no_faststream():
    """It costs each process 7 MB and 70 ms; the zygote forks all actors, also those without durable handlers."""
    assert loaded("import bus, bus.streams, bus.pull, bus.retry") == []


def test_faststream_comes_without_the_web_servers_that_it_would_take_along(tmp_path):
    """And whoever needs them afterwards still gets them."""
    (tmp_path / "uvicorn.py").write_text("class Server: pass\n")
    assert loaded("import faststream.nats", path=str(tmp_path)) == ["faststream", "fast_depends", "uvicorn", "aiohttp"]
    assert loaded("import bus.durable", "import aiohttp, uvicorn", str(tmp_path)) == ["faststream", "fast_depends"]
    assert loaded("import aiohttp, bus.durable") == ["faststream", "fast_depends", "aiohttp"]


async def test_who_is_called_back_again_and_again_leaves_nothing_on_the_connection(bus):
    consumers = DurableConsumers(bus.wire, [])
    before = len(bus.wire.on_disconnect)
    for _ in range(3):
        await consumers.start()
        await consumers.stop()
    assert len(bus.wire.on_disconnect) == before
