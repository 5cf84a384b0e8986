"""ADR-32 on a real server: `nats micro ls` sees every actor, awake or asleep, and never wakes one."""

from __future__ import annotations

import json
from types import SimpleNamespace

import fastjsonschema
import pytest

from actors.madre.driven import Driven
from actors.madre.sleepers import Sleepers
from bus.client import Bus
from bus.discovery import Discovery
from bus.stats import Stats
from schemas.card import Card, Verb
from tests.bus.micro_schemas import SCHEMAS
from tests.bus.shop import until
from tests.bus.wires import opened

KINDS = sorted(SCHEMAS)
CARD = Card(
    name="baker",
    summary="bakes",
    version="1.2.3",
    verbs=[Verb(name="bake", subject="vx11.baker.bake"), Verb(name="slice_it", subject="vx11.baker.slice_it")],
)


def fits(kind: str, document: dict) -> None:
    fastjsonschema.compile(SCHEMAS[kind])(document)


async def asked(wire, subject: str, count: int) -> list[dict]:
    """The answers to one question; a later question to us shows when the last one is here."""
    got: list[bytes] = []
    token, reply = wire.await_answer(lambda msg: got.append(msg.data))
    wire.send(subject, reply=reply)
    await until(lambda: len([body for body in got if body]) >= count)
    wire.forget_answer(token)
    return [json.loads(body) for body in got if body]


@pytest.fixture
async def service(nats_server):
    """An awake baker, its counts, and somebody who asks."""
    async with opened(nats_server, "actor") as wire, opened(nats_server, "client") as asks:
        stats = Stats()
        await Discovery(wire, lambda: CARD, "run1", stats).open()
        await wire.barrier()
        yield asks, stats


@pytest.mark.parametrize("kind", KINDS)
async def test_every_answer_of_an_awake_actor_is_what_the_tools_expect(service, kind):
    asks, stats = service
    stats.count("bake", 0.25, "")
    stats.count("bake", 0.75, "busy")
    [document] = await asked(asks, f"$SRV.{kind}", 1)
    fits(kind, document)
    assert (document["name"], document["id"], document["version"]) == ("baker", "run1", "1.2.3")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", ["dormant", "waking", "failed", "adopting"])
async def test_every_answer_for_a_sleeper_is_what_the_tools_expect(nats_server, kind, state):
    async with opened(nats_server, "madre") as wire, opened(nats_server, "client") as asks:
        driven = sleeper(wire, state)
        await Sleepers(wire, SimpleNamespace(driven={"baker": driven})).open()
        await wire.barrier()
        [document] = await asked(asks, f"$SRV.{kind}.baker.baker-dormant", 1)
    fits(kind, document)
    assert document["metadata"] == {"vx11.state": state, "vx11.since": "2026-01-01T00:00:00Z", "vx11.reason": "idle"}


def sleeper(wire, state: str, **card) -> Driven:
    driven = Driven(Bus(wire, name="madre"), "baker", lambda *_: None)
    driven.card = CARD.model_copy(update=card)
    driven.power.state, driven.power.reason, driven.since = state, "idle", "2026-01-01T00:00:00Z"
    return driven


async def test_the_counts_are_those_of_the_verbs(service):
    asks, stats = service
    for seconds, error in ((0.25, ""), (0.5, "busy"), (0.25, "")):
        stats.count("bake", seconds, error)
    [document] = await asked(asks, "$SRV.STATS.baker", 1)
    bake, slice_it = document["endpoints"]
    assert (bake["num_requests"], bake["num_errors"], bake["last_error"]) == (3, 1, "busy")
    assert (bake["processing_time"], bake["average_processing_time"]) == (1_000_000_000, 333_333_333)
    assert (slice_it["num_requests"], slice_it["average_processing_time"]) == (0, 0)


