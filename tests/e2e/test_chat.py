"""The chat as people see it: who answers what, who answers when switch cannot, and in which language."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.e2e.command import Vx11
from tests.e2e.house import House
from tests.switch.scripted import Exchange, cuts_after, says, scripted

MOON = {"en": "please tell me something about the moon", "es": "cuéntame algo de la luna, por favor"}
HER_WORDS = {"en": "I do not understand that. I am madre", "es": "Eso no lo entiendo. Soy madre"}
LANGUAGES = ("en", "es")
PIECE = "la "
ENOUGH = 50
"""Pieces that a provider has said before its switch is killed: the first of them have long been passed on."""


@dataclass
class Said:
    """An answer as somebody saw it. `why`: why it was this one who answered; `before`: what was shown and then replaced."""

    text: str
    why: str
    before: str = ""


# -- the three ways ------------------------------------------------------------------------------------------------------


async def whole(home: House, message: str) -> Said:
    answer = await home.chat(message)
    assert answer.status == 200, answer.text
    assert (answer.json["status"], answer.json["fallback_source"]) == ("degraded", "madre")
    return Said(answer.json["response"], answer.json["reason"])


async def streamed(home: House, message: str) -> Said:
    *chunks, reply = await home.chat_stream(message)
    assert [event.name for event in (*chunks, reply)] == ["chunk"] * len(chunks) + ["reply"]
    last = chunks[-1].data
    assert (last["speaker"]["provider"], last["text"]) == ("madre", reply.data["response"])
    before = "".join(event.data["text"] for event in chunks[:-1])
    assert [event.data["restart"] for event in chunks] == [False] * (len(chunks) - 1) + [bool(before)]
    return Said(reply.data["response"], reply.data["reason"], before)


async def typed(home: House, message: str) -> Said:
    """`vx11 chat`, with what it says beside the answer."""
    ran = await asyncio.to_thread(Vx11(home), "chat", message)
    before, _, text = ran.rpartition("\n" + HER_WORDS["en" if message == MOON["en"] else "es"][:5])
    assert bool(before) == ("(that was cut off" in ran.err or "(eso se ha cortado" in ran.err)
    return Said(ran[len(ran) - len(text) - 5 :] if before else ran, ran.err, before)


WAYS = (whole, streamed, typed)
Way = Callable[[House, str], Awaitable[Said]]


# -- why switch does not answer ------------------------------------------------------------------------------------------


@asynccontextmanager
async def closed(home: House) -> AsyncIterator[None]:
    await home.sleep("switch")
    await home.order("set_gate", name="switch", gate="closed")
    try:
        yield
    finally:
        await home.order("set_gate", name="switch", gate="on_demand")


@asynccontextmanager
async def no_model(home: House) -> AsyncIterator[None]:
    assert not (home.home / "providers.toml").exists()
    yield


@asynccontextmanager
async def killed(home: House) -> AsyncIterator[None]:
    """switch dies with kill -9 while it passes an answer on."""
    enough = asyncio.Event()

    async def speaks(exchange: Exchange) -> None:
        await exchange.head()
        for n in range(ENOUGH * 1_000):
            await exchange.say(PIECE)
            await asyncio.sleep(0.005)
            if n == ENOUGH:
                enough.set()

    async def kill() -> None:
        await enough.wait()
        os.kill((await home.status("switch"))["pid"], signal.SIGKILL)

    async with home.model(speaks):
        killing = asyncio.create_task(kill())
        try:
            yield
            assert killing.done(), "it was not switch that spoke"
            await killing
        finally:
            killing.cancel()
            await home.order("wake", name="switch")  # who has died often rests, unless an operator says otherwise


CASES: dict[str, tuple[Callable[[House], AbstractAsyncContextManager[None]], dict[str, str]]] = {
    "closed": (closed, {"en": "switch is off by policy: ", "es": "switch está cerrado por la política: "}),
    "no model": (no_model, {"en": "switch is not available: ", "es": "switch no está disponible: "}),
    "killed": (
        killed,
        {
            "en": "switch was cut off in the middle of its answer: ",
            "es": "switch se ha cortado a mitad de su respuesta: ",
        },
    ),
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
async def test_when_switch_cannot_answer_the_chat_says_so_and_madre_does(home: House, case: str, way: Way, language: str) -> None:
    """Must show 7, in the language of the question. What was said before a crash is replaced, and marked as such."""
    trouble, told = CASES[case]
    async with trouble(home):
        said = await way(home, MOON[language])
    assert said.text.startswith(HER_WORDS[language])
    assert told[language] in said.why
    if case == "killed" and way is not whole:
        assert set(said.before.split()) == {PIECE.strip()}
    else:
        assert not said.before
    assert PIECE * 2 not in said.text


async def test_the_door_itself_answers_in_the_language_of_the_question(home: House) -> None:
    """When operator_backend is closed, too."""
    await home.sleep("operator_backend")
    await home.order("set_gate", name="operator_backend", gate="closed")
    try:
        for language, told in (("en", "is off by policy: "), ("es", "está cerrado por la política: ")):
            for way in WAYS:
                said = await way(home, MOON[language])
                assert said.text.startswith(HER_WORDS[language])
                assert f"operator_backend {told}" in said.why
    finally:
        await home.order("set_gate", name="operator_backend", gate="on_demand")


# -- operating VX11 ------------------------------------------------------------------------------------------------------


async def test_madres_question_and_the_yes_to_it_reach_her_while_a_model_is_there(home: House) -> None:
    """No model is told of either, and the work is hers: with her confirmation and the scopes of the token."""
    async with home.model(says("I am a model.")) as server:
        asked = (await home.chat("restart notebook", body={"session_id": "restarting"})).json
        confirmed = (await home.chat("yes", body={"session_id": "restarting"})).json
        talk = (await home.chat(MOON["en"], body={"session_id": "restarting"})).json
    assert (asked["provider"], asked["status"], asked["pending"]) == ("madre", "ok", True)
    assert (confirmed["provider"], confirmed["status"], confirmed["pending"]) == ("madre", "ok", False)
    assert "notebook" in confirmed["response"]
    assert (talk["response"], talk["provider"]) == ("I am a model.", "studio"), talk["reason"]
    assert [turn["content"] for turn in server.asked[-1].document["messages"]] == [MOON["en"]]
    assert len(server.asked) == 1


async def test_a_question_that_was_asked_at_the_door_hears_its_yes_inside(home: House) -> None:
    """operator_backend, closed when madre asked, may be back when the yes comes; its history knows of no question."""
    await home.sleep("operator_backend")
    await home.order("set_gate", name="operator_backend", gate="closed")
    try:
        asked = (await home.chat("restart notebook", body={"session_id": "through-the-door"})).json
    finally:
        await home.order("set_gate", name="operator_backend", gate="on_demand")
    async with home.model(says("Done!")) as server:
        confirmed = (await home.chat("sí", body={"session_id": "through-the-door"})).json
    assert (asked["pending"], asked["degraded"]) == (True, True)
    assert (confirmed["provider"], confirmed["status"], server.asked) == ("madre", "ok", [])
    assert "notebook" in confirmed["response"]


@pytest.mark.parametrize(("message", "told"), [("who is awake?", "Awake: "), ("¿quién está despierto?", "Despiertos: ")])
async def test_a_question_about_the_platform_is_answered_by_madre_and_nothing_is_amiss(
    home: House, message: str, told: str
) -> None:
    async with home.model(says("I do not know.")) as server:
        said = (await home.chat(message)).json
        ran = await asyncio.to_thread(Vx11(home), "chat", message)
    assert (said["provider"], said["status"], said["degraded"], said["fallback_code"]) == ("madre", "ok", False, None)
    assert said["response"].startswith(told)
    assert ran.startswith(told)
    assert "▲" not in ran.err
    assert server.asked == []


async def test_what_nobody_does_yet_is_not_pretended(home: House) -> None:
    """A model answers, is told that it can do nothing, and the person is told the same."""
    async with home.model(says("df -h shows it.")) as server:
        said = (await home.chat("check the disk")).json
    assert (said["response"], said["status"]) == ("df -h shows it.", "ok")
    assert "hormiguero" in said["note"]
    assert [turn["role"] for turn in server.asked[-1].document["messages"]] == ["system", "user"]


async def test_a_token_that_may_only_chat_moves_nobody(home: House) -> None:
    _, token = home.tokens.new(scopes=["chat"])
    async with home.model(says("Done!")):
        said = (await home.chat("restart notebook", body={"session_id": "may-not"}, token=token)).json
    assert (said["provider"], said["pending"]) == ("madre", False)
    assert "scope power" in said["response"]


# -- who speaks ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def cut_and_continued(home: House) -> AsyncIterator[None]:
    """`one` is cut off in the middle of its answer, `two` goes on."""
    async with scripted(cuts_after("The moon is ", "made of ")) as one, scripted(says("stone.")) as two:
        tables = (f'[{name}]\nurl = "{server.url}"\nmodel = "m-{name}"\n' for name, server in (("one", one), ("two", two)))
        file = home.home / "providers.toml"
        file.write_text("".join(tables))
        try:
            yield
        finally:
            file.unlink()


async def test_whoever_goes_on_with_an_answer_is_named(home: House) -> None:
    """In the stream where it happens, at the end of the answer, and in the session."""
    options = {"json": {"message": MOON["en"], "session_id": "two-voices", "stream": True}}
    async with cut_and_continued(home):
        async with home.follow("POST", "/operator/api/chat", **options) as events:
            *chunks, reply = [event async for event in events]
        ran = await asyncio.to_thread(Vx11(home), "chat", MOON["en"])
    said = [(event.data["text"], (event.data["speaker"] or {}).get("model")) for event in chunks]
    assert "".join(text for text, _ in said) == reply.data["response"] == "The moon is made of stone."
    assert [model for _, model in said if model] == ["m-one", "m-two"]
    assert [(one["provider"], one["characters"]) for one in reply.data["speakers"]] == [("one", 20), ("two", 6)]
    assert reply.data["reason"]
    kept = (await home.post("/call/operator_backend/get_session", {"session_id": "two-voices"})).json["lines"][-1]
    assert (kept["speakers"], kept["reason"]) == (reply.data["speakers"], reply.data["reason"])
    assert ran == "The moon is made of stone.\n"
    assert "— m-two goes on (one was cut off)" in ran.err
    assert "m-one (one), m-two (two)" in ran.err


async def test_a_model_that_nobody_has_is_told_as_a_mistake(home: House) -> None:
    async with home.model(says("I am tiny.")):
        wished = await home.chat(MOON["en"], body={"model": "tiny"})
        answer = await home.chat(MOON["en"], body={"model": "huge"})
        ran = await asyncio.to_thread(Vx11(home).run, "chat", "--model", "huge", MOON["en"])
    assert wished.json["model"] == "tiny"
    assert (answer.status, answer.json["error"], answer.json["field"]) == (400, "invalid", "model")
    assert "studio/tiny" in answer.json["message"]
    assert ran.code == 65
    assert "studio/tiny" in ran.err
