"""A new madre knows every actor again, also when a host comes back to the server later than she."""

from __future__ import annotations

import asyncio

import pytest

from actors.madre.main import Madre
from bus import streams
from bus.records import Records
from bus.settings import Settings
from schemas.power import ActorRecord
from tests.bus.shop import connected, until


@pytest.mark.parametrize("known", [True, False])
async def test_hosts_are_asked_again_while_an_actor_has_no_card(nats_server, tmp_path, known):
    """Her first word was not heard: server and madre had been killed together, and she was the first to be back."""
    asked: list[str] = []
    async with connected(nats_server, "madre") as bus, connected(nats_server, "host") as host:
        await streams.ensure_streams(bus.api, streams.stream_configs(bus.wire.max_payload))
        if not known:
            await Records(bus).swap(ActorRecord(actor="baker"), 0)
        madre = Madre(bus, Settings(tmp_path))
        await madre.open()
        await bus.wire.barrier()  # her first word is out
        try:
            await host.listen("vx11.host.all.cards", lambda msg: asked.append(msg.subject))
            await host.wire.barrier()
            if known:
                await asyncio.wait_for(madre._tasks[-1], 5)  # the task ends by itself: there is nobody to ask for
                assert not asked
            else:
                await until(lambda: len(asked) >= 2)
        finally:
            await madre.close()
