"""The chat with its history: what is kept of it, what a model is told of it, and what happens without Redis."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.operator_backend.actor import (
    chat,
    delete_session,
    get_session,
    list_sessions,
    patience,
    rename_session,
)
from actors.operator_backend.actor import (
    sessions as sessions_resource,
)
from actors.operator_backend.conversation import Patience
from actors.operator_backend.exchange import TURN_BYTES, TURNS_MOST, turns
from actors.operator_backend.sessions import Sessions
from bus import Settings
from bus.cache import open_cache
from bus.call import call_from
from bus.daemon import free_port
from bus.redis_server import RedisServer, embedded
from schemas.errors import Failure
from schemas.madre import MadreChatReply
from schemas.operator_backend import (
    Chat,
    ChatReply,
    DeleteSession,
    GetSession,
    ListSessions,
    RenameSession,
    SessionLine,
)
from schemas.switch import Speaker, Turn
from tests.operator_backend.scripted import DENIED, ScriptedBus, heard, whole


@pytest.fixture
async def sessions(redis_server: RedisServer) -> AsyncIterator[Sessions]:
    async with open_cache(redis_server.url) as cache:
        yield Sessions(cache)
        await cache._redis.flushdb()


async def said(sessions: Sessions, scripted: ScriptedBus, message: str, session_id: str = "s") -> ChatReply:
    request = Chat(message=message, session_id=session_id)
    frames = [f async for f in chat(request, scripted.bus, call_from({}), sessions, Patience())]
    assert isinstance(frames[-1], ChatReply)
    return frames[-1]


async def test_question_and_answer_are_kept(sessions: Sessions) -> None:
    reply = await said(sessions, ScriptedBus(whole("Good day")), "hello")
    kept = await get_session(GetSession(session_id="s"), sessions)
    assert [(k.role, k.text, k.provider, k.model) for k in kept.lines] == [
        ("user", "hello", "", ""),
        ("assistant", "Good day", "local", "smollm2"),
    ]
    assert kept.lines[1].message_id == reply.message_id
    assert reply.history == "stored"


async def test_the_model_is_told_what_was_said_before(sessions: Sessions) -> None:
    await said(sessions, ScriptedBus(whole("Good day")), "hello")
    scripted = ScriptedBus(whole("Ana"))
    await said(sessions, scripted, "what is my name?")
    assert [(t.role, t.content) for t in scripted.asked_switch[0].messages] == [
        ("user", "hello"),
        ("assistant", "Good day"),
        ("user", "what is my name?"),
    ]


async def test_sessions_do_not_hear_each_other(sessions: Sessions) -> None:
    await said(sessions, ScriptedBus(whole("Good day")), "hello", "mine")
    scripted = ScriptedBus(whole("x"))
    await said(sessions, scripted, "hi", "yours")
    assert [t.content for t in scripted.asked_switch[0].messages] == ["hi"]


async def test_the_answers_of_madre_are_kept_but_no_model_is_told_them(sessions: Sessions) -> None:
    """A model would pretend to have done what she did."""
    await said(sessions, ScriptedBus(DENIED, answer=heard("Shall I?")), "restart switch")
    scripted = ScriptedBus(whole("x"))
    await said(sessions, scripted, "hello")
    assert [t.content for t in scripted.asked_switch[0].messages] == ["hello"]
    kept = await get_session(GetSession(session_id="s"), sessions)
    assert [(k.text, k.provider) for k in kept.lines[:2]] == [("restart switch", ""), ("Shall I?", "madre")]


async def test_a_question_that_nobody_answered_is_kept(sessions: Sessions) -> None:
    with pytest.raises(Failure):
        await said(sessions, ScriptedBus(DENIED, answer=Failure("timeout", "no answer")), "hello")
    assert [line.text for line in await sessions.latest("s", 9)] == ["hello"]


async def test_a_session_that_is_deleted_meanwhile_stays_deleted(sessions: Sessions) -> None:
    async def deleted() -> None:
        await delete_session(DeleteSession(session_id="s"), sessions)

    reply = await said(sessions, ScriptedBus(deleted, whole("late")), "hello")
    assert (reply.response, reply.history) == ("late", "unavailable")
    assert await sessions.count() == 0


async def test_sessions_are_listed_renamed_and_deleted_by_their_verbs(sessions: Sessions) -> None:
    await said(sessions, ScriptedBus(whole("x")), "hello", "a")
    await said(sessions, ScriptedBus(whole("x")), "good evening", "b")
    await rename_session(RenameSession(session_id="a", title="Mine"), sessions)
    await delete_session(DeleteSession(session_id="b"), sessions)
    listed = await list_sessions(ListSessions(), sessions)
    assert [(s.session_id, s.title, s.messages) for s in listed.sessions] == [("a", "Mine", 2)]
    assert listed.total == 1
    with pytest.raises(Failure) as caught:
        await get_session(GetSession(session_id="b"), sessions)
    assert caught.value.code == "not_found"


async def test_without_redis_the_chat_works_and_says_that_there_is_no_history() -> None:
    async with open_cache(f"redis://127.0.0.1:{free_port()}/0") as cache:
        begun = time.monotonic()
        reply = await said(Sessions(cache), ScriptedBus(whole("Good day")), "hello")
    assert (reply.response, reply.status, reply.history) == ("Good day", "ok", "unavailable")
    assert time.monotonic() - begun < 1.5


async def test_a_redis_that_dies_during_the_answer_costs_the_history_not_the_answer(tmp_path: Path) -> None:
    with embedded(tmp_path) as server:

        async def dies() -> None:
            server.stop()

        async with open_cache(server.url) as cache:
            reply = await said(Sessions(cache), ScriptedBus(dies, whole("Good day")), "hello")
    assert (reply.response, reply.history) == ("Good day", "unavailable")


async def test_sessions_outlive_the_server(tmp_path: Path) -> None:
    """Until the vault exists Redis with its append-only file is where conversations live."""
    for answer, expected in (("one", 2), ("two", 4)):
        with embedded(tmp_path) as server:
            async with open_cache(server.url) as cache:
                await said(Sessions(cache), ScriptedBus(whole(answer)), "hello")
                assert len((await Sessions(cache).get("s")).lines) == expected


async def test_the_resource_opens_what_the_settings_name(redis_server: RedisServer, tmp_path: Path) -> None:
    settings = Settings(tmp_path, {"VX11_REDIS_URL": redis_server.url})
    async for opened in sessions_resource(settings):
        assert await opened.count() == 0


async def test_without_a_url_there_is_no_history_and_a_reason(tmp_path: Path) -> None:
    async for opened in sessions_resource(Settings(tmp_path)):
        with pytest.raises(Failure, match="VX11_REDIS_URL"):
            await opened.count()


async def test_the_first_word_may_take_as_long_as_the_settings_say(tmp_path: Path) -> None:
    async for opened in patience(Settings(tmp_path, {"VX11_CHAT_FIRST_WORD_S": "3"})):
        assert opened.first_word == 3.0


def lines(*texts: str, provider: str = "local") -> list[SessionLine]:
    """Questions and answers by turns."""
    roles = ("user", "assistant")
    return [
        SessionLine.model_validate(
            {"message_id": "m", "role": roles[n % 2], "text": text, "at": "", "provider": provider if n % 2 else ""}
        )
        for n, text in enumerate(texts)
    ]


def test_turns_are_whole_exchanges_within_a_bound() -> None:
    """Models want question and answer by turns; a small one cannot hold everything."""
    long = "x" * (TURN_BYTES // 4)
    told = turns(lines("q1", long, "q2", long, "q3", long, "q4", long))
    assert [turn.content[:2] for turn in told] == ["q2", "xx", "q3", "xx", "q4", "xx"]


def test_a_question_without_an_answer_is_no_turn() -> None:
    assert turns([*lines("lost"), *lines("q", "a")]) == [
        Turn(role="user", content="q"),
        Turn(role="assistant", content="a"),
    ]


def test_what_is_told_of_a_session_fits_into_one_message_however_it_is_written() -> None:
    """A control character takes six bytes on the way."""
    told = turns(lines("q1", "\x01" * (TURN_BYTES // 7), "q2", "\x01" * (TURN_BYTES // 7)))
    assert [turn.content for turn in told if turn.role == "user"] == ["q2"]


async def test_who_said_what_and_why_is_kept(sessions: Sessions) -> None:
    note = "offline model, 135M, English"
    speaker = Speaker(provider="local", model="smollm2", characters=8, note=note)
    answer = whole("Good day").model_copy(update={"reason": "the configured order", "speakers": [speaker], "note": note})
    await said(sessions, ScriptedBus(answer), "hello")
    _, kept = (await get_session(GetSession(session_id="s"), sessions)).lines
    assert (kept.speakers, kept.reason, kept.note, kept.pending) == ([speaker], "the configured order", note, False)


async def test_that_madre_has_asked_is_told_to_her_even_if_she_has_forgotten(sessions: Sessions) -> None:
    """And while she is away nobody else hears the yes that was meant for her."""
    asks = MadreChatReply(response="Shall I?", understood=True, pending=True)
    await said(sessions, ScriptedBus(DENIED, answer=asks), "restart switch")
    away = ScriptedBus(whole("Done!"), recognised=Failure("unavailable", "nobody answers"))
    with pytest.raises(Failure, match="madre is not available"):
        await said(sessions, away, "yes")
    assert (away.looked[0].asked, away.asked_switch) == (True, [])


async def test_where_a_word_is_of_both_languages_the_session_tells(sessions: Sessions) -> None:
    await said(sessions, ScriptedBus(whole("Hola")), "cuéntame algo de la luna")
    reply = await said(sessions, ScriptedBus(DENIED), "ok")
    assert reply.reason == "switch está cerrado por la política: the gate of switch is closed (off_by_policy)"


async def test_up_to_two_hundred_turns_are_told(sessions: Sessions) -> None:
    """Which of them fit into a model's window is switch's to know."""
    for line in lines(*map(str, range(TURNS_MOST + 20))):
        await sessions.add("s", line.model_copy(update={"at": "2026-01-01T00:00:00.000Z"}), begin=True)
    scripted = ScriptedBus(whole("x"))
    await said(sessions, scripted, "hello")
    assert len(scripted.asked_switch[0].messages) == TURNS_MOST + 1
