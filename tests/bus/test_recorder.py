"""Call records: one for each answered request, in a stream, never in the request's way."""

from __future__ import annotations

import json
import time
from datetime import datetime

import pytest

from bus import recorder, streams
from bus.nats_server import embedded
from bus.recorder import Recorder
from tests.bus.shop import connected, until
from tests.bus.wires import opened

IDS = {"request_id": "r1", "correlation_id": "conversation-1", "traceparent": "00-x", "caller": "ana"}
NOW = 1_700_000_000.123


@pytest.fixture
async def calls(nats_server):
    """Subjects and documents of the records as they come by, and the connection that sends them."""
    got: list[tuple[str, dict]] = []
    async with opened(nats_server, "client") as hears, opened(nats_server, "actor") as wire:
        await hears.hear("vx11.calls.>", lambda msg: got.append((msg.subject, json.loads(msg.data))))
        await hears.barrier()
        yield got, wire


def note(made: Recorder, verb: str = "bake", **options) -> None:
    made.record(verb, IDS, **({"received": NOW, "took_ms": 1.23456, "held_ms": 7, "code": "ok"} | options))


async def test_a_record_says_who_asked_what_and_how_it_ended(calls):
    got, wire = calls
    note(Recorder(wire, "baker", "run1"), code="busy")
    await until(lambda: got)
    [(subject, document)] = got
    assert subject == "vx11.calls.baker.bake"
    assert document == IDS | {
        "subject": "vx11.baker.bake",
        "instance": "run1",
        "received_at": document["received_at"],
        "held_ms": 7,
        "took_ms": 1.235,
        "code": "busy",
        "truncated": False,
    }
    assert datetime.fromisoformat(document["received_at"]).timestamp() == pytest.approx(NOW, abs=0.001)


async def test_records_wait_a_moment_and_go_together(calls):
    """A send per request would be in the way of the next one."""
    got, wire = calls
    made = Recorder(wire, "baker", "run1")
    waiting, begun = wire.unsent, time.monotonic()
    for _ in range(5):
        note(made)
    assert wire.unsent == waiting
    await until(lambda: len(got) == 5)
    assert time.monotonic() - begun >= recorder.FLUSH_S * 0.9


async def test_the_last_records_go_when_the_instance_leaves(calls):
    got, wire = calls
    made = Recorder(wire, "baker", "run1")
    note(made)
    made.flush()
    await wire.barrier()
    await until(lambda: got)
    assert made.shed == 0


async def test_beyond_saturation_records_are_shed_and_counted(calls):
    got, wire = calls
    made = Recorder(wire, "baker", "run1")
    for _ in range(recorder.WAITING_MOST + 7):
        note(made)
    await until(lambda: len(got) == recorder.WAITING_MOST)
    assert made.shed == 7
    note(made)
    await until(lambda: len(got) == recorder.WAITING_MOST + 1)


async def test_without_a_server_records_are_shed_and_nobody_notices(tmp_path):
    with embedded(tmp_path) as server:
        async with opened(server, "actor", buffered=False) as wire:
            server.kill()
            await until(lambda: not wire.is_connected)
            made = Recorder(wire, "baker", "run1")
            note(made)
            made.flush()
            assert made.shed == 1


async def test_saturation_costs_the_loop_no_long_pause(calls, monkeypatch):
    """Hundreds at once would hold up the answers behind them: they go in slices."""
    got, wire = calls
    made, turns = Recorder(wire, "baker", "run1"), []
    unpaced = made._send_slice
    monkeypatch.setattr(made, "_send_slice", lambda: turns.append(1) or unpaced())
    for _ in range(recorder.SLICE * 4 + 1):
        note(made)
    await until(lambda: len(got) == recorder.SLICE * 4 + 1)
    assert len(turns) == 5


@pytest.mark.parametrize("verb", ["", "a b", "a.b", "*", ">", "a\r\nPUB x 0", "burn", "burn2"])
async def test_records_of_verbs_that_there_are_not_go_to_one_subject(calls, verb):
    """A stranger may ask for anything, and what was refused is recorded, too; each subject costs the server memory."""
    got, wire = calls
    note(Recorder(wire, "baker", "run1"), verb, code="endpoint_not_found", known=False)
    await until(lambda: got)
    assert got[0][0] == "vx11.calls.baker.unknown"
    assert got[0][1]["subject"] == f"vx11.baker.{verb}"
    assert wire.is_connected


async def test_records_are_kept_in_their_stream(nats_server):
    async with connected(nats_server, "madre") as boss, opened(nats_server, "actor") as wire:
        [config] = [c for c in streams.stream_configs(boss.wire.max_payload) if c["name"] == streams.CALLS]
        await streams.ensure_stream(boss.api, config)
        made = Recorder(wire, "baker", "run1")
        note(made)
        made.flush()
        await wire.barrier()
        async with connected(nats_server, "client") as client:
            last = await client.api(f"$JS.API.STREAM.MSG.GET.{streams.CALLS}", b'{"last_by_subj": "vx11.calls.baker.*"}')
    assert last["message"]["subject"] == "vx11.calls.baker.bake"
