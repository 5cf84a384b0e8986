"""Streams, buckets and consumers are made as wanted, brought back when somebody changed them, and never emptied."""

from __future__ import annotations

import asyncio
import base64
import json
import time

import nats
import pytest

from bus import streams
from bus.client import Bus
from bus.streams import ensure_consumer, ensure_stream, ensure_streams, stream_configs
from schemas.errors import Failure

MAX_PAYLOAD = 1024 * 1024
SOLD = "vx11.events.shop.sold"


@pytest.fixture
async def bus(nats_server):
    """Connected as madre, on a server without streams."""
    async with Bus.connect(nats_server.url, user="madre", seed=nats_server.seed_file("madre"), name="test") as bus:
        yield bus
        for name in (await bus.api("$JS.API.STREAM.NAMES"))["streams"] or ():
            await bus.api(f"$JS.API.STREAM.DELETE.{name}")


@pytest.fixture
async def events(bus):
    """The same, with VX11_EVENTS."""
    await ensure_stream(bus.api, wanted(streams.EVENTS))
    return bus


def wanted(name: str, **more) -> dict:
    return next(c for c in stream_configs(MAX_PAYLOAD) if c["name"] == name) | more


async def update(bus: Bus, name: str, **changes) -> None:
    """What a stranger with the right to do it might do."""
    config = (await bus.api(f"$JS.API.STREAM.INFO.{name}"))["config"]
    del config["metadata"]
    await bus.api(f"$JS.API.STREAM.UPDATE.{name}", json.dumps(config | changes).encode())


async def config_of(bus: Bus, name: str) -> dict:
    return (await bus.api(f"$JS.API.STREAM.INFO.{name}"))["config"]


async def waits(bus: Bus, name: str, *expected: int) -> None:
    """Wait until the backlog is as expected: the server counts a moment after it has acknowledged."""
    async with asyncio.timeout(5):
        while await streams.backlog(bus.api, streams.EVENTS, name) != expected:
            await asyncio.sleep(0.01)


async def test_everything_is_created_once_and_kept_as_it_is_afterwards(bus):
    first = await ensure_streams(bus.api, stream_configs(bus.wire.max_payload))
    second = await ensure_streams(bus.api, stream_configs(bus.wire.max_payload))
    names = ["VX11_EVENTS", "VX11_CALLS", "VX11_JOBS", "VX11_DLQ", "KV_VX11_ACTORS", "KV_VX11_LEASES", "KV_VX11_USAGE"]
    assert [(o.name, o.did) for o in first] == [(name, "created") for name in names]
    assert [(o.did, o.changed, o.unchangeable) for o in second] == [("kept", {}, {})] * len(names)


async def test_two_who_create_the_same_stream_at_once_both_succeed(bus):
    """Madre and a second madre at the same moment."""
    configs = [wanted(streams.DLQ), wanted(streams.DLQ, max_bytes=streams.DLQ_BYTES * 2)] * 4
    outcomes = await asyncio.gather(*(ensure_stream(bus.api, config) for config in configs))
    assert "created" in [o.did for o in outcomes]


async def test_limits_that_a_stranger_changed_are_restored_and_the_messages_stay(events):
    """A FastStream program that names our stream resets it to its own defaults when it starts."""
    await events.publish_raw(SOLD, b"{}")
    await update(events, streams.EVENTS, max_bytes=-1, discard="old", duplicate_window=60 * streams.NS, max_msgs=7)
    outcome = await ensure_stream(events.api, wanted(streams.EVENTS))
    assert outcome.did == "updated"
    assert outcome.changed == {
        "max_bytes": (-1, streams.EVENTS_BYTES),
        "discard": ("old", "new"),
        "duplicate_window": (60 * streams.NS, 120 * streams.NS),
        "max_msgs": (7, -1),
    }
    assert outcome.info["state"]["messages"] == 1
    assert (await ensure_stream(events.api, wanted(streams.EVENTS))).did == "kept"


async def test_a_republish_that_a_stranger_added_is_taken_away(events):
    """It would send every event a second time, to whom it pleases."""
    await update(events, streams.EVENTS, republish={"src": "vx11.events.>", "dest": "stolen.>"})
    await ensure_stream(events.api, wanted(streams.EVENTS))
    assert "republish" not in await config_of(events, streams.EVENTS)


async def test_a_smaller_stream_is_a_parameter(bus):
    small = next(c for c in stream_configs(MAX_PAYLOAD, events_bytes=5_000) if c["name"] == streams.EVENTS)
    await ensure_stream(bus.api, small)
    assert (await config_of(bus, streams.EVENTS))["max_bytes"] == 5_000


