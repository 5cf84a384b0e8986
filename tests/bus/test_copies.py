"""One id, one outcome: copies join, answers are remembered, and what may have begun elsewhere is not begun here."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from bus import call, chunks, responder
from bus.nats_server import embedded
from tests.bus.bakery import code_of, deadline, serving
from tests.bus.shop import until
from tests.bus.wires import freeze, thaw

ID = {"vx11_request_id": "r1", "vx11_caller": "ana"}
AGAIN = {**ID, "vx11_again": "1"}


@pytest.fixture
async def baker(nats_server, monkeypatch):
    monkeypatch.setattr(responder, "FIRST_COPY_S", 0.05)
    async with serving(nats_server) as baker:
        yield baker


async def test_a_copy_joins_the_first_and_both_are_answered(baker):
    baker.oven.act = baker.oven.wait
    first = baker.send("bake", {"n": 1}, **ID)
    copy = baker.send("bake", {"n": 1}, **AGAIN)
    await baker.settled()
    baker.oven.gate.set()
    await until(lambda: first and copy)
    assert [json.loads(got[0].data) for got in (first, copy)] == [{"n": 1}, {"n": 1}]
    assert baker.oven.done == ["Bake"]


async def test_a_copy_from_the_same_inbox_is_answered_once(baker):
    """A client that asks again after a reconnect waits on the same inbox."""
    baker.oven.act = baker.oven.wait
    got = baker.send("bake", inbox="mine", **ID)
    baker.send("bake", inbox="mine", **AGAIN)
    await baker.settled()
    baker.oven.gate.set()
    await until(lambda: got)
    await baker.settled()
    assert len(got) == 1
    assert baker.oven.done == ["Bake"]


async def test_a_copy_that_comes_after_the_answer_gets_the_same(baker):
    first, _ = await baker.ask("bake", {"n": 1}, **ID)
    copy, _ = await baker.ask("bake", {"n": 1}, **AGAIN)
    plain_copy, _ = await baker.ask("bake", {"n": 1}, **ID)
    assert first == copy == plain_copy == {"n": 1}
    assert baker.oven.done == ["Bake"]


async def test_an_error_is_remembered_like_an_answer(baker):
    async def act(request, circumstances):
        raise ValueError

    baker.oven.act = act
    assert (await baker.ask("bake", **ID))[0]["error"] == "internal"
    baker.oven.act = None
    assert (await baker.ask("bake", **AGAIN))[0]["error"] == "internal"


async def test_the_same_id_of_another_caller_is_another_request(baker):
    await baker.ask("bake", {"n": 1}, **ID)
    assert (await baker.ask("bake", {"n": 2}, vx11_request_id="r1", vx11_caller="bob"))[0] == {"n": 2}


@pytest.mark.parametrize("running", [True, False], ids=["first still runs", "first was answered"])
async def test_the_same_id_with_another_body_is_a_conflict(baker, running):
    """Nobody gets the answer to what somebody else asked, and the second is not executed under an id that has been used."""
    baker.oven.act = baker.oven.wait if running else None
    first = baker.send("bake", {"n": 1}, **ID)
    await until(lambda: baker.oven.done)
    if not running:
        await until(lambda: first)
    for head in (ID, AGAIN):
        document, headers = await baker.ask("bake", {"n": 2}, **head)
        assert (document["error"], headers[call.ERROR_CODE]) == ("conflict", "409")
    baker.oven.gate.set()
    await until(lambda: first)
    assert json.loads(first[0].data) == {"n": 1}
    assert baker.oven.done == ["Bake"]


async def test_the_same_id_on_another_verb_is_another_request(baker):
    """One thing that a user does may be several requests, all under the one Idempotency-Key."""
    assert (await baker.ask("bake", {"n": 1}, **ID))[0] == {"n": 1}
    assert (await baker.ask("knead", {"n": 1}, **ID))[0] == {"n": 1}
    assert (await baker.ask("describe", **ID))[0] == {}
    assert (await baker.ask("burn", **ID))[0]["error"] == "endpoint_not_found"
    assert baker.oven.done == ["Bake", "Knead"]


async def test_a_repeat_of_what_is_not_known_here_is_crashed_and_not_executed(baker):
    """Whoever died may have begun it."""
    document, headers = await baker.ask("bake", vx11_deadline=deadline(5), **AGAIN)
    assert (document["error"], headers[call.ERROR_CODE]) == ("crashed", "502")
    assert baker.oven.done == []


async def test_a_first_copy_that_comes_after_that_is_not_executed_either(baker):
    """The caller has been told that it crashed."""
    await baker.ask("bake", **AGAIN)
    assert (await baker.ask("bake", **ID))[0]["error"] == "crashed"
    assert baker.oven.done == []


async def test_a_first_copy_that_is_right_behind_its_repeat_is_executed_once(baker, monkeypatch):
    """It was in madre's hands, who forwards it; the repeat came by the short way."""
    monkeypatch.setattr(responder, "FIRST_COPY_S", 5.0)
    got = baker.send("bake", {"n": 1}, inbox="mine", **AGAIN)
    await baker.settled()
    assert baker.oven.done == []
    baker.send("bake", {"n": 1}, inbox="mine", **ID)
    await until(lambda: got)
    await baker.settled()
    assert [code_of(msg) for msg in got] == ["ok"]
    assert baker.oven.done == ["Bake"]


