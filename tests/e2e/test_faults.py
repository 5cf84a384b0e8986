"""What the people at the door see of the death of each part: an answer, or one clear error, and soon everything as before."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time

import aiohttp
import pytest

from tests.e2e.house import House, until
from tests.switch.scripted import cuts_after, says, stays_silent

PARTS = ("madre", "host", "nats-server", "redis", "tentaculo_link")
AGAIN_S = 10.0
"""Itself again without a hand."""
VARIABLES = {"VX11_CHAT_FIRST_WORD_S": "2"}


async def whole(home: House) -> bool:
    """Everything is up, and a chat is answered by those whose work it is."""
    try:
        status = (await home.get("/vx11/status")).json
        answer = await home.chat("hello")
    except aiohttp.ClientError:
        return False
    return status["status"] == "ok" and answer.status == 200 and answer.json["history"] == "stored"


@pytest.mark.parametrize("part", PARTS)
async def test_it_is_itself_again_soon_after_the_death_of_any_part(home: House, part: str) -> None:
    begun = time.monotonic()
    await home.back(part, await home.kill(part))
    await until(lambda: whole(home), f"all is well after the death of {part}", AGAIN_S)
    assert time.monotonic() - begun < AGAIN_S


@pytest.mark.parametrize("part", ["madre", "host", "nats-server", "redis"])
async def test_whoever_asks_at_the_moment_of_a_death_gets_one_answer(home: House, part: str) -> None:
    """Ten are under way and ten come just after: each gets an answer that it can understand, in time."""
    asked = [asyncio.create_task(home.chat(f"hello {n}")) for n in range(10)]
    born = await home.kill(part)
    asked += [asyncio.create_task(home.chat(f"hello again {n}")) for n in range(10)]
    answers = await asyncio.gather(*asked)
    assert {answer.status for answer in answers} <= {200, 502, 503}, [answer.text for answer in answers]
    for answer in answers:
        assert answer.json["response"] if answer.status == 200 else answer.json["error"] in ("crashed", "unavailable", "waking")
    await home.back(part, born)
    await until(lambda: whole(home), "all is well", AGAIN_S)


# -- redis ---------------------------------------------------------------------------------------------------------------


async def test_without_redis_the_chat_answers_and_says_that_there_is_no_history(home: House) -> None:
    """Redis is a cache: a person is answered without it. Frozen is worse than dead: nothing says that it is away."""
    await until(lambda: whole(home), "all is well", AGAIN_S)
    async with home.model(says("Yes.")):
        with home.frozen(home.pid("redis")):
            answer = await home.chat("hello", body={"session_id": "away"})
            status = (await home.get("/operator/api/status")).json
    assert (answer.status, answer.json["history"]) == (200, "unavailable")
    assert (answer.json["response"], answer.json["provider"]) == ("Yes.", "studio")
    assert (status["status"], status["core_services"]["redis"]) == ("degraded", False)


async def test_without_redis_the_session_list_says_so(home: House) -> None:
    with home.frozen(home.pid("redis")):
        answer = await home.post("/call/operator_backend/list_sessions")
        token = await home.post("/operator/api/events/sse-token")
    assert (answer.status, answer.json["error"]) == (503, "unavailable")
    assert (token.status, token.json["error"]) == (503, "unavailable")


async def test_the_history_survives_the_death_of_redis(home: House) -> None:
    """Until the vault exists it is the only copy."""
    await until(lambda: whole(home), "all is well", AGAIN_S)
    assert (await home.chat("remember me", body={"session_id": "kept"})).json["history"] == "stored"
    await home.back("redis", await home.kill("redis"))

    async def there() -> bool:
        return (await home.post("/call/operator_backend/get_session", {"session_id": "kept"})).status == 200

    await until(there, "the session can be read again", AGAIN_S)
    session = (await home.post("/call/operator_backend/get_session", {"session_id": "kept"})).json
    assert [line["role"] for line in session["lines"]] == ["user", "assistant"]
    assert session["lines"][0]["text"] == "remember me"


# -- actors --------------------------------------------------------------------------------------------------------------


async def test_the_death_of_operator_backend_in_the_middle_is_answered_by_madre(home: House) -> None:
    """The chat is no idempotent request: it is not asked twice, but the person gets an answer, and the reason."""
    async with home.model(stays_silent) as model:
        asking = asyncio.create_task(home.chat("hello"))
        await model.requests(1)
        os.kill((await home.status("operator_backend"))["pid"], signal.SIGKILL)
        answer = await asking
    assert (answer.status, answer.json["provider"], answer.json["degraded"]) == (200, "madre", True)
    assert "crashed" in answer.json["reason"]


async def test_the_death_of_switch_in_the_middle_is_answered_by_madre(home: House) -> None:
    async with home.model(stays_silent) as model:
        asking = asyncio.create_task(home.chat("hello"))
        await model.requests(1)
        os.kill((await home.status("switch"))["pid"], signal.SIGKILL)
        answer = await asking
    assert (answer.status, answer.json["provider"], answer.json["history"]) == (200, "madre", "stored")
    assert "switch was cut off" in answer.json["reason"]


async def test_a_model_that_is_cut_off_in_mid_stream_is_replaced_by_madre(home: House) -> None:
    """What was said until then is taken back: half an answer is worse than another's."""
    async with home.model(cuts_after("Half of")):
        events = await home.chat_stream("hello")
    assert [event.name for event in events] == ["chunk", "chunk", "reply"]
    assert [event.data.get("restart") for event in events[:2]] == [False, True]
    assert events[-1].data["provider"] == "madre"
    assert events[-1].data["degraded"] is True