async def test_a_full_event_stream_refuses_and_keeps_what_it_has(bus):
    """`discard: new`: the log never loses its beginning in silence."""
    await ensure_stream(bus.api, wanted(streams.EVENTS, max_bytes=50_000))
    for _ in range(4):
        await bus.publish_raw(SOLD, b"x" * 10_000)
    with pytest.raises(Failure, match="storage_full"):
        await bus.publish_raw(SOLD, b"x" * 10_000)
    state = (await bus.api(f"$JS.API.STREAM.INFO.{streams.EVENTS}"))["state"]
    assert (state["first_seq"], state["messages"]) == (1, 4)


async def test_calls_are_written_without_waiting_for_the_disk(bus):
    """`persist_mode` of server 2.12: beside `sync_interval: always` twice the rate."""
    await ensure_stream(bus.api, wanted(streams.CALLS))
    config = await config_of(bus, streams.CALLS)
    assert (config["persist_mode"], config["discard"], config["max_age"]) == ("async", "old", 24 * 3600 * streams.NS)


async def test_a_slower_calls_stream_is_left_as_it_is_and_reported(bus):
    """The server cannot change it in place, and a day of call records is not deleted for speed."""
    await ensure_stream(bus.api, wanted(streams.CALLS, persist_mode=None))
    await update(bus, streams.CALLS, max_age=0)
    outcome = await ensure_stream(bus.api, wanted(streams.CALLS))
    assert outcome.did == "updated"
    assert outcome.unchangeable == {"persist_mode": (None, "async")}
    assert (await ensure_stream(bus.api, wanted(streams.CALLS))).did == "kept"


async def test_a_stream_of_another_kind_is_an_error_that_says_so(bus):
    """VX11_EVENTS as a work queue would give each event to one reader only."""
    await ensure_stream(bus.api, wanted(streams.EVENTS, retention="workqueue"))
    with pytest.raises(Failure, match=r"unavailable: .*retention"):
        await ensure_stream(bus.api, wanted(streams.EVENTS))


async def test_more_than_the_server_has_room_for_is_storage_full(bus):
    with pytest.raises(Failure, match="storage_full"):
        await ensure_stream(bus.api, wanted(streams.EVENTS, max_bytes=1 << 50))


async def test_an_event_leaves_room_for_the_headers_of_a_dead_letter(events):
    """Else burying it would cost the actor its connection, again at each try."""
    largest = MAX_PAYLOAD - streams.HEADER_ROOM_BYTES
    with pytest.raises(Failure, match="maximum"):
        await events.api(SOLD, b"x" * (largest + 1))
    await events.api(SOLD, b"x" * (largest - 100))


async def test_the_buckets_are_buckets_to_a_stock_client(bus, nats_server):
    await ensure_streams(bus.api, stream_configs(MAX_PAYLOAD))
    async with await nats.connect(**nats_server.options("madre")) as client:
        bucket = await client.jetstream().key_value(streams.ACTORS)
        for number in range(10):
            await bucket.put("switch", str(number).encode())
        entries = [entry.value for entry in await bucket.history("switch")]
        await bucket.delete("switch")
        status = await bucket.status()
    assert entries == [str(n).encode() for n in range(2, 10)]
    assert status.history == streams.ACTORS_HISTORY


async def test_a_lease_runs_out_by_itself_and_leaves_a_marker(bus):
    """Nobody has to be awake for a window to end; who watches the bucket hears of it."""
    await ensure_streams(bus.api, stream_configs(MAX_PAYLOAD))
    await bus.api("$KV.VX11_LEASES.window.w1", b"{}", headers={"Nats-TTL": "1s"})
    last = json.dumps({"last_by_subj": "$KV.VX11_LEASES.window.w1"}).encode()

    async def has_run_out() -> bool:
        found = (await bus.api("$JS.API.STREAM.MSG.GET.KV_VX11_LEASES", last))["message"]
        return b"Nats-Marker-Reason: MaxAge" in base64.b64decode(found["hdrs"])

    async with asyncio.timeout(10):
        while not await has_run_out():
            await asyncio.sleep(0.05)


async def test_errors_come_as_failures_also_when_the_api_only_hands_over_the_answer(bus):
    """`api` may be any connection's request; it need not know our errors."""

    async def stock(subject, body, *, timeout):
        return json.loads((await bus.raw(subject, body, timeout=timeout)).data)

    assert (await ensure_stream(stock, wanted(streams.EVENTS))).did == "created"
    with pytest.raises(Failure, match="not_found"):
        await streams.pending(stock, streams.EVENTS, "nobody")
    with pytest.raises(Failure, match="storage_full"):
        await ensure_stream(stock, wanted(streams.EVENTS, max_bytes=1 << 50))


async def test_a_consumer_gets_what_is_published_after_it_was_made(events):
    """`deliver: new`: an actor that is registered today is not woken for the events of last month."""
    await events.publish_raw(SOLD, b"before")
    outcome = await ensure_consumer(events.api, streams.EVENTS, "switch__count", [SOLD])
    await events.publish_raw(SOLD, b"after")
    await events.publish_raw("vx11.events.shop.other", b"not asked for")
    assert outcome.did == "created"
    await waits(events, "switch__count", 1, 0)


