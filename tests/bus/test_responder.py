"""Always an answer: to what is asked well, badly, too often, too late, and of a handler with a bug."""

from __future__ import annotations

import asyncio
import json
import time
from contextvars import ContextVar

import pytest

from bus import call, responder
from bus.nats_server import embedded
from schemas.errors import CODES, Failure
from tests.bus.bakery import Loaf, code_of, deadline, serving
from tests.bus.shop import until


@pytest.fixture
async def baker(nats_server):
    async with serving(nats_server) as baker:
        yield baker


async def test_a_plain_request_is_answered(baker):
    """`nats req vx11.baker.bake '{"n": 3}'`: no header needed."""
    document, headers = await baker.ask("bake", {"n": 3})
    assert document == {"n": 3}
    assert call.ERROR not in headers
    assert call.CORRELATION_FORM.fullmatch(headers[call.CORRELATION])
    assert headers[call.RUN] == "run1"


async def test_an_empty_body_is_a_request_with_its_defaults(baker):
    document, _ = await baker.ask("bake", b"")
    assert document == {"n": 0}


async def test_the_answer_belongs_to_the_conversation(baker):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    _, headers = await baker.ask("bake", correlation_id="x", vx11_held_ms="17", traceparent=trace)
    assert headers[call.WAKE_MS] == "17"
    assert (headers[call.TRACEPARENT][:36], headers[call.TRACEPARENT][52:]) == (trace[:36], trace[52:])
    document, _ = await baker.ask("bake", {"n": "x"})
    assert document["correlation_id"]


async def test_a_handler_knows_its_circumstances_also_deep_inside(baker):
    """What it sends carries them on by itself."""
    seen = []

    async def act(request, circumstances):
        seen.append((circumstances.caller, call.current.get() is circumstances))

    baker.oven.act = act
    await baker.ask("bake", vx11_caller="ana")
    assert seen == [("ana", True)]


@pytest.mark.parametrize("body", [b"no json", b"\xff", b"[]", b"3", b'{"n": "three"}', b'{"n": 1, "m": 2}'])
async def test_a_body_that_does_not_fit_is_invalid_and_not_executed(baker, body):
    document, headers = await baker.ask("bake", body)
    assert (document["error"], headers[call.ERROR_CODE]) == ("invalid", "400")
    assert baker.oven.done == []


async def test_invalid_says_which_field_and_never_the_value(baker):
    """It may be a password with a typing error around it."""
    document, headers = await baker.ask("login", {"user": "ana", "password": ["hunter2"], "pin": "hunter3"})
    assert {problem["field"] for problem in document["problems"]} == {"password", "pin"}
    assert "hunter" not in json.dumps([document, dict(headers)])


async def test_an_unknown_verb_is_told_those_that_there_are(baker):
    document, headers = await baker.ask("burn")
    assert document["error"] == "endpoint_not_found"
    assert document["verbs"] == ["bake", "describe", "knead", "login", "look", "slice"]
    assert headers[call.ERROR_CODE] == "404"
    assert baker.responder.stats.verbs == {}, "a stranger's words are not kept"


@pytest.mark.parametrize("verb", ["oven.bake", "bake.describe", "inst.baker.run1.bake"])
async def test_what_only_ends_like_a_verb_is_none(baker, verb):
    """Awake and asleep the same subjects are answered, and nothing is executed by a name that is in no card."""
    assert (await baker.ask(verb))[0]["error"] == "endpoint_not_found"
    assert baker.oven.done == []


async def test_every_actor_describes_itself(nats_server):
    async with serving(nats_server, describe=b'{"card": 1}') as baker:
        assert (await baker.ask("describe"))[0] == {"card": 1}


async def test_a_bug_in_a_handler_is_internal_and_shows_nothing(baker, caplog):
    async def act(request, circumstances):
        raise RuntimeError("the password is hunter2")

    baker.oven.act = act
    document, headers = await baker.ask("bake")
    assert document["error"] == "internal"
    assert "hunter2" not in json.dumps([document, dict(headers)])
    assert "the password is hunter2" in caplog.text
    assert document["correlation_id"] in caplog.text


async def test_a_handler_that_returns_something_else_is_internal(baker):
    async def act(request, circumstances):
        return "a string"

    baker.oven.act = act
    assert (await baker.ask("bake"))[0]["error"] == "internal"


@pytest.mark.parametrize("code", sorted(CODES))
async def test_a_failure_of_the_handler_is_the_answer(baker, code):
    async def act(request, circumstances):
        raise Failure(code, "no flour", shop="closed")

    baker.oven.act = act
    document, headers = await baker.ask("bake")
    assert (document["error"], document["message"], document["shop"]) == (code, "no flour", "closed")
    assert headers[call.ERROR_CODE] == str(CODES[code].status)
    assert headers[call.ERROR] == f"{code}: no flour"


async def test_a_failure_that_names_a_file_which_is_no_utf8_is_answered(baker):
    async def act(request, circumstances):
        raise Failure("not_found", "there is no caf\udce9.wav")

    baker.oven.act = act
    assert (await baker.ask("bake"))[0]["message"] == "there is no caf\udce9.wav"


