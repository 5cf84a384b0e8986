"""What a sleeper's stand-in answers by itself, and how it stamps what it holds."""

from __future__ import annotations

import json
import time

import pytest

from actors.madre import standin as standin_module
from bus import call
from bus.wire import Msg
from tests.bus.bakery import code_of, deadline
from tests.bus.shop import until
from tests.bus.wires import answered
from tests.madre.playground import Playground, playground


@pytest.fixture
async def ground(nats_server, tmp_path):
    async with playground(nats_server, tmp_path) as ground:
        yield ground


async def discovered(ground: Playground) -> list[dict[str, object]]:
    """Every answer to `nats micro ping baker`."""
    got: list[Msg] = []
    _, reply = ground.asks.await_answer(got.append)
    ground.asks.send("$SRV.PING.baker", b"", reply=reply)
    await until(lambda: got)
    for wire in (ground.madre._bus.wire, *(run.bus.wire for run in ground.host.started if run.code is None)):
        await wire.barrier()
    await ground.asks.barrier()
    return [json.loads(msg.data) for msg in got]


async def test_a_plain_request_gets_an_id_a_conversation_and_a_deadline(ground: Playground):
    """Without them it could be executed twice, not be found in the log, and run after its caller has gone."""
    before = time.time()
    await ground.ask()
    [heard] = ground.oven.calls
    assert heard.request_id
    assert call.CORRELATION_FORM.fullmatch(heard.correlation_id)
    assert before < heard.deadline <= time.time() + standin_module.PLAIN_HELD_S


async def test_a_request_of_a_quick_class_has_no_longer_a_deadline_than_its_class(ground: Playground):
    await ground.ask("bake")
    assert ground.oven.calls[0].deadline <= time.time() + 3.0


async def test_what_a_caller_has_said_is_kept(ground: Playground):
    head = {
        call.REQUEST_ID: "r1",
        call.CORRELATION: "conversation-1",
        call.DEADLINE: deadline(2.0),
        call.TRACEPARENT: f"00-{'a' * 32}-{'b' * 16}-01",
    }
    await ground.ask(headers=head)
    [heard] = ground.oven.calls
    assert (heard.request_id, heard.correlation_id, heard.parent) == ("r1", "conversation-1", "b" * 16)
    assert heard.traceparent[:36] == head[call.TRACEPARENT][:36]
    assert int(heard.deadline * 1000) == int(head[call.DEADLINE])


async def test_the_answer_says_how_long_the_caller_waited_for_the_wake(ground: Playground):
    ground.host.deaf = True
    got = ground.send()
    await ground.until("waking")
    begun = time.monotonic()
    await until(lambda: time.monotonic() - begun > 0.05)
    ground.host.deaf = False
    await until(lambda: got)
    assert int(got[0].headers[call.WAKE_MS]) >= 50
    assert (await ground.ask()).headers[call.WAKE_MS] == "0"


