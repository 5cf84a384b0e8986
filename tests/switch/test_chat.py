"""An answer, the next provider, and time."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from pathlib import Path

import pytest

from actors.switch.asking.patience import Limits
from schemas.switch import (
    Chat,
    ModelChunk,
    ModelReply,
    Speaker,
    Turn,
)
from tests.switch.scripted import (
    Exchange,
    Script,
    cuts_after,
    hangs_up,
    refuses,
    says,
    stalls_after,
    stays_silent,
)
from tests.switch.staging import HELLO, stage

# --- an answer ---


async def test_chunks_come_first_and_the_whole_reply_last(tmp_path: Path) -> None:
    async with stage(tmp_path, says("Hel", "lo", usage={"total_tokens": 3})) as on:
        first, *more, reply = [part async for part in on.ask()]
    assert isinstance(reply, ModelReply)
    assert "".join(chunk.text for chunk in (first, *more)) == "Hello"
    assert isinstance(first, ModelChunk)
    assert first.speaker == Speaker(provider="p0", model="m0")
    assert not any(chunk.speaker for chunk in more if isinstance(chunk, ModelChunk))
    assert (reply.text, reply.provider, reply.model, reply.finish_reason) == ("Hello", "p0", "m0", "stop")
    assert reply.speakers == [Speaker(provider="p0", model="m0", characters=5)]
    assert (reply.usage, reply.reason, reply.note) == ({"total_tokens": 3}, "the configured order", "")
    assert reply.latency_ms >= (reply.first_ms or 0) > 0
    assert on.bus.events == []


async def test_thoughts_are_chunks_but_no_part_of_the_reply(tmp_path: Path) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.say("", reasoning_content="hm")
        await exchange.say("Hi")
        await exchange.finish()

    async with stage(tmp_path, script) as on:
        *chunks, reply = [part async for part in on.ask()]
    told = [chunk for chunk in chunks if isinstance(chunk, ModelChunk)]
    assert ("".join(chunk.reasoning for chunk in told), "".join(chunk.text for chunk in told)) == ("hm", "Hi")
    assert isinstance(reply, ModelReply)
    assert reply.text == "Hi"


async def test_the_reply_names_the_model_that_really_answered(tmp_path: Path) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(200, {"model": "m0-2026", "choices": [{"message": {"content": "Hi"}}]})

    async with stage(tmp_path, script) as on:
        assert (await on.reply()).model == "m0-2026"


async def test_the_model_that_was_asked_for_is_asked_of_its_provider(tmp_path: Path) -> None:
    async with stage(tmp_path, says("a"), says("b")) as on:
        reply = await on.reply(HELLO.model_copy(update={"model": "m1"}))
    assert (reply.provider, reply.reason, on.asked) == ("p1", "m1 was asked for", [0, 1])


async def test_an_unknown_model_is_not_found(tmp_path: Path) -> None:
    async with stage(tmp_path, says("a")) as on:
        failure = await on.failure(HELLO.model_copy(update={"model": "m9"}))
    assert (failure.code, on.asked) == ("not_found", [0])


async def test_many_conversations_run_at_once_and_do_not_mix(tmp_path: Path) -> None:
    async def echo(exchange: Exchange) -> None:
        await says(*exchange.asked.document["messages"][0]["content"].split())(exchange)

    async with stage(tmp_path, echo, limits=Limits()) as on:
        texts = [f"a{n} b{n} c{n}" for n in range(32)]
        asked = [on.reply(Chat(messages=[Turn(role="user", content=text)])) for text in texts]
        assert [reply.text for reply in await asyncio.gather(*asked)] == [text.replace(" ", "") for text in texts]


# --- the next provider ---


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (hangs_up, "the connection was cut"),
        (stays_silent, "it said nothing within 1 s"),
        (refuses(500), "HTTP 500"),
        (refuses(401), "HTTP 401, it refused the key"),
        (refuses(307, Location="http://127.0.0.1:9/"), "HTTP 307: it redirects"),
        (says(), "it ended without a word"),
    ],
)
async def test_a_failure_before_the_first_chunk_is_not_seen_by_the_caller(tmp_path: Path, script: Script, reason: str) -> None:
    async with stage(tmp_path, script, says("Hi")) as on:
        reply = await on.reply()
        ((provider, told),) = on.failures
    assert (reply.text, reply.provider) == ("Hi", "p1")
    assert provider == "p0"
    assert told.startswith(reason)
    assert f"p0: {reason}" in reply.reason


async def test_half_a_document_before_the_first_chunk_leads_to_the_next(tmp_path: Path) -> None:
    async with stage(tmp_path, cuts_after(), says("Hi")) as on:
        assert (await on.reply()).provider == "p1"


async def test_when_nobody_answers_all_reasons_are_told(tmp_path: Path) -> None:
    async with stage(tmp_path, hangs_up, refuses(500, "out of memory")) as on:
        failure = await on.failure()
        assert len(on.failures) == 2
    assert failure.code == "unavailable"
    assert "p0: the connection was cut; p1: HTTP 500: out of memory" in failure.message
    assert [attempt["provider"] for attempt in failure.details["attempts"]] == ["p0", "p1"]


async def test_a_request_that_all_refuse_is_the_callers_fault(tmp_path: Path) -> None:
    async with stage(tmp_path, refuses(400, "no such role"), refuses(422)) as on:
        failure = await on.failure()
    assert failure.code == "invalid"
    assert "no such role" in failure.message


async def test_one_provider_at_fault_makes_it_unavailable(tmp_path: Path) -> None:
    async with stage(tmp_path, refuses(400), refuses(500)) as on:
        assert (await on.failure()).code == "unavailable"


async def test_an_event_carries_no_words_of_the_conversation(tmp_path: Path) -> None:
    """A provider may quote the prompt in its error; the caller may read that, the log may not keep it."""
    async with stage(tmp_path, refuses(400, "cannot answer 'tell me the secret plan'")) as on:
        failure = await on.failure()
        (event,) = on.bus.events
    assert "secret plan" in failure.message
    assert "secret plan" not in event.model_dump_json()


# --- time ---


async def test_the_callers_deadline_bounds_everything(tmp_path: Path) -> None:
    async with stage(tmp_path, stays_silent, stays_silent, limits=Limits()) as on:
        begun = time.monotonic()
        failure = await on.failure(seconds=0.6)
        took = time.monotonic() - begun
        assert on.asked == [1, 0]
    assert failure.code == "timeout"
    assert "p0: the caller's time was up" in failure.message
    assert took < 0.6


async def test_a_deadline_that_has_passed_asks_nobody(tmp_path: Path) -> None:
    async with stage(tmp_path, says("Hi")) as on:
        failure = await on.failure(seconds=0.1)
        assert on.asked == [0]
    assert failure.code == "timeout"


async def test_a_deadline_too_short_to_tell_is_not_held_against_the_provider(tmp_path: Path) -> None:
    async with stage(tmp_path, [stays_silent] * 3 + [says("Hi")], limits=Limits()) as on:
        for _ in range(3):
            await on.failure(seconds=0.4)
        status = (await on.status())["p0"]
        assert (status.circuit, status.health) == ("closed", "unknown")
        assert (await on.reply()).text == "Hi"


async def test_a_caller_that_goes_away_stops_the_provider(tmp_path: Path) -> None:
    async with stage(tmp_path, stalls_after("Hello"), limits=Limits()) as on:
        async with aclosing(on.ask()) as answer:
            assert await anext(answer) == ModelChunk(text="Hello", speaker=Speaker(provider="p0", model="m0"))
        await asyncio.wait_for(on.servers[0].asked[0].gone.wait(), 1.0)
        assert on.bus.events == []