async def test_a_repeat_that_waits_is_answered_before_its_deadline(baker, monkeypatch):
    monkeypatch.setattr(responder, "FIRST_COPY_S", 5.0)
    monkeypatch.setattr(responder, "DOUBT_MARGIN_S", 0.4)
    begun = time.monotonic()
    assert (await baker.ask("bake", vx11_deadline=deadline(0.6), **AGAIN))[0]["error"] == "crashed"
    assert time.monotonic() - begun < 0.6


async def test_a_repeat_that_waits_is_answered_when_the_instance_leaves(baker, monkeypatch):
    monkeypatch.setattr(responder, "FIRST_COPY_S", 60.0)
    got = baker.send("bake", **AGAIN)
    await baker.settled()
    assert got == []
    assert baker.responder.idle_s() == 0.0
    baker.responder.disown_doubts()
    await until(lambda: got)
    assert code_of(got[0]) == "crashed"


async def test_what_may_run_twice_is_executed_whatever_happened_before(baker):
    assert (await baker.ask("knead", {"n": 4}, **AGAIN))[0] == {"n": 4}
    assert baker.oven.done == ["Knead"]


async def test_a_repeat_from_before_is_answered_even_when_it_does_not_fit(baker):
    assert (await baker.ask("knead", b"no json", **AGAIN))[0]["error"] == "invalid"
    assert (await baker.ask("burn", **AGAIN))[0]["error"] == "endpoint_not_found"
    assert (await baker.ask("describe", **AGAIN))[0] == {}


async def test_a_stream_is_sent_in_numbered_pieces_and_ends_with_the_whole(baker):
    got = baker.send("slice", {"n": 3}, vx11_stream="1")
    await until(lambda: len(got) == 4)
    assert [json.loads(msg.data) for msg in got] == [{"i": 0}, {"i": 1}, {"i": 2}, {"n": 3}]
    assert [msg.headers[call.SEQ] for msg in got] == ["0", "1", "2", "3"]
    assert [msg.headers.get(call.END) for msg in got] == [None, None, None, "ok"]
    assert {msg.headers[call.RUN] for msg in got} == {"run1"}


async def test_whoever_did_not_ask_for_a_stream_gets_the_whole_alone(baker):
    """So that `nats req` works."""
    got = baker.send("slice", {"n": 3})
    await until(lambda: got)
    await baker.settled()
    assert [json.loads(msg.data) for msg in got] == [{"n": 3}]
    assert call.SEQ not in got[0].headers


@pytest.mark.parametrize("asked", [{"vx11_stream": "1"}, {}])
async def test_a_stream_that_breaks_ends_with_its_error(baker, asked):
    async def act(request, circumstances):
        if len(baker.oven.done) == 3:
            raise ValueError("hunter2")

    baker.oven.act = act
    got = baker.send("slice", {"n": 3}, **asked)
    await until(lambda: got and call.ERROR in got[-1].headers)
    await baker.settled()
    assert [code_of(msg) for msg in got] == (["ok", "ok"] if asked else []) + ["internal"]
    assert got[-1].headers.get(call.END) == ("error" if asked else None)
    assert b"hunter2" not in got[-1].data


async def test_a_refused_stream_ends_with_its_error(baker):
    got = baker.send("slice", b"no json", vx11_stream="1")
    await until(lambda: got)
    assert (code_of(got[0]), got[0].headers[call.END]) == ("invalid", "error")


async def test_a_stream_without_a_whole_is_a_bug_of_its_handler(baker):
    async def half(request, **_):
        if request.n > 99:
            yield None

    handler = baker.responder.actor.requests["slice"]
    object.__setattr__(handler, "run", half)
    got = baker.send("slice", vx11_stream="1")
    await until(lambda: got)
    assert (code_of(got[0]), got[0].headers[call.END]) == ("internal", "error")


async def test_a_stream_is_not_run_again_for_a_copy(baker):
    """Its pieces are not kept, but that it has been is."""
    got = baker.send("slice", {"n": 2}, vx11_stream="1", inbox="mine", **ID)
    await until(lambda: len(got) == 3)
    assert (await baker.ask("slice", {"n": 2}, vx11_stream="1", **AGAIN))[0]["error"] == "crashed"
    assert len(baker.oven.done) == 2


