"""Intents: chat is done, the rest is refused as refused, and both can be asked for by their id."""

from __future__ import annotations

import uuid

import pytest

from schemas.errors import Failure
from tests.gateway.scripted import LIST, OPERATOR, actor, listed
from tests.gateway.test_chat import bus  # noqa: F401  # the same house
from tests.gateway.test_doors import is_error

INTENT = "/vx11/intent"


async def result(link, ident: str, **more):
    return await link.get(f"/vx11/result/{ident}", **more)


async def test_a_chat_intent_is_done_and_kept(link):
    reply = await link.post(INTENT, {"intent_type": "chat", "text": "hello", "correlation_id": "conversation-1"})
    said = reply.json
    assert (reply.status, said["status"], said["degraded"], said["stored"]) == (200, "DONE", False, True)
    assert said["response"]["response"] == "you said hello"
    assert said["correlation_id"] == reply.headers["X-Correlation-Id"] == "conversation-1"
    assert (await result(link, said["intent_id"])).json == said


@pytest.mark.parametrize("payload", [{"message": "hi"}, {"text": "hi"}, {"prompt": "hi"}])
async def test_what_is_said_may_stand_in_the_payload(link, payload):
    await link.post(INTENT, {"intent_type": "chat", "payload": payload})
    assert link.bus.of(OPERATOR)[0].body["message"] == "hi"


@pytest.mark.parametrize("kind", ["plan", "exec", "spawn"])
async def test_other_kinds_are_refused_and_reported_as_refused(link, kind):
    """The original answered `QUEUED` for work that nobody would ever do."""
    reply = await link.post(INTENT, {"intent_type": kind, "text": "x"})
    assert is_error(reply, "not_installed")
    assert reply.json["intent_status"] == "REFUSED"
    kept = (await result(link, reply.json["intent_id"])).json
    assert (kept["status"], kept["error"], kept["response"]) == ("REFUSED", "not_installed", None)
    assert link.bus.of(OPERATOR) == []


async def test_a_chat_that_needs_a_closed_switch_is_refused_by_policy(link):
    link.bus.answers[LIST] = listed(actor("switch", allowed=False, gate="closed", reason="its gate is closed"))
    reply = await link.post(INTENT, {"intent_type": "chat", "text": "x", "require": {"switch": True}})
    assert is_error(reply, "off_by_policy")
    assert (reply.json["status"], reply.json["service"]) == ("OFF_BY_POLICY", "switch")
    assert (await result(link, reply.json["intent_id"])).json["status"] == "REFUSED"


async def test_a_chat_that_fails_is_kept_as_failed(link):
    link.bus.answers[OPERATOR] = Failure("timeout", "too slow")
    reply = await link.post(INTENT, {"intent_type": "chat", "text": "x"})
    assert is_error(reply, "timeout")
    assert (await result(link, reply.json["intent_id"])).json["status"] == "FAILED"


async def test_madres_answer_is_degraded_here_too(link):
    link.bus.answers[OPERATOR] = Failure("crashed", "it died")
    assert (await link.post(INTENT, {"intent_type": "chat", "text": "x"})).json["degraded"] is True


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"intent_type": "dance", "text": "x"}, "intent_type"),
        ({"text": "x"}, "intent_type"),
        ({"intent_type": "chat"}, "text"),
        ({"intent_type": "chat", "text": "x", "priority": "P9"}, "priority"),
    ],
)
async def test_what_does_not_fit_is_400(link, body, field):
    reply = await link.post(INTENT, body)
    assert is_error(reply, "invalid")
    assert reply.json["field"] == field


async def test_an_unknown_id_is_404_and_so_is_somebody_elses(link):
    assert is_error(await result(link, str(uuid.uuid4())), "not_found")
    assert is_error(await result(link, "no-id-at-all"), "not_found")
    mine = (await link.post(INTENT, {"intent_type": "chat", "text": "x"})).json["intent_id"]
    assert is_error(await result(link, mine, token=link.new_token("chat")), "not_found")


async def test_without_redis_it_is_done_and_says_that_it_cannot_be_asked_for(link, monkeypatch):
    async def away(*_, **__):
        raise Failure("unavailable", "the cache does not answer")

    monkeypatch.setattr(link.parts.cache, "put", away)
    said = (await link.post(INTENT, {"intent_type": "chat", "text": "x"})).json
    assert (said["status"], said["stored"]) == ("DONE", False)
