"""The chat: operator_backend first, madre when it cannot, as JSON and as a stream."""

from __future__ import annotations

import asyncio
import json

import pytest

from schemas.errors import Failure
from schemas.madre import MadreChatReply
from schemas.operator_backend import ChatReply
from tests.gateway.scripted import MADRE, OPERATOR, Asked, ScriptedBus
from tests.gateway.test_doors import is_error

CHAT = "/operator/api/chat"
FIELDS = {
    "response",
    "model_used",
    "model",
    "latency_ms",
    "correlation_id",
    "session_id",
    "message_id",
    "provider",
    "status",
    "degraded",
}


MADRE_SPEAKS = {"provider": "madre", "model": "madre", "characters": 0, "note": ""}


def answered(asked: Asked) -> ChatReply:
    return ChatReply(
        response=f"you said {asked.body['message']}",
        model_used="m",
        model="m",
        provider="switch",
        latency_ms=1.0,
        correlation_id=asked.headers["correlation_id"],
        session_id=asked.body["session_id"],
        message_id="message-1",
        status="ok",
        degraded=False,
    )


@pytest.fixture
def bus(bus) -> ScriptedBus:
    bus.answers[OPERATOR] = answered
    bus.answers[MADRE] = MadreChatReply(response="two actors sleep", understood=True)
    return bus


