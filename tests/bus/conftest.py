"""Connections for the tests of streams and durable handlers, with the rights that madre and an actor have."""

from __future__ import annotations

import pytest

from bus import streams
from bus.nats_server import embedded
from bus.streams import ensure_consumer
from tests.bus.shop import SOLD, connected, make_streams


@pytest.fixture
async def boss(nats_server):
    """Connected as madre, with an empty VX11_EVENTS that has the consumer `c`, and an empty VX11_DLQ."""
    async with connected(nats_server, "madre") as boss:
        await make_streams(boss)
        await ensure_consumer(boss.api, streams.EVENTS, "c", [SOLD])
        yield boss
        for name in (await boss.api("$JS.API.STREAM.NAMES"))["streams"] or ():
            await boss.api(f"$JS.API.STREAM.DELETE.{name}")


@pytest.fixture
async def bus(nats_server):
    """An instance's own connection, with no more rights than an actor has."""
    async with connected(nats_server, "actor") as bus:
        yield bus


@pytest.fixture
async def own(tmp_path):
    """A server of the test's own, which it may kill: the server, madre's connection, an actor's connection."""
    with embedded(tmp_path) as server:
        async with connected(server, "madre") as boss, connected(server, "actor") as bus:
            await make_streams(boss)
            await ensure_consumer(boss.api, streams.EVENTS, "c", [SOLD])
            yield server, boss, bus