async def test_the_endpoints_are_the_verbs_with_their_queue_group(service):
    asks, _ = service
    [document] = await asked(asks, "$SRV.INFO.baker.run1", 1)
    assert [(e["name"], e["subject"], e["queue_group"]) for e in document["endpoints"]] == [
        ("bake", "vx11.baker.bake", "baker"),
        ("slice_it", "vx11.baker.slice_it", "baker"),
    ]
    assert document["description"] == "bakes"


@pytest.mark.parametrize(
    "subject",
    ["$SRV.PING.miller", "$SRV.PING.baker.run2", "$SRV.NOISE", "$SRV.PING.baker.run1.more", "$SRV.ping", "$SRV.PING.BAKER"],
)
async def test_a_question_for_others_is_left_to_them(service, subject):
    asks, _ = service
    got: list[bytes] = []
    _, reply = asks.await_answer(lambda msg: got.append(msg.data))
    asks.send(subject, reply=reply)
    asks.send("$SRV.PING.baker", reply=reply)
    await until(lambda: any(got))
    assert [json.loads(body)["id"] for body in got if body] == ["run1"]


async def test_one_question_is_answered_by_every_copy(nats_server):
    """No queue group: a tool wants them all."""
    async with opened(nats_server, "actor") as one, opened(nats_server, "actor") as two, opened(nats_server, "client") as asks:
        for wire, run in ((one, "run1"), (two, "run2")):
            await Discovery(wire, lambda: CARD, run, Stats()).open()
            await wire.barrier()
        answers = await asked(asks, "$SRV.PING", 2)
    assert sorted(answer["id"] for answer in answers) == ["run1", "run2"]


@pytest.mark.parametrize(("state", "card"), [("active", {}), ("handover", {}), ("draining", {}), ("dormant", {"error": "no"})])
async def test_madre_is_silent_for_who_answers_for_itself_and_for_what_cannot_be_woken(nats_server, state, card):
    async with opened(nats_server, "madre") as wire, opened(nats_server, "client") as asks:
        driven = sleeper(wire, state, **card)
        other = sleeper(wire, "dormant", name="miller")
        other.name = "miller"
        await Sleepers(wire, SimpleNamespace(driven={"baker": driven, "miller": other})).open()
        await wire.barrier()
        answers = await asked(asks, "$SRV.PING", 1)
    assert [answer["name"] for answer in answers] == ["miller"]


async def test_a_sleeper_with_a_new_card_is_described_by_it(nats_server):
    async with opened(nats_server, "madre") as wire, opened(nats_server, "client") as asks:
        driven = sleeper(wire, "dormant")
        await Sleepers(wire, SimpleNamespace(driven={"baker": driven})).open()
        await wire.barrier()
        [before] = await asked(asks, "$SRV.INFO.baker", 1)
        driven.card = CARD.model_copy(update={"summary": "bakes better", "card_version": "2"})
        [after] = await asked(asks, "$SRV.INFO.baker", 1)
    assert (before["description"], after["description"]) == ("bakes", "bakes better")


async def test_an_answer_is_sent_to_inboxes_only(service, nats_server):
    """The server asks whether we may publish there, not whether the one who asks may."""
    asks, _ = service
    async with opened(nats_server, "madre") as watches:
        said: list[str] = []
        await watches.hear("vx11.madre.sleep", lambda msg: said.append(msg.subject))
        await watches.barrier()
        asks.send("$SRV.PING.baker", reply="vx11.madre.sleep")
        await asked(asks, "$SRV.PING.baker", 1)
        await watches.barrier()
    assert said == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_schemas_refuse_what_the_tools_would(kind):
    """Else the tests above could not fail."""
    good = Discovery(None, lambda: CARD, "run1", Stats()).answer(f"$SRV.{kind}")
    fits(kind, good)
    for wrong in ({"version": "1.2"}, {"id": ""}, {"name": "a.b"}, {"type": "x"}, {"metadata": {"n": 1}}, {"more": 1}):
        with pytest.raises(fastjsonschema.JsonSchemaValueException):
            fits(kind, good | wrong)
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        fits(kind, {k: v for k, v in good.items() if k != "version"})