def frames(text: str) -> list[tuple[str, dict]]:
    """(event, data) of a whole stream; comments are left out."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if lines:
            found.append((lines.get("event", "message"), json.loads(lines["data"])))
    return found


async def test_a_chat_is_answered_with_every_field(link):
    reply = await link.post(CHAT, {"message": "hello"})
    assert reply.status == 200
    assert set(reply.json) >= FIELDS
    assert reply.json["response"] == "you said hello"
    assert link.bus.of(MADRE) == []


async def test_what_came_is_passed_on(link):
    body = {"message": "hi", "session_id": "s-1", "model": "m", "user_id": "ana", "metadata": {"a": 1}, "context": {"b": [2]}}
    await link.post(CHAT, body)
    (asked,) = link.bus.of(OPERATOR)
    assert asked.body == body
    assert asked.headers["vx11-caller"] == link.token.split("_")[1]
    assert asked.headers["vx11-scopes"].split() == ["admin", "chat", "command", "jobs", "power", "read"]


async def test_who_brings_no_session_gets_one(link):
    first = (await link.post(CHAT, {"message": "hi"})).json["session_id"]
    second = (await link.post(CHAT, {"message": "hi", "session_id": first})).json["session_id"]
    assert first == second == link.bus.of(OPERATOR)[0].body["session_id"]


@pytest.mark.parametrize(
    ("header", "body", "used"),
    [
        (None, "from-the-body-1", "from-the-body-1"),
        ("from-the-head-1", "from-the-body-1", "from-the-head-1"),
        ("short", "from-the-body-1", "from-the-body-1"),
    ],
)
async def test_the_conversation_of_the_body_is_honoured(link, header, body, used):
    headers = {"X-Correlation-Id": header} if header else {}
    reply = await link.post(CHAT, {"message": "hi", "correlation_id": body}, headers=headers)
    assert reply.headers["X-Correlation-Id"] == reply.json["correlation_id"] == used
    assert link.bus.of(OPERATOR)[0].headers["correlation_id"] == used


async def test_a_conversation_of_another_form_in_the_body_is_replaced(link):
    reply = await link.post(CHAT, {"message": "hi", "correlation_id": "\r\nX-Evil: 1"})
    assert reply.status == 200
    assert len(reply.json["correlation_id"]) == 36


async def test_an_idempotency_key_becomes_the_request_id(link):
    await link.post(CHAT, {"message": "hi"}, headers={"Idempotency-Key": "order-17"})
    assert link.bus.of(OPERATOR)[0].request_id == "order-17"
    assert is_error(await link.post(CHAT, {"message": "hi"}, headers={"Idempotency-Key": "a b"}), "invalid")


async def test_a_chat_that_is_sent_again_under_its_key_is_the_same_request(link):
    """A new session each time would make it another one, which is a conflict; another key begins another session."""
    for key in ("order-17", "order-17", "order-18"):
        await link.post(CHAT, {"message": "hi"}, headers={"Idempotency-Key": key})
    for _ in range(2):
        await link.post(CHAT, {"message": "hi"})
    first, again, *others = [asked.body["session_id"] for asked in link.bus.of(OPERATOR)]
    assert first == again
    assert len({first, *others}) == 4


async def test_4000_characters_are_enough(link):
    assert (await link.post(CHAT, {"message": "x" * 4_000})).status == 200
    reply = await link.post(CHAT, {"message": "x" * 4_001, "session_id": "s-1"})
    assert is_error(reply, "too_large")
    assert (reply.json["message_length"], reply.json["session_id"]) == (4_001, "s-1")
    assert len(link.bus.of(OPERATOR)) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "message"),
        ({"message": ""}, "message"),
        ({"message": 7}, "message"),
        ({"message": "hi", "session_id": "../x"}, "session_id"),
        ({"message": "hi", "mood": "good"}, "mood"),
        ({"message": "hi", "stream": "yes"}, "stream"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"", "message"),
        (b'{"message": "\xff"}', "body"),
    ],
)
async def test_what_does_not_fit_is_400_with_its_field(link, body, field):
    headers = {"Content-Type": "application/json"}
    reply = await link.post(CHAT, body, headers=headers)
    assert is_error(reply, "invalid")
    assert reply.json["field"] == field
    assert link.bus.of(OPERATOR) == []


@pytest.mark.parametrize("code", ["off_by_policy", "unavailable", "waking", "crashed", "not_found", "not_installed"])
async def test_madre_answers_when_operator_backend_cannot_and_says_so(link, code):
    link.bus.answers[OPERATOR] = Failure(code, "that is how it is", wake_ms=5)
    reply = await link.post(CHAT, {"message": "status", "session_id": "s-1", "correlation_id": "conversation-1"})
    said = reply.json
    assert reply.status == 200
    assert set(said) >= FIELDS
    assert (said["status"], said["degraded"], said["fallback_source"], said["provider"]) == (
        "degraded",
        True,
        "madre",
        "madre",
    )
    assert said["fallback_code"] == code
    assert said["reason"].startswith("operator_backend ")
    assert said["reason"].endswith(f": that is how it is ({code})")
    assert [speaker["provider"] for speaker in said["speakers"]] == ["madre"]
    assert (said["response"], said["session_id"], said["correlation_id"]) == (
        "two actors sleep",
        "s-1",
        "conversation-1",
    )
    assert link.bus.of(MADRE)[0].body == {"message": "status", "session_id": "s-1"}
    assert link.bus.of(MADRE)[0].headers["correlation_id"] == "conversation-1"
    assert reply.headers["X-Vx11-Wake-Ms"] == "5"


@pytest.mark.parametrize("code", ["busy", "timeout", "internal", "invalid", "conflict"])
async def test_other_failures_are_told_as_they_are(link, code):
    link.bus.answers[OPERATOR] = Failure(code, "no")
    assert is_error(await link.post(CHAT, {"message": "hi"}), code)
    assert link.bus.of(MADRE) == []


async def test_when_madre_cannot_either_the_first_failure_is_told_with_hers(link):
    link.bus.answers[OPERATOR] = Failure("crashed", "it died")
    link.bus.answers[MADRE] = Failure("unavailable", "nobody")
    reply = await link.post(CHAT, {"message": "hi"})
    assert is_error(reply, "crashed")
    assert reply.json["madre"] == "unavailable: nobody"


@pytest.mark.parametrize("how", ["body", "header"])
async def test_a_stream_passes_the_pieces_on_and_then_the_whole(link, how):
    whole = {"response": "ab", "degraded": False}
    link.bus.answers[OPERATOR] = [{"text": "a"}, {"text": "b"}, whole]
    body = {"message": "hi"} | ({"stream": True} if how == "body" else {})
    headers = {"Accept": "text/event-stream"} if how == "header" else {}
    reply = await link.post(CHAT, body, headers=headers)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "text/event-stream")
    assert frames(reply.text) == [("chunk", {"text": "a"}), ("chunk", {"text": "b"}), ("reply", whole)]
    assert reply.headers["X-Correlation-Id"]


async def test_pieces_are_sent_as_they_come(link):
    more = asyncio.Event()
    link.bus.answers[OPERATOR] = [{"text": "a"}, more, {"response": "ab"}]
    async with link.stream("POST", CHAT, json={"message": "hi"}) as answer:
        assert b"chunk" in await answer.content.readuntil(b"\n\n")
        more.set()
        assert b"reply" in await answer.content.readuntil(b"\n\n")


async def test_a_failure_before_the_first_piece_is_an_ordinary_error(link):
    link.bus.answers[OPERATOR] = Failure("busy", "too many")
    assert is_error(await link.post(CHAT, {"message": "hi", "stream": True}), "busy")


async def test_madre_answers_a_stream_too(link):
    link.bus.answers[OPERATOR] = Failure("off_by_policy", "closed")
    (first, chunk), (last, whole) = frames((await link.post(CHAT, {"message": "hi", "stream": True})).text)
    assert (first, last) == ("chunk", "reply")
    assert chunk == {"text": "two actors sleep", "restart": False, "speaker": MADRE_SPEAKS}
    assert (whole["degraded"], whole["fallback_source"]) == (True, "madre")


async def test_a_stream_that_breaks_off_is_begun_again_by_madre(link):
    link.bus.answers[OPERATOR] = [{"text": "a"}, Failure("crashed", "it died"), {}]
    events = frames((await link.post(CHAT, {"message": "hi", "stream": True})).text)
    assert [name for name, _ in events] == ["chunk", "chunk", "reply"]
    assert events[1][1] == {"text": "two actors sleep", "restart": True, "speaker": MADRE_SPEAKS}


async def test_a_stream_that_breaks_off_for_good_ends_with_an_error(link):
    link.bus.answers[OPERATOR] = [{"text": "a"}, Failure("internal", "a bug"), {}]
    events = frames((await link.post(CHAT, {"message": "hi", "stream": True})).text)
    assert [name for name, _ in events] == ["chunk", "error"]
    assert (events[1][1]["error"], events[1][1]["status_code"]) == ("internal", 500)


async def test_when_nobody_can_go_on_the_stream_ends_with_the_first_failure(link):
    link.bus.answers[OPERATOR] = [{"text": "a"}, Failure("crashed", "it died"), {}]
    link.bus.answers[MADRE] = Failure("unavailable", "nobody")
    events = frames((await link.post(CHAT, {"message": "hi", "stream": True})).text)
    assert (events[-1][0], events[-1][1]["error"]) == ("error", "crashed")


async def test_a_reader_that_leaves_lets_go_of_the_answer(link):
    """Else a model would go on thinking for nobody."""
    more = asyncio.Event()
    link.bus.answers[OPERATOR] = [{"text": "a"}, more, *({"text": "b" * 10_000} for _ in range(500)), {}]
    async with link.stream("POST", CHAT, json={"message": "hi"}) as answer:
        await answer.content.readuntil(b"\n\n")
        answer.close()
    more.set()
    async with asyncio.timeout(5):
        while not link.bus.closed_streams:
            await asyncio.sleep(0.001)


async def test_a_reader_that_takes_nothing_is_let_go(open_link, bus):
    bus.answers[OPERATOR] = [{"text": "b" * 100_000} for _ in range(200)]
    async with open_link(write_s=0.2) as link, link.stream("POST", CHAT, json={"message": "hi"}) as answer:
        assert answer.status == 200
        async with asyncio.timeout(5):
            while not bus.closed_streams:
                await asyncio.sleep(0.01)
