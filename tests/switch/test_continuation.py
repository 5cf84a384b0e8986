"""An answer that is cut in the middle is gone on with by the next model, at the very character, or fails in words."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from actors.switch.answer import ANSWER_MAX_CHARS
from actors.switch.asking.patience import Limits
from schemas.errors import Failure
from schemas.switch import Chat, ModelChunk, ModelReply, Turn
from tests.switch.reciting import (
    MANNERS,
    PREFILLED,
    Manner,
    Recital,
    Trouble,
    after,
    breaks_json,
    complains,
    cuts,
    ends_early,
    halves_a_character,
    leaves_half_a_character,
    never_ends,
    prose,
    recites,
    refusing,
    splits_characters,
    stalls,
)
from tests.switch.scripted import Exchange, Script, cuts_after, says
from tests.switch.staging import HELLO, Stage, stage

PREFILL = "prefill = true"
BREAKS = [cuts, stalls, ends_early, breaks_json, complains, halves_a_character, leaves_half_a_character]
FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}


async def told(on: Stage, request: Chat = HELLO) -> tuple[list[ModelChunk], ModelReply]:
    *chunks, reply = [part async for part in on.ask(request)]
    assert isinstance(reply, ModelReply)
    return [chunk for chunk in chunks if isinstance(chunk, ModelChunk)], reply


def recital(seed: int = 0) -> tuple[Recital, random.Random]:
    rng = random.Random(seed)
    return Recital(prose(rng)), rng


@pytest.mark.parametrize("end", BREAKS, ids=lambda end: end.__name__)
async def test_whatever_breaks_an_answer_the_next_goes_on(tmp_path: Path, end: Callable[[Exchange], Awaitable[None]]) -> None:
    known, rng = recital()
    async with stage(tmp_path, recites(known, rng, trouble=after(5, end)), recites(known, rng, "anchor")) as on:
        chunks, reply = await told(on)
        assert [provider for provider, _ in on.failures] == ["p0"]
    assert "".join(chunk.text for chunk in chunks) == reply.text == known.text
    assert [chunk.speaker.provider for chunk in chunks if chunk.speaker] == ["p0", "p1"]
    assert [speaker.provider for speaker in reply.speakers] == ["p0", "p1"]
    assert sum(speaker.characters for speaker in reply.speakers) == len(known.text)
    assert "p0: " in reply.reason
    assert known.wrong == []


@pytest.mark.parametrize(("manner", "lines"), [(one, "") for one in MANNERS] + [(one, PREFILL) for one in PREFILLED])
async def test_however_the_next_one_goes_on_nothing_is_twice_or_missing(tmp_path: Path, manner: Manner, lines: str) -> None:
    known, rng = recital(1)
    servers = recites(known, rng, trouble=after(12, cuts)), recites(known, rng, manner)
    async with stage(tmp_path, *servers, lines=["", lines]) as on:
        chunks, reply = await told(on)
        asked = on.servers[1].asked[0].document["messages"]
    assert "".join(chunk.text for chunk in chunks) == reply.text == known.text
    assert asked[-1]["role"] == ("assistant" if lines else "user")
    assert known.wrong == []


async def test_a_chain_of_breaks_is_one_answer(tmp_path: Path) -> None:
    known, rng = recital(2)
    breaking = [recites(known, rng, "anchor", after(7, end)) for end in (cuts, breaks_json, ends_early)]
    async with stage(tmp_path, *breaking, recites(known, rng, "anchor")) as on:
        _, reply = await told(on)
        assert on.asked == [1, 1, 1, 1]
    assert reply.text == known.text
    assert [speaker.provider for speaker in reply.speakers] == ["p0", "p1", "p2", "p3"]
    assert reply.usage is None


async def test_who_refuses_to_go_on_is_passed_over(tmp_path: Path) -> None:
    known, rng = recital(3)
    scripts = [recites(known, rng, trouble=after(9, cuts)), recites(known, rng, trouble=refusing(500)), recites(known, rng)]
    async with stage(tmp_path, *scripts) as on:
        _, reply = await told(on)
    assert (reply.text, reply.provider) == (known.text, "p2")
    assert "p1: HTTP 500" in reply.reason


async def test_thoughts_are_no_beginning_so_the_next_one_begins_anew(tmp_path: Path) -> None:
    async def thinks(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.say("", reasoning_content="hm")
        exchange.cut()

    async with stage(tmp_path, [thinks], says("Hi")) as on:
        _, reply = await told(on)
        assert on.servers[1].asked[0].document["messages"] == [turn.model_dump(exclude_none=True) for turn in HELLO.messages]
    assert reply.text == "Hi"


async def test_when_nobody_is_left_the_cut_is_told_with_its_length(tmp_path: Path) -> None:
    async with stage(tmp_path, cuts_after("Hel", "lo")) as on:
        failure = await on.failure()
        assert on.failures == [("p0", "the connection was cut")]
    assert (failure.code, failure.message) == ("crashed", "p0 was cut off after 5 characters: the connection was cut")
    assert failure.details == {"provider": "p0", "model": "m0", "characters": 5}


async def test_who_could_not_go_on_is_told_too(tmp_path: Path) -> None:
    known, rng = recital(4)
    async with stage(tmp_path, cuts_after(known.text[:20]), recites(known, rng, trouble=refusing(503))) as on:
        failure = await on.failure()
    assert failure.code == "crashed"
    assert failure.message == "p0 was cut off after 20 characters: the connection was cut; nobody went on: p1: HTTP 503: not now"


@pytest.mark.parametrize(("begun", "asked"), [(True, [1, 0]), (False, [1, 1])])
async def test_a_given_form_is_not_continued_but_begun_anew(tmp_path: Path, begun: bool, asked: list[int]) -> None:
    """Two halves of JSON by two models are hardly one document."""
    request = HELLO.model_copy(update={"response_format": FORM})
    async with stage(tmp_path, cuts_after(*['{"a": '] * begun), says('{"a": 1}')) as on:
        if begun:
            failure = await on.failure(request)
            assert (failure.code, "given form" in failure.message) == ("crashed", True)
        else:
            assert (await on.reply(request)).text == '{"a": 1}'
        assert on.asked == asked


def calling(*deltas: dict[str, Any], cut: bool = False) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for delta in deltas:
            await exchange.say(tool_calls=[delta], content=None)
        if cut:
            await exchange.raw(b"40\r\n")
            exchange.cut()
        else:
            await exchange.finish("tool_calls")

    return script


BEGUN = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a'}}
REST = {"index": 0, "function": {"arguments": '": "🦑"}'}}


async def test_calls_of_tools_come_in_deltas_and_at_last_whole(tmp_path: Path) -> None:
    request = HELLO.model_copy(update={"tools": [TOOL], "tool_choice": "auto"})
    async with stage(tmp_path, calling(BEGUN, REST)) as on:
        chunks, reply = await told(on, request)
        assert on.servers[0].asked[0].document["tools"] == [TOOL]
    deltas = [delta for chunk in chunks for delta in chunk.tool_calls]
    assert "".join(delta["function"]["arguments"] for delta in deltas) == '{"a": "🦑"}'
    assert reply.tool_calls == [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": "🦑"}'}}]
    assert (reply.text, reply.finish_reason) == ("", "tool_calls")


async def test_a_call_that_has_begun_is_not_continued(tmp_path: Path) -> None:
    """Half a call by another model might be another call: nothing must be done that nobody asked for."""
    request = HELLO.model_copy(update={"tools": [TOOL]})
    async with stage(tmp_path, calling(BEGUN, cut=True), says("Hi")) as on:
        failure = await on.failure(request)
        assert on.asked == [1, 0]
    assert (failure.code, "a call of a tool that has begun" in failure.message) == ("crashed", True)


async def test_a_call_of_nothing_is_no_answer(tmp_path: Path) -> None:
    nameless = {"index": 0, "id": "c1", "function": {"arguments": "{}"}}
    async with stage(tmp_path, calling(nameless)) as on:
        assert "without a name" in (await on.failure()).message


async def test_characters_in_two_halves_arrive_whole(tmp_path: Path) -> None:
    known, rng = recital(5)
    async with stage(tmp_path, recites(known, rng, trouble=splits_characters)) as on:
        assert (await on.reply()).text == known.text


async def test_an_answer_that_never_ends_is_cut_off_and_not_continued(tmp_path: Path) -> None:
    known, rng = recital(6)
    async with stage(tmp_path, recites(known, rng, trouble=after(3, never_ends)), recites(known, rng), limits=Limits()) as on:
        failure = await on.failure()
        assert on.asked == [1, 0]
    assert failure.code == "crashed"
    assert f"more than {ANSWER_MAX_CHARS} characters" in failure.message


async def test_an_answer_that_comes_too_slowly_ends_with_the_callers_time(tmp_path: Path) -> None:
    """No stall, no end: only the deadline bounds it, and then nobody else is asked."""

    async def trickles(exchange: Exchange) -> None:
        await exchange.head()
        while True:
            await exchange.say("and ")
            await asyncio.sleep(0.05)

    async with stage(tmp_path, trickles, says("Hi"), limits=Limits()) as on:
        async with asyncio.timeout(10):
            failure = await on.failure(seconds=1.0)
        assert on.asked == [1, 0]
        assert (await on.status())["p0"].circuit == "closed"
    assert failure.code == "crashed"
    assert "the caller's time was up" in failure.message


async def test_a_ledger_that_cannot_write_ends_what_has_begun(tmp_path: Path) -> None:
    """Nobody is asked whose bill cannot be written down; what was said is not silently left as it is."""
    go_on = asyncio.Event()
    async with stage(tmp_path, cuts_after("Hello", when=go_on), says("Hi"), limits=Limits()) as on:
        with pytest.raises(Failure) as failed:
            async for _ in on.ask():
                on.accounts.budgets = {"day": 3}
                go_on.set()
        assert on.asked == [1, 0]
    assert failed.value.code == "crashed"
    assert "p1: not asked, providers.toml, [budgets]" in failed.value.message


async def test_who_tells_it_anew_in_other_words_is_not_joined(tmp_path: Path) -> None:
    known, rng = recital(7)
    scripts = [cuts_after(known.text[:200]), says(known.text[:150], " but then all was different"), recites(known, rng)]
    async with stage(tmp_path, *scripts) as on:
        reply = await on.reply()
        assert on.failures[1] == ("p1", "it told the answer anew instead of going on with it")
    assert (reply.text, reply.provider) == (known.text, "p2")


async def test_an_answer_that_was_whole_needs_no_more_words(tmp_path: Path) -> None:
    """The text was there, only its end was not; who goes on with the text itself may have nothing to add."""
    async with stage(tmp_path, cuts_after("All is said."), says(), lines=["", PREFILL]) as on:
        assert (await on.reply()).text == "All is said."
    async with stage(tmp_path, cuts_after("All is said."), says("All is said.")) as on:
        assert (await on.reply()).text == "All is said."


async def test_the_length_that_was_allowed_is_not_begun_anew(tmp_path: Path) -> None:
    request = HELLO.model_copy(update={"max_tokens": 100})
    async with stage(tmp_path, cuts_after("x" * 120 + " and"), says("so on"), lines=["", PREFILL]) as on:
        await on.reply(request)
        assert on.servers[1].asked[0].document["max_tokens"] == 69


async def test_a_beginning_that_the_caller_has_made_is_gone_on_with(tmp_path: Path) -> None:
    turns = [Turn(role="user", content="tell"), Turn(role="assistant", content="Once upon ")]
    async with stage(tmp_path, cuts_after("a time "), says("there was"), lines=["", PREFILL]) as on:
        assert (await on.reply(Chat(messages=turns))).text == "a time there was"
        assert on.servers[1].asked[0].document["messages"][1:] == [{"role": "assistant", "content": "Once upon a time "}]


async def test_what_came_before_the_cut_is_sent_on_before_the_next_is_asked(tmp_path: Path) -> None:
    """The user reads on while somebody else is found."""
    known, rng = recital(8)
    go_on = asyncio.Event()

    async def waits(exchange: Exchange) -> None:
        await go_on.wait()
        await recites(known, rng, "anchor")(exchange)

    async with stage(tmp_path, cuts_after(known.text[:50]), waits, limits=Limits()) as on:
        chunks = [chunk async for chunk in _while_it_waits(on, go_on)]
    assert "".join(chunks) == known.text


async def _while_it_waits(on: Stage, go_on: asyncio.Event) -> Any:
    async for part in on.ask():
        if isinstance(part, ModelChunk):
            go_on.set()
            yield part.text


async def test_both_are_paid_and_what_nobody_counted_as_it_was_reserved(tmp_path: Path) -> None:
    known, _ = recital(9)
    async with stage(tmp_path, cuts_after(known.text[:50]), says(known.text[50:], usage=USAGE), lines=["", PREFILL]) as on:
        await on.reply()
        bills = [(answer.provider, answer.tokens) for answer in on.accounts.answers]
    assert bills == [("p0", None), ("p1", 7)]


USAGE = {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}


@pytest.mark.parametrize("status", [429, 400, 401])
async def test_a_refusal_costs_nothing(tmp_path: Path, status: int) -> None:
    known, rng = recital(10)
    async with stage(tmp_path, recites(known, rng, trouble=refusing(status)), recites(known, rng)) as on:
        await on.reply()
        assert [answer.provider for answer in on.accounts.answers] == ["p1"]


async def test_a_budget_that_is_used_up_says_so_and_nobody_is_asked(tmp_path: Path) -> None:
    async with stage(tmp_path, says("a"), says("b")) as on:
        on.accounts.budgets = {"day": {"tokens": 10}}
        failure = await on.failure()
        assert on.asked == [0, 0]
    assert failure.code == "over_budget"


async def test_a_budget_of_money_leaves_those_that_are_free(tmp_path: Path) -> None:
    async with stage(tmp_path, says("dear"), says("free"), lines=["price_in = 5.0\nprice_out = 5.0"]) as on:
        on.accounts.budgets = {"day": {"money": 0.000001}}
        reply = await on.reply()
        assert on.asked == [0, 1]
    assert (reply.text, reply.provider) == ("free", "p1")


Long = Callable[[Exchange], Awaitable[None]]


def fits(turns: int, how: Trouble) -> Script:
    """A server whose window has room for so many turns."""

    async def script(exchange: Exchange) -> None:
        if len(exchange.asked.document["messages"]) > turns:
            await how(exchange, [], random.Random(0))
        else:
            await says("Hi")(exchange)

    return script


async def exceeds(exchange: Exchange, *_unused: Any) -> None:
    await exchange.answer(400, {"error": {"message": "no", "code": "context_length_exceeded"}})


LONG = Chat(messages=[Turn(role="user", content=f"{n} " + "word " * 50) for n in range(20)])


@pytest.mark.parametrize("how", [exceeds, refusing(413)])
async def test_a_conversation_that_is_too_long_is_told_as_that(tmp_path: Path, how: Trouble) -> None:
    async with stage(tmp_path, fits(10, how)) as on:
        failure = await on.failure(LONG)
        assert (await on.status())["p0"].circuit == "closed"
        assert on.asked == [1]
    assert failure.code == "too_large"
    assert "shorten the conversation" in failure.message


async def test_a_conversation_that_may_be_trimmed_is_sent_once_more_with_less(tmp_path: Path) -> None:
    async with stage(tmp_path, fits(10, exceeds)) as on:
        assert (await on.reply(LONG.model_copy(update={"trim": True}))).text == "Hi"
        first, second = (asked.document["messages"] for asked in on.servers[0].asked)
    assert second == first[-len(second) :]


async def test_it_is_sent_once_more_only(tmp_path: Path) -> None:
    async with stage(tmp_path, fits(0, exceeds)) as on:
        failure = await on.failure(LONG.model_copy(update={"trim": True}))
        assert on.asked == [2]
    assert failure.code == "too_large"
