"""A request that two instances did not survive in madre's hands is a dead letter: once, and without its secrets."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from actors.keeper.dead import DeadLetters
from actors.madre.effects import Held
from actors.madre.kept import KeptCard
from actors.madre.voice import Voice
from bus import dead
from schemas.card import Card, Verb
from schemas.dead import GetDead, ListDead
from tests.bus.shop import connected, make_streams

SCHEMA = {"properties": {"phrase": {"type": "string", "secret": True}, "n": {"type": "integer"}}}
VERB = Verb(name="bake", subject="vx11.baker.bake", summary="bakes", request=SCHEMA, reply={}, timeout=1.0, scope="command")
BAKER = SimpleNamespace(name="baker", card=KeptCard.of(Card(name="baker", summary="bakes", version="1.0.0", verbs=[VERB])))


@pytest.fixture
async def madre(nats_server):
    async with connected(nats_server, "madre") as bus:
        for name in (await bus.api("$JS.API.STREAM.NAMES"))["streams"] or ():
            await bus.api(f"$JS.API.STREAM.DELETE.{name}")
        await make_streams(bus)
        yield bus


def held(body: bytes, **headers: str) -> Held:
    return Held("bake", "", body, {"vx11-request-id": "r1", **headers}, expires=0.0, arrived=0.0, kills=2)


async def stored(madre) -> None:
    """Wait for a letter, and then for what came after it: the server takes a message before its stream has it."""
    async with asyncio.timeout(10):
        while not (await DeadLetters(madre).list(ListDead())).letters:
            await asyncio.sleep(0.005)
    await madre.publish_raw("vx11.dlq.none.none", b"{}")
    await madre.api("$JS.API.STREAM.PURGE.VX11_DLQ", json.dumps({"filter": "vx11.dlq.none.none"}).encode())


async def test_it_is_buried_once_whoever_notices(madre):
    """The client that asked may have noticed, too."""
    voice = Voice(madre)
    for _ in range(2):
        voice.bury(BAKER, held(b'{"n": 1}', correlation_id="conversation-1"))
    await stored(madre)
    [letter] = (await DeadLetters(madre).list(ListDead())).letters
    assert (letter.actor, letter.subject, letter.reason) == ("baker", "vx11.baker.bake", "crashed")
    assert (letter.detail, letter.correlation_id) == ("2 instances died while they had this request", "conversation-1")


async def test_what_its_class_calls_secret_is_not_in_it(madre):
    Voice(madre).bury(BAKER, held(b'{"n": 1, "phrase": "open sesame"}'))
    await stored(madre)
    shown = await DeadLetters(madre).get(GetDead(sequence=1))
    assert json.loads(shown.body) == {"n": 1, "phrase": "***"}


async def test_one_that_was_asked_again_for_its_letter_has_no_second(madre):
    Voice(madre).bury(BAKER, held(b"{}", **{dead.RETRY_OF: "1"}))
    await madre.wire.barrier()
    assert (await DeadLetters(madre).list(ListDead())).letters == []
