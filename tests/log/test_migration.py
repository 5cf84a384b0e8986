"""The streams of an older VX11 become those of today in place: every message, every record and every place is kept."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bus import streams
from bus.client import Bus
from bus.eventlog import EventLog
from bus.nats_server import embedded
from bus.records import Records
from schemas.power import ActorRecord
from tests.bus.shop import connected

BEFORE: list[dict[str, Any]] = [
    {"name": "VX11_EVENTS", "subjects": ["vx11.events.>"], "max_bytes": 512 * streams.MIB, "discard": "old", "max_age": 0},
    {"name": "VX11_CALLS", "subjects": ["vx11.calls.>"], "max_bytes": 64 * streams.MIB, "discard": "old"},
    {"name": "VX11_JOBS", "subjects": ["vx11.jobs.>"], "retention": "workqueue", "duplicate_window": 30 * streams.NS},
    {"name": "KV_VX11_ACTORS", "subjects": ["$KV.VX11_ACTORS.>"], "max_msgs_per_subject": 1, "allow_rollup_hdrs": True},
]
"""As an older version made them: without batches, without direct gets, with other bounds; and two did not exist yet."""


@pytest.fixture
async def bus(tmp_path) -> AsyncIterator[Bus]:
    with embedded(tmp_path) as server:
        async with connected(server, "madre") as bus:
            yield bus


async def grown_up(bus: Bus) -> dict[str, str]:
    """What was done to each."""
    return {one.name: one.did for one in await streams.ensure_streams(bus.api, streams.stream_configs(bus.wire.max_payload))}


async def test_an_older_home_is_brought_up_to_date_once_and_loses_nothing(bus):
    for config in BEFORE:
        await bus.api(f"$JS.API.STREAM.CREATE.{config['name']}", json.dumps({"storage": "file", **config}).encode())
    for number in range(20):
        await bus.publish_raw("vx11.events.shop.sold", b"%d" % number)
        await bus.publish_raw("vx11.jobs.shop.bake", b"%d" % number)
    record = ActorRecord(actor="baker", state="dormant", wakes=7, reason="asleep")
    await bus.publish_raw("$KV.VX11_ACTORS.baker", record.model_dump_json().encode())
    await streams.ensure_consumer(bus.api, "VX11_EVENTS", "baker__count", ["vx11.events.shop.sold"], start=11)

    assert await grown_up(bus) == {
        **dict.fromkeys(("VX11_EVENTS", "VX11_CALLS", "VX11_JOBS", "KV_VX11_ACTORS"), "updated"),
        **dict.fromkeys(("VX11_DLQ", "KV_VX11_LEASES", "KV_VX11_USAGE"), "created"),
    }
    assert set((await grown_up(bus)).values()) == {"kept"}

    log = EventLog(bus)
    assert [int(one.body) for one in await log.read(0, 100)] == list(range(20))
    assert (await streams.stream_info(bus.api, "VX11_JOBS"))["state"]["messages"] == 20
    assert (await Records(bus).get("baker"))[0] == record
    left = await streams.backlog(bus.api, "VX11_EVENTS", "baker__count")
    assert left == streams.Backlog(10, 0)


async def test_every_stream_has_a_bound_and_none_is_without_end(bus):
    """`vx11` would fill the disk of a small machine, and then nothing goes any more."""
    await grown_up(bus)
    total = 0
    for config in streams.stream_configs(bus.wire.max_payload):
        kept = (await streams.stream_info(bus.api, config["name"]))["config"]
        assert kept["max_bytes"] > 0
        total += kept["max_bytes"]
    assert total < 4_000 * 1000 * 1000, "together they have more room than the server"
