"""Events on their way into a stream: stored once, or said not to be; and what the store says otherwise."""

from __future__ import annotations

import asyncio
import json
import time
from typing import ClassVar

import pytest

from bus import call, commit, publisher, streams
from bus.nats_server import embedded
from bus.streams import jetstream_failure
from schemas.errors import Failure
from schemas.message import Event
from tests.bus.shop import SOLD, connected, make_streams, until
from tests.bus.wires import freeze, thaw


class Sold(Event):
    subject: ClassVar = SOLD

    number: int


async def stored(boss, seq: int) -> dict:
    return (await boss.api(f"$JS.API.STREAM.MSG.GET.{streams.EVENTS}", json.dumps({"seq": seq}).encode()))["message"]


async def count(boss) -> int:
    return (await boss.api(f"$JS.API.STREAM.INFO.{streams.EVENTS}"))["state"]["messages"]


async def test_an_event_is_stored_and_its_sequence_told(boss, bus):
    first, second = await bus.publish(Sold(number=1)), await bus.publish(Sold(number=2))
    assert second == first + 1
    assert (await stored(boss, first))["subject"] == SOLD


async def test_an_event_carries_the_conversation_that_it_belongs_to(boss, bus):
    heard = asyncio.get_running_loop().create_future()
    await boss.listen(SOLD, heard.set_result)
    await boss.wire.barrier()
    call.current.set(call.call_from({call.CORRELATION: "conversation-1"}))
    await bus.publish(Sold(number=1), message_id="m1")
    msg = await heard
    assert msg.headers[call.CORRELATION] == "conversation-1"
    assert msg.headers["Nats-Msg-Id"] == "m1"
    assert Sold.model_validate_json(msg.data) == Sold(number=1)


async def test_an_event_that_is_tried_again_is_stored_once(tmp_path, monkeypatch):
    """The acknowledgement may be lost although the event was not."""
    with embedded(tmp_path) as server:
        async with connected(server, "madre") as boss, connected(server, "actor") as bus:
            await make_streams(boss)
            monkeypatch.setattr(commit, "TRY_S", 0.05)
            tries = []
            send = bus.wire.send
            monkeypatch.setattr(bus.wire, "send", lambda *args, **options: (tries.append(args), send(*args, **options)))
            freeze(server.process.pid)
            publishing = asyncio.create_task(bus.publish(Sold(number=1)))
            await until(lambda: len(tries) >= 3)
            monkeypatch.setattr(commit, "TRY_S", 5.0)
            thaw(server.process.pid)
            await publishing
            assert await count(boss) == 1


async def test_the_same_id_is_stored_once_and_another_twice(boss, bus):
    for id_ in ("a", "a", "b"):
        await bus.publish(Sold(number=1), message_id=id_)
    assert await count(boss) == 2


async def test_an_event_outlives_the_server(tmp_path):
    """Published while there is none, stored when it is back."""
    with embedded(tmp_path) as server:
        async with connected(server, "madre") as boss, connected(server, "actor") as bus:
            await make_streams(boss)
            server.kill()
            await until(lambda: not bus.connected)
            publishing = asyncio.create_task(bus.publish(Sold(number=1)))
            await asyncio.sleep(0)
            server.start()
            assert await publishing == 1
            assert await count(boss) == 1


async def test_an_event_that_no_stream_takes_is_unavailable_in_the_end(boss, bus, monkeypatch):
    monkeypatch.setattr(publisher, "PUBLISH_S", 0.2)
    await boss.api(f"$JS.API.STREAM.DELETE.{streams.EVENTS}")
    with pytest.raises(Failure, match="no stream takes") as failed:
        await bus.publish(Sold(number=1))
    assert failed.value.code == "unavailable"


async def test_a_full_stream_says_so_at_once(boss, bus):
    [config, *_] = streams.stream_configs(boss.wire.max_payload, events_bytes=4_096)
    await streams.ensure_stream(boss.api, config)
    begun = time.monotonic()
    with pytest.raises(Failure) as failed:
        for number in range(100):
            await bus.publish_raw(SOLD, json.dumps({"number": number, "pad": "x" * 200}).encode())
    assert failed.value.code == "storage_full"
    assert time.monotonic() - begun < 2


async def test_what_is_told_is_heard_by_who_listens_and_stored_by_the_way(boss, bus):
    heard = asyncio.get_running_loop().create_future()
    await boss.listen("vx11.events.shop.*", heard.set_result)
    await boss.wire.barrier()
    bus.tell(Sold(number=3), message_id="m3")
    assert json.loads((await heard).data) == {"number": 3}
    await bus.wire.barrier()
    await until(heard.done)
    assert await bus.publish(Sold(number=3), message_id="m3") == await count(boss)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"code": 400, "err_code": 10071, "description": "wrong last sequence: 3"}, "conflict"),
        ({"code": 400, "err_code": 10164, "description": "wrong last sequence"}, "conflict"),
        ({"code": 404, "err_code": 10059, "description": "stream not found"}, "not_found"),
        ({"code": 500, "err_code": 10023, "description": "insufficient resources"}, "storage_full"),
        ({"code": 400, "err_code": 10054, "description": "message size exceeds maximum allowed"}, "too_large"),
        ({"code": 400, "err_code": 10047, "description": "insufficient storage"}, "storage_full"),
        ({"code": 503, "err_code": 10077, "description": "maximum bytes exceeded"}, "storage_full"),
        ({"code": 500, "err_code": 1, "description": "write: no space left on device"}, "storage_full"),
        ({"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}, "unavailable"),
        ({}, "unavailable"),
    ],
)
def test_an_error_of_the_store_is_one_of_ours(error, code):
    failure = jetstream_failure(error)
    assert (failure.code, failure.details["err_code"]) == (code, error.get("err_code", 0))