async def test_a_model_that_says_nothing_is_not_waited_for_for_ever(home: House) -> None:
    async with home.model(stays_silent):
        begun = time.monotonic()
        answer = (await home.chat("hello")).json
    assert answer["provider"] == "madre"
    assert "did not say its first word" in answer["reason"]
    assert time.monotonic() - begun < 5.0


async def test_a_call_that_may_not_be_repeated_is_not(home: House) -> None:
    """The instance dies with it in its hands: whether it was done is unknown, and that is the answer."""
    writing = asyncio.create_task(home.post("/call/notebook/write", {"text": "perhaps", "seconds": 30}))
    await home.begun("perhaps")
    os.kill((await home.status("notebook"))["pid"], signal.SIGKILL)
    answer = await writing
    assert (answer.status, answer.json["error"]) == (502, "crashed")
    lines = (await home.post("/call/notebook/list_lines")).json["lines"]
    assert "perhaps" not in [line["text"] for line in lines]


async def test_a_call_that_may_be_repeated_is_answered_all_the_same(home: House) -> None:
    await home.order("wake", name="notebook")
    pid = (await home.status("notebook"))["pid"]
    with home.frozen(pid):
        reading = asyncio.create_task(home.post("/call/notebook/list_lines"))
        os.kill(pid, signal.SIGKILL)
    assert (await reading).status == 200


async def test_the_same_idempotency_key_is_executed_once(home: House) -> None:
    """A client that lost the answer asks again with the same key."""
    headers = {"Idempotency-Key": "the-very-same"}
    answers = [await home.post("/call/notebook/write", {"text": "by key"}, headers=headers) for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    lines = (await home.post("/call/notebook/list_lines")).json["lines"]
    assert [line["text"] for line in lines].count("by key") == 1


# -- the stream of events ------------------------------------------------------------------------------------------------


async def jot(home: House, *texts: str) -> list[str]:
    """Events by HTTP; their numbers as they are ids in the stream."""
    return [str((await home.post("/events/notebook/seen", {"text": text})).json["sequence"]) for text in texts]


async def until_text(events, *texts: str) -> list[tuple[str, str]]:
    """(id, text) of the events of these tests, until all of `texts` are there."""
    seen: list[tuple[str, str]] = []
    async with asyncio.timeout(AGAIN_S):
        async for event in events:
            if event.data and event.data.get("type") == "notebook.seen":
                seen.append((event.id, event.data["payload"]["text"]))
            if {text for _, text in seen} >= set(texts):
                return seen
    return seen


async def test_a_stream_of_events_goes_on_where_it_was_cut_by_the_death_of_the_gateway(home: House) -> None:
    """Nothing is missing and nothing comes twice: the id of an event is its number in the log."""
    path = "/operator/api/events?module=notebook"
    async with home.follow("GET", path) as events:
        first = await jot(home, "before")
        assert await until_text(events, "before") == [(first[0], "before")]
        born = await home.kill("tentaculo_link")
        with pytest.raises(aiohttp.ClientError):
            await until_text(events, "never")
    async with home.stock() as client:
        ack = await client.jetstream().publish("vx11.events.notebook.seen", b'{"text": "meanwhile"}')
    await home.back("tentaculo_link", born)
    await until(lambda: whole(home), "the door is open again", AGAIN_S)
    async with home.follow("GET", path, headers={"Last-Event-ID": first[0]}) as events:
        last = await jot(home, "after")
        assert await until_text(events, "after") == [(str(ack.seq), "meanwhile"), (last[0], "after")]


async def test_a_stream_by_a_token_in_the_address_is_good_once(home: House) -> None:
    """A browser's EventSource cannot send headers."""
    token = (await home.post("/operator/api/events/sse-token")).json["sse_token"]
    path = f"/operator/api/events/stream?token={token}"
    async with home.follow("GET", path, token=None) as events:
        numbers = await jot(home, "by token")
        assert await until_text(events, "by token") == [(numbers[0], "by token")]
    again = await home.get(path, token=None)
    assert (again.status, again.json["error"]) == (403, "forbidden")


@pytest.mark.parametrize("part", ["madre", "nats-server"])
async def test_a_reader_of_the_stream_misses_nothing_through_the_death_of(home: House, part: str) -> None:
    """The stream goes on, or it ends with an event that says why: then a browser comes back by itself, as here."""
    path, seen, last = "/operator/api/events?module=notebook", [], ""
    told = await jot(home, "the first")
    while len(seen) < 3:
        headers = {"Last-Event-ID": last or str(int(told[0]) - 1)}
        async with home.follow("GET", path, headers=headers) as events:
            async for event in events:
                if event.id and event.data["type"] == "notebook.seen":
                    seen.append(event.id)
                    last = event.id
                if seen == told[:1] and len(told) == 1:
                    await home.back(part, await home.kill(part))
                    await until(lambda: whole(home), "all is well", AGAIN_S)
                    told += await jot(home, "after it", "and more")
                if len(seen) >= 3:
                    break
                if not event.id:
                    assert event.name in ("error", "end")
    assert seen == told


async def test_a_page_of_events_and_the_stream_say_the_same(home: House) -> None:
    (number,) = await jot(home, "twice told")
    page = (await home.get(f"/operator/api/events?after={int(number) - 1}&limit=1")).json["events"]
    async with home.follow("GET", f"/operator/api/events?after={int(number) - 1}") as events:
        event = await anext(events)
    assert (event.id, event.data) == (number, page[0])
    assert json.loads(json.dumps(page[0]))["payload"] == {"text": "twice told"}
