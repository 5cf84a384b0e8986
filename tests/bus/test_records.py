"""The records of VX11_ACTORS: read, and replaced by compare-and-set, on a real bucket."""

from __future__ import annotations

import asyncio

import nats
import pytest

from bus import streams
from bus.nats_server import embedded
from bus.records import BUCKET, Records
from schemas.errors import Failure
from schemas.power import ActorRecord
from tests.bus.shop import connected, until
from tests.bus.wires import freeze, thaw


async def make_bucket(boss) -> None:
    await streams.ensure_stream(boss.api, streams.bucket_config(BUCKET, history=streams.ACTORS_HISTORY))


@pytest.fixture
async def records(nats_server):
    async with connected(nats_server, "madre") as boss:
        await make_bucket(boss)
        yield Records(boss)
        await boss.api(f"$JS.API.STREAM.DELETE.KV_{BUCKET}")


def baker(**fields) -> ActorRecord:
    return ActorRecord(actor="baker", **fields)


async def test_there_is_no_record_before_the_first(records):
    assert await records.get("baker") == (None, 0)
    assert await records.names() == []


async def test_the_first_record_replaces_revision_0(records):
    revision = await records.swap(baker(state="waking"), 0)
    assert revision == 1
    assert await records.get("baker") == (baker(state="waking"), 1)


async def test_only_one_of_many_replaces_a_revision(records):
    """Any number of processes may start; one of them gets the actor."""
    first = await records.swap(baker(), 0)
    claims = await asyncio.gather(*(records.swap(baker(owner=f"run{n}"), first) for n in range(20)))
    won = [n for n, revision in enumerate(claims) if revision]
    record, revision = await records.get("baker")
    assert len(won) == 1
    assert (record.owner, revision) == (f"run{won[0]}", claims[won[0]])


async def test_an_old_revision_replaces_nothing(records):
    old = await records.swap(baker(), 0)
    new = await records.swap(baker(owner="one"), old)
    assert await records.swap(baker(owner="two"), old) is None
    assert await records.swap(baker(owner="two"), 0) is None
    assert await records.get("baker") == (baker(owner="one"), new)


async def test_records_of_other_actors_do_not_concern_it(records):
    first = await records.swap(baker(), 0)
    await records.swap(ActorRecord(actor="miller"), 0)
    assert await records.swap(baker(owner="one"), first)
    assert await records.names() == ["baker", "miller"]


async def test_a_key_value_client_of_any_make_reads_them(records, nats_server):
    """`nats kv watch VX11_ACTORS` is a live power panel."""
    revision = await records.swap(baker(state="active", reason="a request"), 0)
    async with await nats.connect(**nats_server.options("client")) as nc:
        bucket = await nc.jetstream().key_value(BUCKET)
        entry = await bucket.get("baker")
    assert entry.revision == revision
    assert ActorRecord.model_validate_json(entry.value) == baker(state="active", reason="a request")


@pytest.mark.parametrize("body", [b"", b"no json", b'{"actor": 1}'])
async def test_what_is_no_record_counts_as_none_and_can_be_replaced(records, body):
    """One bad write must not stop madre for ever."""
    done = await records._bus.api(f"$KV.{BUCKET}.baker", body)
    found, revision = await records.get("baker")
    assert (found, revision) == (None, done["seq"])
    assert await records.swap(baker(), revision)


async def test_a_store_that_does_not_answer_is_a_failure_and_no_answer(tmp_path, monkeypatch):
    """Whether it was written is not known: neither None nor a revision."""
    monkeypatch.setattr("bus.records.READ_S", 0.1)
    monkeypatch.setattr("bus.records.SWAP_S", 0.1)
    with embedded(tmp_path) as server:
        async with connected(server, "madre") as boss:
            await make_bucket(boss)
            freeze(server.process.pid)
            records = Records(boss)
            for asking in (records.get("baker"), records.swap(baker(owner="me"), 0)):
                with pytest.raises(Failure) as failed:
                    await asking
                assert failed.value.code == "timeout"
            thaw(server.process.pid)
            monkeypatch.setattr("bus.records.READ_S", 5.0)
            await boss.wire.barrier()
            assert (await records.get("baker"))[0] == baker(owner="me"), "it was written after all"


async def test_a_server_that_dies_in_the_middle_is_told_at_once(tmp_path):
    """Not after the time-out: the claim of a waking actor hangs on it."""
    with embedded(tmp_path) as server:
        async with connected(server, "madre") as boss:
            await make_bucket(boss)
            freeze(server.process.pid)
            asking = asyncio.create_task(Records(boss).swap(baker(), 0))
            await until(lambda: boss.wire._answers)
            server.kill()
            [failure] = await asyncio.wait_for(asyncio.gather(asking, return_exceptions=True), 1.0)
    assert failure.code == "unavailable"


async def test_without_a_bucket_nothing_is_read_and_nothing_written(records):
    nowhere = Records(records._bus, "VX11_NOWHERE")
    for asking in (nowhere.get("baker"), nowhere.swap(baker(), 0), nowhere.names()):
        with pytest.raises(Failure):
            await asking