async def test_a_cancelled_handler_is_answered_and_the_next_one_runs(baker):
    """A CancelledError that got out would end the subscription for good."""

    async def act(request, circumstances):
        raise asyncio.CancelledError

    baker.oven.act = act
    assert (await baker.ask("bake"))[0]["error"] == "cancelled"
    baker.oven.act = None
    assert (await baker.ask("bake"))[0] == {"n": 0}


async def test_an_answer_that_is_too_large_is_told_so(baker):
    async def act(request, circumstances):
        return Loaf.model_construct(n="x" * 2_000_000)

    baker.oven.act = act
    with pytest.warns(UserWarning, match="serialized value"):
        document, headers = await baker.ask("bake")
    assert (document["error"], headers[call.ERROR_CODE]) == ("too_large", "413")


async def test_the_error_header_is_one_line_of_bounded_length(baker):
    async def act(request, circumstances):
        raise Failure("conflict", "line one\r\nline two " + "x" * 5_000)

    baker.oven.act = act
    _, headers = await baker.ask("bake")
    assert len(headers[call.ERROR]) <= 300
    assert set(headers) == {call.CORRELATION, call.TRACEPARENT, call.WAKE_MS, call.RUN, call.ERROR, call.ERROR_CODE}


async def test_handlers_run_at_the_same_time_up_to_the_limit_and_the_rest_waits_its_turn(nats_server):
    async with serving(nats_server, concurrency=2, queue=10) as baker:
        baker.oven.act = baker.oven.wait
        answers = [baker.send("bake", {"n": n}) for n in range(5)]
        await until(lambda: baker.responder.in_flight == 5)
        assert len(baker.oven.done) == 2
        baker.oven.gate.set()
        await until(lambda: all(answers))
    assert [json.loads(got[0].data)["n"] for got in answers] == [0, 1, 2, 3, 4]


async def test_what_waited_its_turn_inherits_nothing_of_the_one_before(nats_server):
    """It is started as that one ends."""
    basket: ContextVar[str] = ContextVar("basket", default="empty")
    seen: list[str] = []

    async def act(request, circumstances):
        seen.append(basket.get())
        basket.set("full")
        await baker.oven.gate.wait()

    async with serving(nats_server, concurrency=1) as baker:
        baker.oven.act = act
        answers = [baker.send("bake", {"n": n}) for n in range(3)]
        await until(lambda: baker.responder.in_flight == 3)
        baker.oven.gate.set()
        await until(lambda: all(answers))
    assert seen == ["empty"] * 3


async def test_beyond_limit_and_queue_it_is_busy_and_surely_not_executed(nats_server):
    async with serving(nats_server, concurrency=1, queue=1) as baker:
        baker.oven.act = baker.oven.wait
        taken = [baker.send("bake", {"n": n}) for n in range(2)]
        await until(lambda: baker.responder.in_flight == 2)
        document, headers = await baker.ask("bake", {"n": 9}, vx11_request_id="r9")
        assert (document["error"], document["retry_after"], headers[call.ERROR_CODE]) == ("busy", 1, "429")
        baker.oven.gate.set()
        await until(lambda: all(taken))
        assert (await baker.ask("bake", {"n": 9}, vx11_request_id="r9"))[0] == {"n": 9}, "the same id may ask again"
    assert len(baker.oven.done) == 3


async def test_what_has_waited_beyond_its_deadline_is_never_executed(nats_server):
    async with serving(nats_server, concurrency=1) as baker:
        baker.oven.act = baker.oven.wait
        first = baker.send("bake", {"n": 1})
        late = baker.send("bake", {"n": 2}, vx11_deadline=deadline(0.05))
        await until(lambda: baker.responder.in_flight == 2)
        ends = time.time() + 0.06
        await until(lambda: time.time() > ends)
        baker.oven.gate.set()
        await until(lambda: first and late)
    assert (code_of(first[0]), code_of(late[0])) == ("ok", "timeout")
    assert len(baker.oven.done) == 1


async def test_a_request_that_comes_too_late_is_not_executed(baker):
    assert (await baker.ask("bake", vx11_deadline=deadline(-1)))[0]["error"] == "timeout"
    assert baker.oven.done == []


async def stand_still(baker, monkeypatch) -> None:
    """The whole process, while what was sent to it waits in its socket."""
    monkeypatch.setattr(responder, "FROZEN_S", 0.2)
    reading = baker.wire._line.transport
    reading.pause_reading()
    await baker.asks.barrier()
    time.sleep(0.3)  # noqa: ASYNC251 - nothing runs
    reading.resume_reading()


async def test_a_process_that_was_stopped_answers_plain_requests_of_that_time_with_timeout(baker, monkeypatch):
    """Whoever sent them has gone; whoever set a deadline has said when."""
    plain = baker.send("bake", {"n": 1})
    dated = baker.send("bake", {"n": 2}, vx11_deadline=deadline(60))
    await stand_still(baker, monkeypatch)
    await until(lambda: plain and dated)
    assert (code_of(plain[0]), code_of(dated[0])) == ("timeout", "ok")
    await baker.settled()
    assert (await baker.ask("bake", {"n": 3}))[0] == {"n": 3}, "what comes afterwards is served"
    assert len(baker.oven.done) == 2