async def test_a_plain_request_is_answered_before_a_stock_client_gives_up(ground: Playground, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(standin_module, "PLAIN_HELD_S", 0.3)
    ground.host.deaf = True
    begun = time.monotonic()
    assert code_of(await ground.ask("knead")) == "waking"
    assert time.monotonic() - begun < 0.4 + 2 * standin_module.MARGIN_S


async def test_a_request_whose_deadline_has_passed_wakes_nobody(ground: Playground):
    """It woke the actor, for a caller who had gone, and was told that it is waking."""
    msg = await ground.ask(headers={call.DEADLINE: deadline(-0.01)})
    assert (code_of(msg), ground.state, ground.baker.power.wakes) == ("timeout", "dormant", 0)


async def test_a_request_with_little_time_left_wakes_for_the_next_one(ground: Playground):
    """Less than the margin in which madre answers herself: a caller in such a hurry would else never find it awake."""
    await ground.ask(headers={call.DEADLINE: deadline(0.03)})
    await ground.until("active")


async def test_a_request_that_wants_no_answer_wakes_and_is_executed(ground: Playground):
    ground.asks.send("vx11.baker.bake", b"{}")
    await until(lambda: ground.oven.done)


async def test_a_verb_that_it_does_not_have_is_refused_without_waking(ground: Playground):
    msg = await ground.ask("burn")
    assert code_of(msg) == "endpoint_not_found"
    assert json.loads(msg.data)["verbs"] == ["bake", "describe", "knead", "login", "look", "slice"]
    assert ground.state == "dormant"


async def test_a_sleeper_describes_itself_without_waking(ground: Playground):
    described = json.loads((await ground.ask("describe")).data)
    assert (described["state"], described["card"]["name"]) == ("dormant", "baker")
    assert ground.state == "dormant"


async def test_an_actor_that_cannot_be_loaded_says_why_and_is_not_woken(ground: Playground):
    ground.baker.stand_in.card = ground.host.card().model_copy(update={"error": "SyntaxError: no"})
    msg = await ground.ask()
    assert code_of(msg) == "unavailable"
    assert "SyntaxError: no" in json.loads(msg.data)["message"]
    assert ground.state == "dormant"


async def test_a_body_that_cannot_be_forwarded_is_refused_at_once(ground: Playground):
    """Found by reading: it was forwarded again every 0.25 s, for ever, and never answered."""
    body = json.dumps({"pad": "x" * (ground.asks.max_payload - 200)}).encode()
    msg = await answered(ground.asks, "vx11.baker.bake", body)
    assert code_of(msg) == "too_large"


async def test_a_stream_that_is_refused_is_told_that_it_has_ended(ground: Playground):
    ground.madre.policy.gates["baker"] = "closed"
    msg = await ground.ask("slice", headers={call.STREAM: "1"})
    assert (code_of(msg), msg.headers[call.END]) == ("off_by_policy", "error")


async def test_a_denial_says_what_to_do(ground: Playground):
    ground.madre.policy.gates["baker"] = "closed"
    told = json.loads((await ground.ask(headers={call.CORRELATION: "conversation-1"})).data)
    assert (told["status"], told["service"], told["correlation_id"]) == ("OFF_BY_POLICY", "baker", "conversation-1")
    assert "gate" in told["recommended_action"]


async def test_a_denial_is_an_event(ground: Playground):
    got: list[Msg] = []
    await ground.caller.listen("vx11.events.power.denied.baker", got.append)
    await ground.caller.wire.barrier()
    ground.madre.policy.gates["baker"] = "closed"
    await ground.ask()
    await until(lambda: got)
    assert json.loads(got[0].data)["actor"] == "baker"


CONVERSATION = {call.CORRELATION: "conversation-1", call.TRACEPARENT: call.new_traceparent()}


async def heard_of(ground: Playground, fact: str) -> list[tuple[str, str]]:
    """Conversations and traces of the power events that are to come."""
    got: list[tuple[str, str]] = []
    await ground.caller.listen(
        f"vx11.events.power.{fact}.baker",
        lambda msg: got.append((msg.headers[call.CORRELATION], msg.headers[call.TRACEPARENT][:35])),
    )
    await ground.caller.wire.barrier()
    return got


async def test_a_wake_belongs_to_the_conversation_of_the_request_that_caused_it(ground: Playground):
    """Also when it is ordered again."""
    got = await heard_of(ground, "activate")
    ground.host.deaf = True
    ground.asks.send("vx11.baker.bake", b"{}", headers=CONVERSATION)
    await until(lambda: len(got) > 1)
    assert set(got) == {("conversation-1", CONVERSATION[call.TRACEPARENT][:35])}


async def test_an_ordered_wake_belongs_to_the_conversation_of_the_order(ground: Playground):
    got = await heard_of(ground, "activate")
    await answered(ground.asks, "vx11.madre.wake", b'{"name": "baker"}', CONVERSATION)
    assert got == [("conversation-1", CONVERSATION[call.TRACEPARENT][:35])]


async def test_a_denial_belongs_to_the_conversation_of_the_request(ground: Playground):
    got = await heard_of(ground, "denied")
    ground.madre.policy.gates["baker"] = "closed"
    await ground.ask(headers=CONVERSATION)
    await until(lambda: got)
    assert got == [("conversation-1", CONVERSATION[call.TRACEPARENT][:35])]


async def test_a_failure_to_wake_belongs_to_the_conversation_of_the_request(ground: Playground, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("actors.madre.power.GIVE_UP_S", 0.3)
    got = await heard_of(ground, "failed")
    ground.host.deaf = True
    await ground.ask(headers=CONVERSATION)
    await until(lambda: got)
    assert got == [("conversation-1", CONVERSATION[call.TRACEPARENT][:35])]


@pytest.mark.parametrize(
    ("code", "verb", "token"),
    [
        ("off_by_policy", "bake", "bake"),
        ("endpoint_not_found", "burn", "unknown"),
        ("endpoint_not_found", "BURN", "unknown"),
        ("unavailable", "bake", "unknown"),
        ("too_large", "bake", "bake"),
    ],
)
async def test_an_answer_in_the_actors_place_is_recorded(ground: Playground, code: str, verb: str, token: str):
    """Whoever gives an answer records it: else a refusal would be in no log. It told of no caller, and of few refusals."""
    got: list[Msg] = []
    await ground.caller.listen("vx11.calls.baker.>", got.append)
    await ground.caller.wire.barrier()
    if code == "off_by_policy":
        ground.madre.policy.gates["baker"] = "closed"
    if code == "unavailable":
        ground.baker.stand_in.card = ground.host.card().model_copy(update={"error": "SyntaxError: no", "verbs": []})
    body = b"x" * (ground.asks.max_payload - 400 if code == "too_large" else 2)
    head = {call.CORRELATION: "conversation-1", call.CALLER: "client", call.REQUEST_ID: "r1"}
    assert code_of(await answered(ground.asks, f"vx11.baker.{verb}", body, head)) == code
    await until(lambda: got)
    note = json.loads(got[0].data)
    assert (got[0].subject, note["subject"]) == (f"vx11.calls.baker.{token}", f"vx11.baker.{verb}")
    assert (note["code"], note["instance"], note["correlation_id"]) == (code, "madre", "conversation-1")
    assert (note["caller"], note["request_id"]) == ("client", "r1")


@pytest.mark.parametrize("awake", [False, True])
async def test_discovery_finds_it_once_asleep_or_awake(ground: Playground, awake):
    """Two answers for one actor make `nats micro ls` show it twice."""
    if awake:
        await ground.ask()
        await ground.until("active")
    [found] = await discovered(ground)
    assert found["name"] == "baker"
    assert (found["id"] == "baker-dormant") is not awake