async def test_a_copy_that_joins_a_running_stream_gets_the_whole(baker):
    baker.oven.act = baker.oven.wait
    first = baker.send("slice", {"n": 1}, vx11_stream="1", **ID)
    copy = baker.send("slice", {"n": 1}, vx11_stream="1", **AGAIN)
    await baker.settled()
    baker.oven.gate.set()
    await until(lambda: len(first) == 2 and copy)
    assert [json.loads(msg.data) for msg in copy] == [{"n": 1}]
    assert call.ERROR not in copy[0].headers
    assert len(baker.oven.done) == 1


async def test_a_stream_that_can_be_sent_nowhere_is_remembered_like_any_request(baker):
    """Else each would stay in the cache for ever."""
    headers = {"vx11-request-id": "r1", "vx11-caller": "ana", "vx11-stream": "1"}
    baker.asks.send("vx11.baker.slice", b'{"n": 1}', headers=headers)
    await until(lambda: baker.responder.stats.verbs)
    assert (await baker.ask("slice", b'{"n": 1}', **ID))[0] == {"n": 1}
    assert baker.responder._replies._running == {}
    assert baker.oven.done == ["Slice"]


async def test_a_handler_that_makes_pieces_without_a_pause_is_no_slow_reader(baker):
    """Nothing is sent while it does not wait: it is held up until there is room again."""
    many = chunks.UNSENT_MOST * 3
    got = baker.send("slice", {"n": many}, vx11_stream="1")
    await until(lambda: got and call.END in got[-1].headers)
    assert len(got) == many + 1
    assert got[-1].headers[call.END] == "ok"


async def test_a_stream_whose_small_pieces_nobody_takes_ends_with_busy(tmp_path, monkeypatch):
    """Their number is bounded, too, not only their bytes."""
    monkeypatch.setattr(chunks, "LOOKS_MOST", 5)
    with embedded(tmp_path) as server:
        async with serving(server) as baker:

            async def act(request, circumstances):
                if len(baker.oven.done) == 1:
                    freeze(server.process.pid)
                await asyncio.sleep(0)

            baker.oven.act = act
            got = baker.send("slice", {"n": 50_000}, vx11_stream="1")
            await until(lambda: baker.responder.stats.verbs)
            assert baker.wire.unsent <= chunks.UNSENT_MOST + 1
            thaw(server.process.pid)
            await until(lambda: got and call.END in got[-1].headers)
    assert (code_of(got[-1]), got[-1].headers[call.END]) == ("busy", "error")
    assert len(baker.oven.done) < 50_000


async def test_a_stream_that_nobody_takes_ends_with_busy(tmp_path, monkeypatch):
    """What waits to be sent must not fill this process: 80 MB here, of which a few are kept."""
    monkeypatch.setattr(chunks, "LOOKS_MOST", 5)
    with embedded(tmp_path) as server:
        async with serving(server) as baker:

            async def act(request, circumstances):
                if len(baker.oven.done) == 1:
                    freeze(server.process.pid)
                await asyncio.sleep(0)

            baker.oven.act = act
            got = baker.send("slice", {"n": 100, "pad": 800_000}, vx11_stream="1")
            await until(lambda: baker.responder.stats.verbs)
            assert baker.wire.pending_data_size < 8 * 2**20
            thaw(server.process.pid)
            await until(lambda: got and call.END in got[-1].headers)
    assert (code_of(got[-1]), got[-1].headers[call.END]) == ("busy", "error")


async def test_the_record_of_a_request_says_who_and_how_and_no_secret(baker):
    records: list[dict] = []
    subjects: list[str] = []
    await baker.asks.hear("vx11.calls.baker.*", lambda m: subjects.append(m.subject) or records.append(json.loads(m.data)))
    await baker.asks.barrier()
    await baker.ask("login", {"user": "ana", "password": "hunter2"}, vx11_held_ms="5", **ID)
    await baker.ask("login", {"user": "ana", "password": ["hunter2"]})
    await baker.ask("burn")
    await until(lambda: len(records) == 3)
    good, bad, unknown = records
    assert (good["request_id"], good["caller"], good["subject"], good["held_ms"]) == ("r1", "ana", "vx11.baker.login", 5)
    assert [record["code"] for record in records] == ["ok", "invalid", "endpoint_not_found"]
    assert good["instance"] == "run1"
    assert good["took_ms"] > 0 == bad["took_ms"]
    assert "hunter2" not in json.dumps(records)
    assert unknown["subject"] == "vx11.baker.burn"
    assert subjects[-1] == "vx11.calls.baker.unknown"


async def test_what_was_not_executed_twice_is_recorded_too(baker):
    records: list[dict] = []
    await baker.asks.hear("vx11.calls.baker.bake", lambda msg: records.append(json.loads(msg.data)))
    await baker.asks.barrier()
    await baker.ask("bake", **AGAIN)
    await until(lambda: records)
    assert (records[0]["code"], records[0]["request_id"]) == ("crashed", "r1")
