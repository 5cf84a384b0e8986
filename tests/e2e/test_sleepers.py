"""Everything but the three sleeps, wakes when it is asked, and sleeps again; a look wakes nobody and keeps nobody awake."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from schemas.operator_backend import ChatReply
from tests.e2e.house import KNOWN, House
from tests.e2e.services import KINDS, services
from tests.switch.scripted import says

IDLE_S = 0.5
VARIABLES = {"VX11_IDLE_AFTER": str(IDLE_S)}
BEAT_S = IDLE_S / 2
PROMISED_S = 2.0
SLACK_S = 3.0
"""For a drain on a busy machine."""
LOOK_EVERY_S = IDLE_S / 5
"""A look each second is to an idle time of 5 s what this is to IDLE_S."""
LOOKS = (
    "/health",
    "/health/ready",
    "/vx11/status",
    "/operator/api/status",
    "/operator/api/config",
    "/operator/api/metrics",
    "/operator/api/events",
    "/operator/api/usage",
    "/operator/capabilities",
    "/api/map",
    "/madre/power/status",
    "/madre/power/policy/solo_madre/status",
    "/madre/power/window",
    "/metrics",
    "/openapi.json",
)
TALK = {"operator_backend", "switch"}


def activated(events) -> list[str]:
    """The actors that were woken, in order. An order is repeated until it is heard, with the same id."""
    woken = {json.loads(one.body)["id"]: one.subject for one in events if ".power.activate." in one.subject}
    return [subject.rsplit(".", 1)[1] for subject in woken.values()]


async def test_after_the_start_everything_but_the_three_sleeps(home: House) -> None:
    """A process that nobody has asked for costs memory that nobody has offered. This test is the first of its file."""
    states = await home.states()
    assert set(states) == KNOWN
    assert set(states.values()) == {"dormant"}
    assert activated(await home.events(0)) == []
    policy = (await home.get("/madre/power/policy/solo_madre/status")).json
    assert policy["policy_active"] is True
    assert sorted(policy["running_services"]) == sorted(policy["expected_services"]) == ["madre", "redis", "tentaculo_link"]


async def test_a_chat_wakes_who_it_needs_on_its_way(home: House) -> None:
    await home.sleep(*TALK)
    before = await home.last_event()
    answer = await home.chat("hello")
    assert answer.status == 200
    assert int(answer.headers["X-Vx11-Wake-Ms"]) > 0
    assert activated(await home.events(before)) == ["operator_backend", "switch"]


async def test_a_second_chat_finds_them_awake(home: House) -> None:
    await home.chat("hello")
    before = await home.last_event()
    answer = await home.chat("hello again")
    assert answer.status == 200
    assert "X-Vx11-Wake-Ms" not in answer.headers
    assert activated(await home.events(before)) == []


async def test_an_answer_has_all_fields_of_the_contract(home: House) -> None:
    """Without a model madre answers, and says so."""
    answer = (await home.chat("hello", body={"session_id": "first", "user_id": "ana", "context": {"page": 1}})).json
    assert set(answer) == set(ChatReply.model_fields)
    assert answer["response"]
    assert answer["model_used"] == answer["model"] == answer["provider"] == answer["fallback_source"] == "madre"
    assert answer["session_id"] == "first"
    assert (answer["status"], answer["degraded"], answer["history"]) == ("degraded", True, "stored")
    assert "no language model is configured" in answer["reason"]
    assert answer["latency_ms"] > 0
    assert answer["message_id"]
    assert answer["correlation_id"]


async def test_a_model_answers_where_there_is_one(home: House) -> None:
    """Switch first: the original never got a word out of it. The providers are read at once, also by who is awake."""
    async with home.model(says("Good morning, ", "Ana.")) as model:
        answer = (await home.chat("good morning")).json
    assert answer["response"] == "Good morning, Ana."
    assert (answer["model"], answer["provider"]) == ("tiny", "studio")
    assert (answer["status"], answer["degraded"], answer["fallback_source"], answer["fallback_code"]) == ("ok", False, None, None)
    assert model.asked[0].document["messages"][-1] == {"role": "user", "content": "good morning"}


async def test_they_go_back_to_sleep_by_themselves(home: House) -> None:
    await home.sleep(*TALK)
    before = await home.last_event()
    await talk(home)
    await home.asleep(*TALK, seconds=IDLE_S + BEAT_S + SLACK_S)
    events = await home.events(before)
    slept = {json.loads(one.body)["actor"] for one in events if ".power.slept." in one.subject}
    why = {json.loads(one.body)["reason"] for one in events if ".power.draining." in one.subject}
    assert slept == TALK
    assert why in ({"idle for 0 s"}, {"idle for 1 s"})


async def test_an_answer_that_may_be_asked_for_again_keeps_its_actor_awake(home: House) -> None:
    """A repeat of the same request must find what was answered: it may not be executed twice."""
    body = json.dumps({"message": "hello"}).encode()
    async with home.bus() as bus, home.model(says("Yes.")):
        begun = time.monotonic()
        await bus.ask("vx11.operator_backend.chat", body, timeout=PROMISED_S)
        await home.asleep("operator_backend", seconds=PROMISED_S + IDLE_S + BEAT_S + SLACK_S)
    assert time.monotonic() - begun > PROMISED_S


@pytest.mark.parametrize("asleep", [True, False], ids=["a sleeper", "who is awake"])
async def test_a_look_wakes_nobody_and_keeps_nobody_awake(home: House, asleep: bool) -> None:
    """Between the two numbers of the log there are looks only, for longer than the idle time."""
    await home.sleep(*TALK)
    if not asleep:
        await talk(home)
    begun, before = time.monotonic(), await home.last_event()
    slept_after = 0.0
    async with home.stock() as client:
        while not slept_after or time.monotonic() - begun < 2 * IDLE_S:
            await look(home, client)
            if not slept_after and {(await home.states())[name] for name in TALK} == {"dormant"}:
                slept_after = time.monotonic() - begun
            assert time.monotonic() - begun < IDLE_S + BEAT_S + SLACK_S, f"kept awake: {await home.states()}"
    assert time.monotonic() - begun > IDLE_S
    assert activated(await home.events(before)) == []


async def talk(home: House) -> None:
    """A streamed answer is not remembered, unless it is an error: nothing but the idle time keeps them awake after it."""
    async with home.model(says("Yes.")):
        assert (await home.chat_stream("hello"))[-1].data["provider"] == "studio"


async def look(home: House, client) -> None:
    """Everything that looks, once."""
    for path in LOOKS:
        assert (await home.get(path)).status == 200
    assert (await home.post("/operator/capabilities")).status == 200
    for kind in KINDS:
        assert set(await services(client, kind)) == KNOWN | {"madre"}
    for name in TALK:
        described = json.loads((await client.request(f"vx11.{name}.describe")).data)
        assert described["card"]["name"] == name
        for verb in ("get_actor", "explain"):
            await client.request(f"vx11.madre.{verb}", json.dumps({"name": name}).encode())
    entries = await client.jetstream().key_value("VX11_ACTORS")
    assert json.loads((await entries.get("switch")).value)["actor"] == "switch"
    await asyncio.sleep(LOOK_EVERY_S)
