"""Which of several providers is really asked, with what, and what the answer says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.switch import actor as switch
from schemas.switch import Chat, ForgetLearned, Turn
from tests.switch.scripted import Exchange, Script, refuses, says
from tests.switch.staging import Stage, stage

TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
LINE = "word " * 100
"""200 tokens, as long as nothing is known of the model."""


def asks(text: str = "tell me the secret plan", **fields: Any) -> Chat:
    return Chat(messages=[Turn(role="user", content=text)], **fields)


def long_talk(**fields: Any) -> Chat:
    turns = [Turn(role="user" if n % 2 == 0 else "assistant", content=f"{n} {LINE}") for n in range(21)]
    return Chat(messages=[Turn(role="system", content="be brief"), *turns], **fields)


def sent(on: Stage, server: int = 0, request: int = -1) -> list[str]:
    return [turn["content"] for turn in on.servers[server].asked[request].document["messages"]]


def counts(tokens_a_byte: float) -> Script:
    """A provider that counts the tokens of what it is sent."""

    async def script(exchange: Exchange) -> None:
        size = sum(len(turn["content"]) for turn in exchange.asked.document["messages"])
        await exchange.head()
        await exchange.say("Hi")
        await exchange.finish(usage={"prompt_tokens": round(size * tokens_a_byte), "completion_tokens": 1})

    return script


async def test_a_session_stays_with_the_model_that_stepped_in_and_others_do_not(tmp_path: Path) -> None:
    """Two models in turn would tell a person two stories."""
    async with stage(tmp_path, [refuses(500), says("a")], says("b")) as on:
        assert (await on.reply(asks(session_id="s1"))).provider == "p1"
        again = await on.reply(asks(session_id="s1"))
        assert (again.provider, again.reason) == ("p1", "it has answered in this session before")
        assert (await on.reply(asks(session_id="s2"))).provider == "p0"


async def test_when_the_pinned_model_fails_the_next_one_answers_and_is_pinned(tmp_path: Path) -> None:
    async with stage(tmp_path, [says("a"), refuses(500), says("a")], says("b")) as on:
        told = [(await on.reply(asks(session_id="s1"))).provider for _ in range(3)]
    assert told == ["p0", "p1", "p1"]


async def test_tools_go_to_a_model_that_has_them_and_the_answer_says_why(tmp_path: Path) -> None:
    async with stage(tmp_path, says("a"), says("b"), lines=["tools = false"]) as on:
        reply = await on.reply(asks(tools=[TOOL]))
        assert on.asked == [0, 1]
    assert (reply.provider, reply.reason) == ("p1", "the configured order; p0/m0 is declared without tools")


async def test_a_question_in_spanish_goes_to_who_speaks_it(tmp_path: Path) -> None:
    async with stage(tmp_path, says("a"), says("b"), lines=['languages = ["en"]', 'languages = ["en", "es"]']) as on:
        reply = await on.reply(asks("¿Qué tiempo hace hoy en Madrid?"))
        assert (reply.provider, reply.reason) == ("p1", "it speaks es, other than p0")
        assert (await on.reply(asks("What is the weather like today?"))).provider == "p0"


async def test_only_where_it_may_be_a_conversation_is_trimmed(tmp_path: Path) -> None:
    """An OpenAI client expects an error; a person in a chat expects an answer."""
    async with stage(tmp_path, says("a"), lines=["context = 2_000"]) as on:
        failure = await on.failure(long_talk())
        assert failure.code == "too_large"
        assert "and 1500 fit beside the answer" in failure.message
        assert on.asked == [0]
        assert (await on.reply(long_talk(trim=True))).text == "a"
    told = sent(on)
    assert told[0] == "be brief"
    assert [text.split()[0] for text in told[1:]] == ["14", "15", "16", "17", "18", "19", "20"]


async def test_each_model_gets_as_much_of_the_conversation_as_fits_into_its_own_window(tmp_path: Path) -> None:
    async with stage(tmp_path, refuses(500), says("b"), lines=["context = 16_000", "context = 2_000"]) as on:
        assert (await on.reply(long_talk(trim=True))).provider == "p1"
        assert (len(sent(on, 0)), len(sent(on, 1))) == (22, 8)


async def test_a_window_that_turns_out_too_small_meanwhile_leaves_the_question_to_the_next(tmp_path: Path) -> None:
    """Another question may teach how many tokens a text takes while this one is with somebody else."""
    stages: list[Stage] = []

    async def fails_late(exchange: Exchange) -> None:
        second = stages[0].board.entries()[1].provider
        stages[0].board.memory.answered(second, "m1", None, (1_000, 1_000))
        await refuses(500)(exchange)

    async with stage(tmp_path, fails_late, says("b"), says("c"), lines=["", "context = 1_500"]) as on:
        stages.append(on)
        assert (await on.reply(asks("word " * 400, trim=True))).provider == "p2"
        assert on.asked == [1, 0, 1]


async def test_one_message_that_is_too_long_is_told_and_nobody_is_asked(tmp_path: Path) -> None:
    async with stage(tmp_path, says("a"), lines=["context = 1_000"]) as on:
        failure = await on.failure(asks("word " * 5_000, trim=True))
        assert on.asked == [0]
    assert (failure.code, failure.details["fits"]) == ("too_large", 750)
    assert failure.details["tokens"] > 10_000


async def test_from_the_providers_counts_it_is_learned_how_much_fits(tmp_path: Path) -> None:
    """The first guess is cautious: it leaves turns out that would have fitted, or too few in a language of long tokens."""
    async with stage(tmp_path, counts(0.25), lines=["context = 4_500"]) as on:
        for _ in range(40):
            await on.reply(long_talk(trim=True))
        assert (len(sent(on, request=0)), len(sent(on))) == (16, 22)
    async with stage(tmp_path, counts(0.9), lines=["context = 4_500"]) as on:
        for _ in range(2):
            await on.reply(long_talk(trim=True))
        assert (len(sent(on, request=0)), len(sent(on))) == (16, 6)


async def test_after_forgetting_everything_is_as_on_the_first_day(tmp_path: Path) -> None:
    async with stage(tmp_path, [refuses(500)] * 3 + [says("a")], says("b")) as on:
        for _ in range(3):
            await on.reply(asks(session_id="s1"))
            on.board.memory.pin("s1", "")
        assert (await on.status())["p0"].circuit == "open"
        await switch.forget_learned(ForgetLearned(), on.board)
        assert (await on.reply(asks(session_id="s1"))).provider == "p0"


async def test_whoever_often_fails_is_asked_last_even_when_the_circuit_is_closed(tmp_path: Path) -> None:
    """Of three, one always succeeds to begin with: nobody waits for the first of the row any more."""
    async with stage(tmp_path, refuses(500), says("b")) as on:
        for _ in range(12):
            await on.reply()
            on.time[0] += 31
        before = on.asked[0]
        reply = await on.reply()
        assert on.asked[0] == before
    assert reply.reason == "it answers more often than p0 (97% of the time)"
