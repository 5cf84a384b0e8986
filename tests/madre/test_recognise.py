"""Which messages are madre's beyond doubt, so that no language model is asked to answer them."""

from __future__ import annotations

import pytest

from actors.madre.assistant import CONFIRM_S, Assistant
from actors.madre.phrases import EXAMPLES, nearest
from schemas.madre import Recognised
from tests.madre.house import NOW, House

HERS, NOT_HERS = Recognised(hers=True), Recognised(hers=False)


@pytest.fixture
def house() -> House:
    made = House()
    made.window("w-1", "switch")
    return made


@pytest.fixture
def madre(house: House) -> Assistant:
    return Assistant(house)


async def recognised(madre: Assistant, message: str, *, at: float = NOW, session: str = "s", asked: bool = False) -> Recognised:
    return await madre.recognise(message, session, at, asked=asked)


@pytest.mark.parametrize(
    "message",
    [
        "restart switch",
        "please put operator backend and switch to sleep",
        "despierta a switch",
        "keep switch awake for 10 minutes",
        "close window w-1",
    ],
)
async def test_an_order_that_names_who_exists_is_hers(house: House, madre: Assistant, message: str) -> None:
    assert await recognised(madre, message) == HERS
    assert house.acted == [], "recognising it does nothing"


@pytest.mark.parametrize(
    "message",
    [
        "start a story about ants",
        "explain switch",
        "wake switch and Jim",
        "open a window for 10 minutes",
        "do not restart switch",
        "hello",
        "yes",
        "sí",
        "no",
    ],
)
async def test_what_may_be_said_to_somebody_else_is_not(madre: Assistant, message: str) -> None:
    assert await recognised(madre, message) == NOT_HERS


@pytest.mark.parametrize("word", ["yes", "sí", "no", "do it", "cancela"])
async def test_the_answer_to_her_question_is_hers(madre: Assistant, word: str) -> None:
    await madre.answer("restart switch", "s", NOW)
    assert await recognised(madre, word) == HERS
    assert await recognised(madre, word) == HERS, "asking twice changes nothing"
    assert await recognised(madre, word, session="another") == NOT_HERS


async def test_a_yes_that_comes_too_late_is_hers_to_refuse(house: House, madre: Assistant) -> None:
    await madre.answer("restart switch", "s", NOW)
    late = NOW + CONFIRM_S + 1
    assert await recognised(madre, "yes", at=late) == HERS
    assert "too late" in (await madre.answer("yes", "s", late)).response
    assert house.acted == []


async def test_a_yes_after_other_talk_is_not_hers_any_more(house: House, madre: Assistant) -> None:
    """Between the two somebody else has answered, and may have asked something."""
    await madre.answer("restart switch", "s", NOW)
    dropped = await recognised(madre, "what colour is the moon?")
    assert dropped == Recognised(hers=False, dropped="(I did not restart switch: there was no yes.)")
    assert await recognised(madre, "yes") == NOT_HERS
    await madre.answer("yes", "s", NOW)
    assert house.acted == []


async def test_a_question_that_she_has_forgotten_was_hers_all_the_same(house: House, madre: Assistant) -> None:
    """She may have been started anew; a model would take the yes."""
    assert await recognised(madre, "yes", asked=True) == HERS
    assert await recognised(madre, "what colour is the moon?", asked=True) == NOT_HERS
    assert "not asked you anything" in (await madre.answer("yes", "s", NOW)).response
    assert house.acted == []


@pytest.mark.parametrize(
    ("message", "language", "like"),
    [
        ("please make the switch actor go to sleep later", "en", "put switch to sleep"),
        ("what about closing the window", "en", "close the window"),
        ("cuánto lleva despierto switch", "es", "despierta a switch"),
    ],
)
async def test_she_names_what_is_most_like_what_she_did_not_understand(
    madre: Assistant, message: str, language: str, like: str
) -> None:
    reply = await madre.answer(message, "s", NOW)
    assert not reply.understood
    assert like in reply.nearest
    assert set(reply.nearest) <= {example for _, example in EXAMPLES[language]}  # type: ignore[index]


def test_the_longest_message_is_compared_quickly() -> None:
    assert len(nearest("wake " * 800, "en")) > 0
