"""The store has no room: nobody wakes, everybody is told so at once, and all goes on by itself when there is room again."""

from __future__ import annotations

import json

import pytest

from bus import streams
from bus.records import BUCKET
from schemas.errors import Failure
from tests.bus.bakery import Bake, code_of
from tests.bus.shop import until
from tests.madre.playground import Playground, codes, playground


@pytest.fixture
async def ground(nats_server, tmp_path):
    async with playground(nats_server, tmp_path) as ground:
        yield ground


async def bound(ground: Playground, bucket: str, most: int = 0) -> None:
    """As many bytes and no more; without a number: as many as there are."""
    api = ground.madre._bus.api
    info = await api(f"$JS.API.STREAM.INFO.KV_{bucket}")
    config = info["config"] | {"max_bytes": most or max(1, info["state"]["bytes"]), "metadata": {}}
    await api(f"$JS.API.STREAM.UPDATE.KV_{bucket}", json.dumps(config).encode())


async def test_a_request_for_a_sleeper_is_told_at_once_and_the_next_one_is_served(ground: Playground):
    """It was told `waking` at its very end, and its instance asked twenty times a second, for ever."""
    await bound(ground, BUCKET)
    assert code_of(await ground.ask()) == "storage_full"
    with pytest.raises(Failure, match="storage_full"):
        await ground.caller.request(Bake())
    assert len(ground.host.started) == 1
    assert ground.host.started[0].code is not None
    await bound(ground, BUCKET, streams.BUCKET_BYTES)
    await ground.until("dormant")
    assert code_of(await ground.ask()) == "ok"


async def test_an_operator_who_wants_it_awake_is_told_at_once(ground: Playground):
    await bound(ground, BUCKET)
    with pytest.raises(Failure, match="storage_full"):
        await ground.madre.control.wake("baker", "test")


async def test_who_is_awake_serves_on(ground: Playground):
    await ground.ask()
    await ground.until("active")
    await bound(ground, BUCKET)
    ground.madre.machine.note(ground.baker, gate="window")
    await until(lambda: ground.madre.machine.full(ground.baker))
    assert code_of(await ground.ask()) == "ok"


async def test_a_death_without_room_to_write_it_down_wakes_nobody_until_there_is(ground: Playground):
    """Two could run at once: the claim of the next one rests on the record."""
    await ground.ask()
    await ground.until("active")
    await bound(ground, BUCKET)
    ground.host.started[0].task.cancel()
    await until(lambda: ground.madre.machine.full(ground.baker))
    assert code_of(await ground.ask()) == "storage_full"
    assert len(ground.host.started) == 1
    await bound(ground, BUCKET, streams.BUCKET_BYTES)
    got = ground.send()
    await until(lambda: got)
    assert codes(got)[0] in ("ok", "storage_full")
    await ground.until("dormant", "active")
    assert code_of(await ground.ask()) == "ok"


async def test_a_gate_that_cannot_be_stored_is_not_set(ground: Playground):
    """The caller was told that it was not, and it was, until the next start."""
    await bound(ground, streams.LEASES)
    with pytest.raises(Failure, match="storage_full"):
        await ground.madre.control.set_gate("baker", "closed")
    assert ground.madre.policy.gate("baker") == "on_demand"