async def test_a_consumer_with_other_filters_is_updated_and_stays_where_it_was(events):
    """An actor whose handlers changed loses nothing that waits for it."""
    await ensure_consumer(events.api, streams.EVENTS, "switch__count", [SOLD])
    await events.publish_raw(SOLD, b"1")
    again = await ensure_consumer(events.api, streams.EVENTS, "switch__count", [SOLD])
    more = await ensure_consumer(events.api, streams.EVENTS, "switch__count", [SOLD, "vx11.events.shop.bought"])
    await events.publish_raw("vx11.events.shop.bought", b"2")
    assert again.did == "kept"
    given_back = "vx11.events.dlq.again.switch__count.*"
    assert more.changed == {"filter_subjects": ([given_back, SOLD], [given_back, "vx11.events.shop.bought", SOLD])}
    await waits(events, "switch__count", 2, 0)


async def test_a_consumer_that_a_stranger_spoiled_is_put_right(events):
    """`max_deliver` alone would make events vanish; an inactive threshold the consumer itself."""
    await ensure_consumer(events.api, streams.EVENTS, "switch__count", [SOLD])
    spoiled = streams.consumer_config("switch__count", ["vx11.events.shop.other"], ack_wait_s=60, start=0) | {
        "max_deliver": 3,
        "inactive_threshold": streams.NS,
        "max_ack_pending": 1,
        "headers_only": True,
    }
    body = {"stream_name": streams.EVENTS, "config": {k: v for k, v in spoiled.items() if v is not None}}
    await events.api(f"$JS.API.CONSUMER.CREATE.{streams.EVENTS}.switch__count", json.dumps(body).encode())
    outcome = await ensure_consumer(events.api, streams.EVENTS, "switch__count", [SOLD])
    assert set(outcome.changed) == {
        "ack_wait",
        "max_deliver",
        "inactive_threshold",
        "max_ack_pending",
        "headers_only",
        "filter_subjects",
    }
    assert outcome.info["config"]["max_deliver"] == -1


async def test_where_a_new_consumer_begins_can_be_said(events):
    for number in range(5):
        await events.publish_raw(SOLD, str(number).encode())
    for start, waiting in ((0, 0), (1, 5), (4, 2)):
        await ensure_consumer(events.api, streams.EVENTS, f"c{start}", [SOLD], start=start)
        await waits(events, f"c{start}", waiting, 0)


async def test_what_somebody_has_and_has_not_settled_counts_as_pending(events, nats_server):
    await ensure_consumer(events.api, streams.EVENTS, "c", [SOLD])
    await events.publish_raw(SOLD, b"1")
    await events.publish_raw(SOLD, b"2")
    async with await nats.connect(**nats_server.options("madre")) as client:
        await (await client.jetstream().pull_subscribe_bind("c", streams.EVENTS)).fetch(1)
    await waits(events, "c", 1, 1)
    assert await streams.pending(events.api, streams.EVENTS, "c") == 2


async def test_the_backlogs_of_many_consumers_have_an_end_while_others_are_made():
    """One that came between two pages, and sorted before, moved the last of the first page to the second: for ever."""
    names = [f"c{n:03}" for n in range(257)]
    asked: list[int] = []

    async def api(subject, body, *, timeout):
        if len(asked) == 1:
            names.insert(0, "a")
        assert len(asked) < 10, "it asks for ever"
        asked.append(json.loads(body)["offset"])
        page = [{"name": name, "num_pending": 1, "num_ack_pending": 0} for name in names[asked[-1] :][:256]]
        return {"total": len(names), "consumers": page}

    found = await streams.backlogs(api, streams.EVENTS)
    assert set(found) == {name for name in names if name != "a"}
    assert asked == [0, 256]


async def test_two_who_create_the_same_consumer_at_once_both_succeed(events):
    names = [[SOLD], ["vx11.events.shop.bought"]] * 4
    outcomes = await asyncio.gather(*(ensure_consumer(events.api, streams.EVENTS, "c", s) for s in names))
    assert "created" in [o.did for o in outcomes]


async def test_a_consumer_without_its_stream_is_not_found(bus):
    with pytest.raises(Failure, match="not_found"):
        await ensure_consumer(bus.api, streams.EVENTS, "c", [SOLD])


async def test_a_server_without_an_answer_is_a_failure_in_time(bus, nats_server, monkeypatch):
    monkeypatch.setattr(streams, "API_S", 0.3)
    nats_server.kill()
    begun = time.monotonic()
    try:
        with pytest.raises(Failure, match=r"timeout|unavailable"):
            await ensure_stream(bus.api, wanted(streams.EVENTS))
    finally:
        nats_server.start()
    assert time.monotonic() - begun < 5