async def test_the_first_look_at_the_clock_after_a_stop_notices_it(baker, monkeypatch):
    """The timer may run before the requests that waited are read."""
    plain = baker.send("bake", {"n": 1})
    await stand_still(baker, monkeypatch)
    baker.responder.tick()
    await until(lambda: plain)
    assert code_of(plain[0]) == "timeout"


async def test_a_clock_that_is_looked_at_in_time_is_no_stop(baker, monkeypatch):
    monkeypatch.setattr(responder, "FROZEN_S", 0.2)
    for _ in range(3):
        await asyncio.sleep(0.1)
        baker.responder.tick()
    assert (await baker.ask("bake", {"n": 1}))[0] == {"n": 1}


async def test_a_look_does_not_keep_it_awake(baker):
    """A console that looks every second must not cost an actor its sleep."""
    baker.responder.last_active -= 100
    await baker.ask("bake", vx11_passive="1", vx11_request_id="r1", vx11_deadline=deadline(60))
    await baker.ask("look", vx11_request_id="r2", vx11_deadline=deadline(60))
    await baker.ask("look")
    await baker.ask("describe")
    await baker.responder.idle()
    assert baker.responder.idle_s() >= 100
    await baker.ask("bake")
    await baker.responder.idle()
    assert baker.responder.idle_s() < 50


async def test_while_an_answer_may_still_be_asked_for_again_it_is_not_idle(baker):
    """Asleep it would have forgotten it, and the repeat would be `crashed`; what may run twice need not be remembered."""
    await baker.ask("knead", vx11_request_id="r1", vx11_deadline=deadline(60))
    await baker.responder.idle()
    baker.responder.last_active -= 100
    assert baker.responder.idle_s() >= 100
    await baker.ask("bake", vx11_request_id="r2", vx11_deadline=deadline(0.3))
    await baker.responder.idle()
    baker.responder.last_active -= 100
    assert baker.responder.idle_s() == 0.0
    await until(lambda: baker.responder.idle_s() >= 100)


async def test_it_is_idle_when_the_last_of_them_has_been_answered(baker):
    """An instance that leaves waits for this."""

    async def act(request, circumstances):
        if request.n:
            await baker.oven.gate.wait()

    baker.oven.act = act
    long = baker.send("bake", {"n": 1})
    await baker.ask("bake", {"n": 0})
    idle = asyncio.create_task(baker.responder.idle())
    await baker.settled()
    assert (idle.done(), baker.responder.in_flight, baker.responder.idle_s()) == (False, 1, 0.0)
    baker.oven.gate.set()
    await idle
    await until(lambda: long)


async def test_a_receipt_is_given_before_the_handler_starts(baker):
    """madre repeats a forward until she has it."""
    got = []
    _, receipts = baker.asks.await_answer(lambda msg: got.append((msg.data, list(baker.oven.done))))
    baker.oven.act = baker.oven.wait
    baker.send("bake", vx11_forward=f"{receipts} 17")
    await until(lambda: got)
    assert got[0][0] == b"baker 17"


async def test_receipts_and_answers_go_to_inboxes_only(baker):
    """The server asks whether we may publish there, not whether the one who asks may."""
    said: list[str] = []
    await baker.asks.hear("vx11.madre.*", lambda msg: said.append(msg.subject))
    await baker.asks.barrier()
    baker.asks.send("vx11.baker.bake", b"{}", reply="vx11.madre.sleep", headers={call.FORWARD: "vx11.madre.wake 1"})
    await until(lambda: baker.oven.done)
    await baker.responder.idle()
    await baker.settled()
    assert said == []


async def test_a_request_without_a_reply_is_executed_all_the_same(baker):
    baker.asks.send("vx11.baker.bake", b"{}")
    await until(lambda: baker.oven.done)


async def test_without_a_server_an_answer_is_dropped_and_nothing_breaks(tmp_path):
    with embedded(tmp_path) as server:
        async with serving(server) as baker:
            baker.oven.act = baker.oven.wait
            baker.send("bake")
            await until(lambda: baker.oven.done)
            server.kill()
            await until(lambda: not baker.wire.is_connected)
            baker.oven.gate.set()
            await baker.responder.idle()
            server.start()
            await until(lambda: baker.wire.is_connected and baker.asks.is_connected)
            await baker.settled()
            assert (await baker.ask("bake", {"n": 2}))[0] == {"n": 2}


async def test_counts_are_kept_by_verb(baker):
    async def act(request, circumstances):
        if request.n:
            raise Failure("conflict", "no")

    baker.oven.act = act
    await baker.ask("bake")
    await baker.ask("bake", {"n": 1})
    await baker.ask("bake", b"no json")
    baker.oven.act = None
    await baker.ask("look")
    await baker.responder.idle()
    counted = baker.responder.stats.verbs
    assert (counted["bake"].requests, counted["bake"].errors, counted["bake"].last_error) == (3, 2, "invalid")
    assert (counted["look"].requests, counted["look"].errors) == (1, 0)
