"""The chat: switch first, and madre with the reason when switch cannot."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import aclosing

import pytest
from pydantic import BaseModel, ValidationError

from actors.operator_backend.actor import actor, chat
from actors.operator_backend.conversation import MADRE_S, Patience
from actors.operator_backend.sessions import Sessions
from bus import Call
from bus.call import DEADLINE, SCOPES, call_from
from schemas.errors import Failure
from schemas.operator_backend import MESSAGE_MAX_CHARS, Chat, ChatChunk, ChatReply
from schemas.switch import ModelChunk
from tests.operator_backend.scripted import DENIED, ScriptedBus, heard, stall, whole, words

CORRELATION = "chat-test-0001"
BRISK = Patience(first_word=0.05, between=0.05)


def called(**headers: str) -> Call:
    return call_from({"correlation_id": CORRELATION, **headers})


async def asked(
    scripted: ScriptedBus, request: Chat | None = None, call: Call | None = None, patience: Patience | None = None
) -> tuple[list[ChatChunk], ChatReply]:
    """What a caller of the verb `chat` gets."""
    frames = [
        frame
        async for frame in chat(
            request or Chat(message="hello"), scripted.bus, call or called(), Sessions(None), patience or Patience()
        )
    ]
    reply = frames.pop()
    assert isinstance(reply, ChatReply)
    return [frame for frame in frames if isinstance(frame, ChatChunk)], reply


async def pause() -> None:
    """A little real time in a script."""
    await asyncio.sleep(0.05)


def told(chunks: list[ChatChunk]) -> str:
    """The text as a client shows it."""
    text = ""
    for chunk in chunks:
        text = chunk.text if chunk.restart else text + chunk.text
    return text


async def test_switch_answers_and_the_reply_says_so() -> None:
    chunks, reply = await asked(ScriptedBus(*words("Good ", "day"), whole("Good day")))
    assert told(chunks) == reply.response == "Good day"
    assert (reply.model, reply.model_used, reply.provider) == ("smollm2", "smollm2", "local")
    assert (reply.status, reply.degraded, reply.fallback_source, reply.reason) == ("ok", False, None, None)
    assert reply.correlation_id == CORRELATION


async def test_madre_is_not_asked_when_switch_answers() -> None:
    scripted = ScriptedBus(whole("Good day"))
    await asked(scripted)
    assert scripted.asked_madre == []


async def test_latency_is_measured() -> None:
    """A number of its own making would be below the time that switch really took."""

    async def take_time() -> None:
        end = time.perf_counter() + 0.05
        while time.perf_counter() < end:  # a busy wait: the loop's clock may round a sleep down
            pass

    begun = time.perf_counter()
    _, reply = await asked(ScriptedBus(take_time, whole("x")))
    assert 50 <= reply.latency_ms <= (time.perf_counter() - begun) * 1000


async def test_session_and_message_get_ids_of_their_own() -> None:
    _, first = await asked(ScriptedBus(whole("x")))
    _, second = await asked(ScriptedBus(whole("x")))
    assert len({first.session_id, second.session_id, first.message_id, second.message_id}) == 4


async def test_a_session_that_was_given_is_kept() -> None:
    _, reply = await asked(ScriptedBus(whole("x")), Chat(message="hello", session_id="mine"))
    assert reply.session_id == "mine"


def _unreadable() -> ValidationError:
    class Reply(BaseModel):
        text: str

    with pytest.raises(ValidationError) as caught:
        Reply.model_validate({})
    return caught.value


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([DENIED], "switch is off by policy: the gate of switch is closed (off_by_policy)"),
        (
            [Failure("unavailable", "no provider is configured")],
            "switch is not available: no provider is configured (unavailable)",
        ),
        (
            [Failure("not_found", "there is no actor switch")],
            "switch has nothing to answer with: there is no actor switch (not_found)",
        ),
        ([Failure("internal", "a mistake")], "switch failed: a mistake (internal)"),
        ([Failure("timeout", "no answer")], "switch was too slow: no answer (timeout)"),
        ([_unreadable()], "switch failed: it answered what is no answer (1 mistakes) (internal)"),
        ([], "switch was cut off: it ended without its whole answer (crashed)"),
        ([whole("  ")], "switch is not available: the model smollm2 ended without a word (unavailable)"),
        ([stall], "switch was too slow: it did not say its first word within 0.05 s (timeout)"),
    ],
)
async def test_when_switch_does_not_answer_madre_does_and_says_why(steps: list[object], reason: str) -> None:
    chunks, reply = await asked(ScriptedBus(*steps, answer=heard("I am madre.")), patience=BRISK)  # type: ignore[arg-type]
    assert [chunk.restart for chunk in chunks] == [False]
    assert told(chunks) == reply.response == "I am madre."
    assert (reply.model, reply.provider, reply.status, reply.degraded) == ("madre", "madre", "degraded", True)
    assert (reply.fallback_source, reply.reason) == ("madre", reason)


@pytest.mark.parametrize(
    ("cut", "reason"),
    [
        (
            [Failure("crashed", "the instance died")],
            "switch was cut off in the middle of its answer: the instance died (crashed)",
        ),
        ([stall], "switch was too slow in the middle of its answer: it fell silent for 0.05 s (timeout)"),
        ([], "switch was cut off in the middle of its answer: it ended without its whole answer (crashed)"),
    ],
)
async def test_an_answer_that_was_cut_is_replaced_and_the_replacement_is_marked(cut: list[object], reason: str) -> None:
    """A reader must not take half an answer of a model and a whole one of madre for one text."""
    scripted = ScriptedBus(*words("Half an ", "answ"), *cut, answer=heard("I am madre."))  # type: ignore[arg-type]
    chunks, reply = await asked(scripted, patience=Patience(first_word=5, between=0.05))
    assert [chunk.restart for chunk in chunks] == [False, False, True]
    assert told(chunks) == reply.response == "I am madre."
    assert reply.reason == reason


async def test_thinking_aloud_is_a_sign_of_life_but_no_part_of_the_answer() -> None:
    """A reasoning model may think for longer than the first word may take."""

    steps = [step for _ in range(4) for step in (pause, ModelChunk(reasoning="hm"))]
    chunks, reply = await asked(ScriptedBus(*steps, whole("Four.")), patience=Patience(0.15, 0.15))
    assert (chunks, reply.response, reply.degraded) == ([], "Four.", False)


async def test_a_stream_that_was_given_up_is_closed() -> None:
    """What stays open keeps switch awake and its provider paid."""
    scripted = ScriptedBus(*words("Half"), stall)
    await asked(scripted, patience=BRISK)
    assert scripted.streams_open == 0


async def test_a_caller_who_leaves_closes_the_stream() -> None:
    scripted = ScriptedBus(*words("One", "Two"), stall)
    async with aclosing(chat(Chat(message="hi"), scripted.bus, called(), Sessions(None), Patience())) as frames:  # type: ignore[type-var]
        assert (await anext(frames)) == ChatChunk(text="One")
        assert scripted.streams_open == 1
    assert scripted.streams_open == 0


@pytest.mark.parametrize(
    ("switch_fails", "madre_fails", "code"),
    [
        (DENIED, Failure("unavailable", "nobody answers"), "unavailable"),
        (Failure("crashed", "it died"), Failure("busy", "too much to do"), "unavailable"),
        (DENIED, Failure("timeout", "no answer"), "timeout"),
        (DENIED, Failure("crashed", "it died, too"), "crashed"),
    ],
)
async def test_when_both_fail_both_reasons_are_told(switch_fails: Failure, madre_fails: Failure, code: str) -> None:
    """And the code is one that may be asked again only if madre surely did nothing."""
    with pytest.raises(Failure) as caught:
        await asked(ScriptedBus(switch_fails, answer=madre_fails))
    assert caught.value.code == code
    for failure in (switch_fails, madre_fails):
        assert f"{failure.message} ({failure.code})" in caught.value.message
    assert caught.value.details["switch"]["error"] == switch_fails.code
    assert caught.value.details["madre"]["error"] == madre_fails.code


async def test_of_the_time_that_is_left_some_is_kept_for_madre() -> None:
    scripted = ScriptedBus(DENIED)
    deadline = str(int((time.time() + 30) * 1000))
    await asked(scripted, call=called(**{DEADLINE: deadline}))
    assert 24 < scripted.timeouts["switch"] <= 30 - MADRE_S
    assert 29 < scripted.timeouts["madre"] <= 30


async def test_a_short_deadline_leaves_switch_half_of_it() -> None:
    """Less than what is kept for madre is still enough for a quick model."""
    _, reply = await asked(ScriptedBus(pause, whole("x")), call=called(**{DEADLINE: str(int((time.time() + 1) * 1000))}))
    assert not reply.degraded


async def test_a_short_deadline_still_leaves_madre_half_of_it() -> None:
    scripted = ScriptedBus(stall)
    begun = time.monotonic()
    _, reply = await asked(scripted, call=called(**{DEADLINE: str(int((time.time() + 0.4) * 1000))}))
    assert time.monotonic() - begun < 0.35
    assert scripted.timeouts["madre"] > 0.1
    assert reply.degraded


async def test_without_a_deadline_the_class_says_how_long() -> None:
    scripted = ScriptedBus(whole("x"))
    await asked(scripted)
    assert scripted.timeouts["switch"] == pytest.approx(Chat.timeout - MADRE_S, abs=1)


async def test_madre_hears_whose_yes_it_is_and_what_the_caller_may() -> None:
    """Her yes is one session's, and a token that may only chat must not put actors to sleep through her."""
    scripted = ScriptedBus(DENIED)
    await asked(scripted, Chat(message="yes", session_id="mine"), called(**{SCOPES: "chat"}))
    assert (scripted.asked_madre[0].session_id, scripted.asked_madre[0].message) == ("mine", "yes")
    assert scripted.headers == {SCOPES: "chat"}


def test_a_message_that_is_too_long_is_refused_before_anybody_is_asked() -> None:
    with pytest.raises(ValidationError):
        Chat(message="x" * (MESSAGE_MAX_CHARS + 1))


def test_the_actor_has_the_verbs_that_are_promised() -> None:
    assert set(actor.requests) == {"chat", "list_sessions", "get_session", "rename_session", "delete_session"}


def test_declaring_the_actor_imports_nothing_heavy() -> None:
    """Its zygote does it for an actor that may never wake."""
    code = "import sys, actors.operator_backend.actor; print([m for m in ('redis', 'aiohttp') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
