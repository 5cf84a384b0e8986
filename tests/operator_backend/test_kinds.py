"""Who answers what: a model talks, madre operates VX11, and nobody pretends to do what is done by nobody yet."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from actors.operator_backend.actor import chat
from actors.operator_backend.conversation import Patience
from actors.operator_backend.sentences import CANNOT_ACT, SENTENCES
from actors.operator_backend.sessions import Sessions
from bus.call import SCOPES, call_from
from schemas import madre
from schemas.errors import Failure
from schemas.operator_backend import Chat, ChatChunk, ChatReply
from schemas.switch import ModelChunk, ModelReply, Speaker
from tests.operator_backend.scripted import DENIED, HERS, ScriptedBus, heard, not_heard, sorted_as, whole, words

NOTE = "offline model, 135M, English"


def unreadable() -> Exception:
    try:
        madre.Recognised.model_validate({"hers": "perhaps"})
    except ValidationError as error:
        return error
    raise AssertionError("that can be understood")


async def asked(
    scripted: ScriptedBus, message: str, *, sessions: Sessions | None = None, model: str | None = None, **headers: str
) -> tuple[list[ChatChunk], ChatReply]:
    request = Chat(message=message, session_id="s", model=model)
    frames = [f async for f in chat(request, scripted.bus, call_from(headers), sessions or Sessions(None), Patience())]
    *chunks, reply = frames
    assert isinstance(reply, ChatReply)
    return [chunk for chunk in chunks if isinstance(chunk, ChatChunk)], reply


# -- what switch is told -------------------------------------------------------------------------------------------------


async def test_switch_sorts_and_trims_and_knows_whose_session_it_is_and_who_pays() -> None:
    scripted = ScriptedBus(whole("x"))
    await asked(scripted, "hello", model="gpt", **{"vx11-caller": "token-7"})
    (told,) = scripted.asked_switch
    assert (told.sort, told.trim, told.session_id, told.holder, told.model) == (True, True, "s", "token-7", "gpt")


async def test_a_model_that_nobody_has_is_a_mistake_of_the_question() -> None:
    """Another model than the one wished for would be a silent lie, and so would madre be."""
    scripted = ScriptedBus(Failure("not_found", "no configured provider has the model 'gpt'; configured: tiny"))
    with pytest.raises(Failure, match="configured: tiny") as caught:
        await asked(scripted, "hello", model="gpt")
    assert (caught.value.code, caught.value.details["field"]) == ("invalid", "model")
    assert scripted.asked_madre == []


# -- who said what -------------------------------------------------------------------------------------------------------


async def test_who_begins_to_speak_is_told_before_the_words_and_why_after_them() -> None:
    one, two = Speaker(provider="openai", model="gpt"), Speaker(provider="local", model="smol", note=NOTE)
    reply = ModelReply(
        text="Half and half",
        model="smol",
        provider="local",
        latency_ms=1.0,
        reason="the configured order; openai: cut",
        speakers=[one, two],
        note=NOTE,
    )
    steps = [ModelChunk(speaker=one), ModelChunk(text="Half "), ModelChunk(text="and half", speaker=two), reply]
    chunks, said = await asked(ScriptedBus(*steps), "hello")
    assert [(chunk.text, chunk.speaker) for chunk in chunks] == [("", one), ("Half ", None), ("and half", two)]
    assert (said.speakers, said.note, said.reason) == ([one, two], NOTE, "the configured order; openai: cut")
    assert (said.status, said.degraded, said.fallback_code) == ("ok", False, None)


async def test_one_who_spoke_alone_is_named_too() -> None:
    _, said = await asked(ScriptedBus(*words("Good day"), whole("Good day")), "hello")
    assert said.speakers == [Speaker(provider="local", model="smollm2", characters=8)]


async def test_to_spanish_an_english_model_is_announced_as_one() -> None:
    small = ModelReply(text="Hola.", model="smol", provider="local", latency_ms=1.0, note=NOTE)
    _, said = await asked(ScriptedBus(small), "cuéntame algo de la luna")
    assert said.note == f"{NOTE}; {SENTENCES['only_english']['es']}"
    _, said = await asked(ScriptedBus(small), "tell me about the moon")
    assert said.note == NOTE


@pytest.mark.parametrize(("message", "language"), [("tell me about the moon", "en"), ("cuéntame algo de la luna", "es")])
async def test_an_answer_that_had_to_end_is_not_taken_for_a_whole_one(message: str, language: str) -> None:
    long = ModelReply(text="(122) The time. (123) The", model="m", provider="p", latency_ms=1.0, finish_reason="length")
    _, said = await asked(ScriptedBus(long), message)
    assert said.note == SENTENCES["cut"][language]  # type: ignore[index]


# -- operating VX11 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("message", "language"), [("who is awake", "en"), ("quién está despierto", "es")])
async def test_what_is_about_the_platform_is_madres_and_nothing_is_amiss(message: str, language: str) -> None:
    scripted = ScriptedBus(sorted_as("platform"), answer=heard("Awake: nobody."))
    chunks, said = await asked(scripted, message, **{SCOPES: "chat"})
    assert [(c.text, c.restart, c.speaker and c.speaker.model) for c in chunks] == [("Awake: nobody.", False, "madre")]
    assert (said.response, said.provider, said.status, said.degraded, said.fallback_source, said.fallback_code) == (
        "Awake: nobody.",
        "madre",
        "ok",
        False,
        None,
        None,
    )
    assert said.reason == f"{SENTENCES['platform'][language]} (platform: 0.9)"  # type: ignore[index]
    assert scripted.headers == {SCOPES: "chat"}, "she must know what this token may"
    assert len(scripted.asked_switch) == 1


async def test_what_madre_does_not_understand_is_answered_by_a_model_that_knows_that_it_can_do_nothing() -> None:
    """The sorter errs, and somebody who is left alone with a list of phrases is not answered."""
    scripted = ScriptedBus(
        sorted_as("platform"), then=[*words("Tkinter "), whole("Tkinter has it")], answer=not_heard("close the window", "help")
    )
    chunks, said = await asked(scripted, "how do I open windows in Python?")
    assert (said.response, said.provider, said.status) == ("Tkinter has it", "local", "ok")
    assert said.note == SENTENCES["not_operated"]["en"].format(phrases="close the window / help")
    first, second = scripted.asked_switch
    assert (first.sort, second.sort) == (True, False)
    assert [turn.content for turn in second.messages] == [CANNOT_ACT, "how do I open windows in Python?"]
    assert [chunk.restart for chunk in chunks] == [False]
    assert len(scripted.asked_madre) == 1


async def test_without_a_model_what_madre_does_not_understand_gets_her_list_and_she_is_asked_once() -> None:
    scripted = ScriptedBus(sorted_as("platform"), then=[DENIED], answer=not_heard("help"))
    _, said = await asked(scripted, "make it all stop")
    assert (said.response, said.status, said.fallback_code) == ("I understand only this:", "degraded", "off_by_policy")
    assert len(scripted.asked_madre) == 1


async def test_when_madre_fails_no_model_answers_in_her_place() -> None:
    """It would say that it had done what may or may not have been done."""
    scripted = ScriptedBus(sorted_as("platform"), then=[whole("Done!")], answer=Failure("timeout", "no answer"))
    with pytest.raises(Failure, match="madre was too slow") as caught:
        await asked(scripted, "wake switch")
    assert caught.value.code == "timeout"
    assert (len(scripted.asked_switch), len(scripted.asked_madre)) == (1, 1)


# -- work that nobody does yet -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["job", "audio"])
@pytest.mark.parametrize(("message", "language"), [("please do the thing", "en"), ("haz la cosa por favor", "es")])
async def test_what_nobody_does_yet_is_said_and_a_model_answers(kind: str, message: str, language: str) -> None:
    scripted = ScriptedBus(sorted_as(kind), then=[whole("This is how:")])  # type: ignore[arg-type]
    _, said = await asked(scripted, message)
    assert (said.response, said.status, said.note) == ("This is how:", "ok", SENTENCES[kind][language])  # type: ignore[index]
    assert scripted.asked_switch[1].messages[0].content == CANNOT_ACT
    assert scripted.asked_madre == []


# -- beyond doubt --------------------------------------------------------------------------------------------------------


async def test_what_madre_says_is_hers_no_model_ever_sees() -> None:
    """An order, or the yes to her question: the best sorter errs, and a model would say that it is done."""
    asks = madre.MadreChatReply(response="Shall I?", understood=True, pending=True)
    scripted = ScriptedBus(whole("Done!"), answer=asks, recognised=HERS)
    chunks, said = await asked(scripted, "restart switch", **{SCOPES: "chat power"})
    assert (said.response, said.provider, said.status, said.reason) == ("Shall I?", "madre", "ok", SENTENCES["platform"]["en"])
    assert said.pending
    assert [chunk.text for chunk in chunks] == ["Shall I?"]
    assert scripted.asked_switch == []
    assert (scripted.headers, scripted.asked_madre[0].session_id) == ({SCOPES: "chat power"}, "s")
    assert (scripted.looked[0].message, scripted.looked[0].session_id, scripted.looked[0].asked) == ("restart switch", "s", False)


async def test_what_she_does_not_do_for_want_of_a_yes_is_said_beside_the_answer() -> None:
    dropped = madre.Recognised(hers=False, dropped="(I did not restart switch.)")
    scripted = ScriptedBus(whole("Grey."), recognised=dropped)
    _, said = await asked(scripted, "what colour is the moon?")
    assert (said.response, said.note, said.pending) == ("Grey.", "(I did not restart switch.)", False)
    assert scripted.asked_madre == []


@pytest.mark.parametrize("wrong", [Failure("timeout", "no answer"), unreadable()])
async def test_a_chat_does_not_wait_for_a_madre_who_is_away(wrong: Exception) -> None:
    """Or who says what cannot be understood, as one of another version."""
    scripted = ScriptedBus(whole("Grey."), recognised=wrong)
    _, said = await asked(scripted, "what colour is the moon?")
    assert (said.response, said.status) == ("Grey.", "ok")
