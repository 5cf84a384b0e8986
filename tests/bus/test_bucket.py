"""A key-value bucket of JSON documents, as `nats kv` sees it: put, remove, read all, let expire."""

from __future__ import annotations

import asyncio
import json

import nats
import pytest
from nats.js.errors import KeyNotFoundError

from bus import streams
from bus.bucket import Bucket
from bus.nats_server import embedded
from schemas.errors import Failure
from tests.bus.shop import connected, until
from tests.bus.wires import freeze

NAME = streams.LEASES
[CONFIG] = [c for c in streams.stream_configs(2**20) if c["name"] == f"KV_{NAME}"]


@pytest.fixture
async def bucket(nats_server, caplog):
    """What stands where a key was removed or ran out is no value, and reading it is no trouble."""
    async with connected(nats_server, "madre") as boss:
        await streams.ensure_stream(boss.api, CONFIG)
        yield Bucket(boss, NAME)
        await boss.api(f"$JS.API.STREAM.DELETE.KV_{NAME}")
    assert [record.message for record in caplog.get_records("call")] == []


async def test_an_empty_bucket_is_empty(bucket):
    assert await bucket.all() == {}


async def test_what_was_put_is_read_and_the_last_value_counts(bucket):
    await bucket.put("window.1", {"n": 1})
    await bucket.put("window.1", {"n": 2})
    await bucket.put("gate.switch", {"gate": "closed"})
    assert await bucket.all() == {"window.1": {"n": 2}, "gate.switch": {"gate": "closed"}}


async def test_what_was_removed_is_gone_and_can_be_put_again(bucket):
    await bucket.put("a", {"n": 1})
    await bucket.put("b", {"n": 1})
    await bucket.remove("a")
    assert await bucket.all() == {"b": {"n": 1}}
    await bucket.put("a", {"n": 2})
    assert (await bucket.all())["a"] == {"n": 2}


async def test_some_keys_are_read_and_those_that_are_missing_are_not_there(bucket):
    for key in ("2026-11-21", "2026-11-22", "2026-11-23"):
        await bucket.put(key, {"day": key})
    assert sorted(await bucket.read(["2026-11-20", "2026-11-21", "2026-11-23"])) == ["2026-11-21", "2026-11-23"]
    assert await bucket.read(["2026-11-20"]) == {}


async def test_what_was_written_last_is_found_whatever_its_key(bucket):
    assert await bucket.last() is None
    await bucket.put("b", {"n": 1})
    await bucket.put("a", {"n": 2})
    assert await bucket.last() == {"n": 2}
    await bucket.put("b", {"n": 3})
    assert await bucket.last() == {"n": 3}
    await bucket.remove("b")
    assert await bucket.last() is None


async def test_removing_what_is_not_there_is_no_error(bucket):
    await bucket.remove("nothing")
    assert await bucket.all() == {}


async def test_many_are_read_whole(bucket):
    await asyncio.gather(*(bucket.put(f"lease.{n}", {"n": n}) for n in range(300)))
    assert await bucket.all() == {f"lease.{n}": {"n": n} for n in range(300)}


async def test_a_lease_runs_out_by_itself(bucket):
    """The server removes it, also while madre is dead; the marker that stands in its place is no value."""
    await bucket.put("lease.short", {"n": 1}, ttl_s=0.3)
    await bucket.put("lease.long", {"n": 1}, ttl_s=60)
    assert set(await bucket.all()) == {"lease.short", "lease.long"}

    async def gone() -> bool:
        return set(await bucket.all()) == {"lease.long"}

    async with asyncio.timeout(5):
        while not await gone():
            await asyncio.sleep(0.05)
    info = await bucket._bus.api(f"$JS.API.STREAM.INFO.KV_{NAME}")
    assert info["state"]["messages"] == 2, "the marker"


async def test_a_key_value_client_of_any_make_sees_the_same(bucket, nats_server):
    await bucket.put("window.1", {"n": 1})
    async with await nats.connect(**nats_server.options("madre")) as nc:
        other = await nc.jetstream().key_value(NAME)
        assert json.loads((await other.get("window.1")).value) == {"n": 1}
        await other.put("window.2", b'{"n": 2}')
        await other.delete("window.1")
        assert await bucket.all() == {"window.2": {"n": 2}}
        await other.purge("window.2")
        assert await bucket.all() == {}
        await bucket.put("window.3", {"n": 3})
        await bucket.remove("window.3")
        with pytest.raises(KeyNotFoundError):
            await other.get("window.3")


async def test_without_a_bucket_there_is_a_failure_and_no_empty_answer(bucket):
    """`nothing is stored` would open every gate."""
    nowhere = Bucket(bucket._bus, "VX11_NOWHERE")
    for asking in (nowhere.all(), nowhere.put("a", {}), nowhere.remove("a")):
        with pytest.raises(Failure):
            await asking


async def test_a_store_that_does_not_answer_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("bus.bucket.READ_S", 0.1)
    with embedded(tmp_path) as server:
        async with connected(server, "madre") as boss:
            await streams.ensure_stream(boss.api, CONFIG)
            freeze(server.process.pid)
            with pytest.raises(Failure) as failed:
                await Bucket(boss, NAME).all()
            assert failed.value.code == "timeout"
            monkeypatch.setattr("bus.bucket.READ_S", 5.0)
            reading = asyncio.create_task(Bucket(boss, NAME).all())
            await until(lambda: boss.wire._answers)
            server.kill()
            [failure] = await asyncio.gather(reading, return_exceptions=True)
            assert failure.code == "unavailable"
