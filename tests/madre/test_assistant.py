"""madre's chat: what she does and how she tells it."""

from __future__ import annotations

import asyncio
import string

import pytest

from actors.madre.assistant import Assistant
from actors.madre.moves import Moves
from actors.madre.phrases import EXAMPLES
from actors.madre.speech import CODES_ES, SENTENCES, STATES
from schemas.errors import Failure
from schemas.madre import Moved, Transition
from tests.madre.house import NOW, House


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def madre(house: House) -> Assistant:
    return Assistant(house)


async def test_status_tells_policy_actors_and_windows(house: House, madre: Assistant) -> None:
    house.window("w-1", "switch", ttl_sec=90)
    reply = await madre.answer("status", "s", NOW)
    assert reply.response.splitlines() == [
        "Policy solo_madre, mode windowed. 1 of 3 actors awake.",
        "Awake: operator_backend.",
        "Not awake: switch (asleep) and hormiguero (asleep).",
        "Window w-1: switch, 1 minute 30 seconds left.",
    ]


async def test_she_answers_in_the_language_she_was_asked_in(madre: Assistant) -> None:
    reply = await madre.answer("¿Quién está despierto?", "s", NOW)
    assert reply.response == "Despiertos: operator_backend.\nNo despiertos: switch (dormido) y hormiguero (dormido)."


async def test_a_word_of_both_languages_is_answered_in_the_language_of_the_session(madre: Assistant) -> None:
    await madre.answer("estado", "s", NOW)
    assert (await madre.answer("ok", "s", NOW)).response == SENTENCES["nothing_pending"]["es"]


async def test_waking_is_done_at_once_and_told_as_it_happened(house: House, madre: Assistant) -> None:
    reply = await madre.answer("wake switch", "s", NOW)
    assert reply.response == "switch: asleep → awake (12 ms)."
    assert house.acted == [("wake", "switch")]
    assert reply.action == {
        "verb": "wake",
        "targets": ["switch"],
        "results": [{"service": "switch", "from": "dormant", "to": "active", "elapsed_ms": 12.0, "error": None}],
    }


@pytest.mark.parametrize("name", ["operator backend", "Operator-Backend", "operatorbackend", "the operator_backend actor"])
async def test_a_name_may_be_joined_in_any_way(house: House, madre: Assistant, name: str) -> None:
    await madre.answer(f"wake {name}", "s", NOW)
    assert house.acted == [("wake", "operator_backend")]


async def test_an_unknown_name_does_nothing_and_suggests_the_nearest(house: House, madre: Assistant) -> None:
    reply = await madre.answer("wake hormigero", "s", NOW)
    assert reply.response == (
        'There is no actor "hormigero", so I did nothing. There are: switch, operator_backend and hormiguero. '
        "Did you mean hormiguero?"
    )
    assert house.acted == []


async def test_one_unknown_name_in_a_list_spoils_all_of_it(house: House, madre: Assistant) -> None:
    """Half a command is not what was asked for."""
    await madre.answer("wake switch and put hormiguero to sleep", "s", NOW)
    assert house.acted == []


async def test_a_name_that_may_be_two_actors_is_not_guessed() -> None:
    house = House(**{"my-ant": "dormant", "my_ant": "dormant"})
    madre = Assistant(house)
    reply = await madre.answer("wake myant", "s", NOW)
    assert reply.response == 'By "myant" you may mean my-ant and my_ant. Say it exactly; I did nothing.'
    await madre.answer("wake my-ant", "s", NOW)
    assert house.acted == [("wake", "my-ant")]


async def test_a_window_is_opened_for_the_time_that_was_said(house: House, madre: Assistant) -> None:
    reply = await madre.answer("open a window for 90 minutes for switch and hormiguero", "s", NOW)
    assert house.acted == [("open_window", ("switch", "hormiguero"), 5400.0)]
    assert reply.response.splitlines() == [
        "The window w-1 is open for 1 hour 30 minutes: switch and hormiguero.",
        "switch: asleep → awake (12 ms).",
        "hormiguero: asleep → awake (12 ms).",
    ]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("open a window", "Whom? Say for instance"),
        ("open a window for switch", "For how long? Say for instance"),
        ("open a window for 0 minutes for switch", "A window lasts from 1 second to 7 days"),
        ("open a window for 8 days for switch", "A window lasts from 1 second to 7 days"),
        (f"open a window for {'9' * 200} days for switch", "A window lasts from 1 second to 7 days"),
    ],
)
async def test_what_is_missing_or_out_of_bounds_is_asked_for(house: House, madre: Assistant, message: str, told: str) -> None:
    assert (await madre.answer(message, "s", NOW)).response.startswith(told)
    assert house.acted == []


async def test_of_several_windows_she_asks_which(house: House, madre: Assistant) -> None:
    house.window("w-1", "switch")
    house.window("w-2", "hormiguero", ttl_sec=None)
    reply = await madre.answer("close the window", "s", NOW)
    assert not reply.pending
    assert reply.response.splitlines()[1:] == [
        "Window w-1: switch, 10 minutes left.",
        "Window w-2: hormiguero, until it is closed.",
    ]


@pytest.mark.parametrize("which", ["W-2", "of hormiguero"])
async def test_a_window_is_named_by_its_id_or_its_service(house: House, madre: Assistant, which: str) -> None:
    house.window("w-1", "switch")
    house.window("w-2", "hormiguero")
    await madre.answer(f"close the window {which}", "s", NOW)
    await madre.answer("yes", "s", NOW)
    assert house.acted == [("close_window", "w-2")]


async def test_without_a_window_there_is_none_to_close(madre: Assistant) -> None:
    assert (await madre.answer("cierra la ventana", "s", NOW)).response == "No hay ninguna ventana abierta."


async def test_why_tells_the_state_and_how_it_came_about(madre: Assistant) -> None:
    reply = await madre.answer("why is switch asleep", "s", NOW)
    assert reply.response.splitlines() == [
        "switch is asleep.",
        "It was idle for 300 s.",
        "2026-01-01T10:00:00Z slept (idle)",
    ]


@pytest.mark.parametrize(("message", "minutes"), [("what happened", 10.0), ("qué pasó en la última hora", 60.0)])
async def test_what_happened_looks_back_as_far_as_was_said(house: House, madre: Assistant, message: str, minutes: float) -> None:
    await madre.answer(message, "s", NOW)
    assert house.done == [("recent", minutes)]


async def test_of_much_that_happened_she_tells_the_newest(house: House, madre: Assistant) -> None:
    house.happened = [Transition(at=f"t{i}", what="switch woke") for i in range(50)]
    lines = (await madre.answer("what happened", "s", NOW)).response.splitlines()
    assert lines[:2] == ["In the last 10 minutes:", "… and 30 before that."]
    assert lines[-1] == "t49 switch woke"


async def test_what_is_not_understood_is_said_with_what_is(madre: Assistant) -> None:
    reply = await madre.answer("write me a poem about the sea", "s", NOW)
    assert not reply.understood
    assert "not a language model" in reply.response
    assert all(text in reply.response for _, text in EXAMPLES["en"])


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("wake switch", "switch: I could not. The gate is closed (off_by_policy)."),
        (
            "despierta a switch",
            "switch: no he podido. La política no lo permite (off_by_policy: the gate is closed).",
        ),
    ],
)
async def test_a_failure_is_told_with_its_reason(house: House, madre: Assistant, message: str, told: str) -> None:
    house.failing["wake"] = Failure("off_by_policy", "the gate is closed")
    reply = await madre.answer(message, "s", NOW)
    assert reply.response == told
    assert reply.action is not None
    assert reply.action["results"] == [{"service": "switch", "error": "off_by_policy", "message": "the gate is closed"}]


async def test_one_failure_does_not_hide_what_became_of_the_others(house: House, madre: Assistant) -> None:
    house.failing["restart"] = Failure("timeout", "no answer in 60 s")
    await madre.answer("restart switch, hormiguero", "s", NOW)
    reply = await madre.answer("yes", "s", NOW)
    assert [line.split(":")[0] for line in reply.response.splitlines()] == ["switch", "hormiguero"]


async def test_a_move_that_takes_long_is_told_as_under_way_and_goes_on(house: House) -> None:
    """An actor may have ten minutes of work left; nobody waits for that in a chat, and nothing is cut."""
    finished, done = asyncio.Event(), asyncio.Event()

    async def slow(name: str) -> Moved:
        await finished.wait()
        done.set()
        raise Failure("conflict", "a request called it back")

    house.restart = slow  # type: ignore[method-assign]
    madre = Assistant(house, Moves(patience=0.02))
    await madre.answer("restart switch", "s", NOW)
    reply = await madre.answer("yes", "s", NOW)
    assert reply.response == "switch: still under way, it goes on. Ask me for the status."
    assert reply.action is not None
    assert reply.action["results"] == [{"service": "switch", "under_way": True}]
    finished.set()
    await asyncio.wait_for(done.wait(), 5)


async def test_a_failed_window_tells_why(house: House, madre: Assistant) -> None:
    house.failing["open_window"] = Failure("storage_full", "the bucket is full")
    reply = await madre.answer("open a window for 5 minutes for switch", "s", NOW)
    assert reply.response == "switch: I could not. The bucket is full (storage_full)."


async def test_a_window_that_does_not_close_tells_why(house: House, madre: Assistant) -> None:
    house.window("w-1", "switch")
    house.failing["close_window"] = Failure("timeout", "no answer")
    await madre.answer("close the window", "s", NOW)
    reply = await madre.answer("yes", "s", NOW)
    assert reply.response == "w-1: I could not. No answer (timeout)."


async def test_a_move_that_did_not_happen_is_not_told_as_done(house: House, madre: Assistant) -> None:
    async def stuck(name: str) -> Moved:
        return Moved.model_validate(
            {"service": name, "from": "active", "to": "draining", "elapsed_ms": 9.0, "error": "still busy"}
        )

    house.sleep = stuck  # type: ignore[method-assign]
    await madre.answer("put operator_backend to sleep", "s", NOW)
    reply = await madre.answer("yes", "s", NOW)
    assert reply.response == "operator_backend is finishing its work: it did not work. still busy"


def test_every_sentence_is_there_in_both_languages_with_the_same_parts() -> None:
    parts = {
        key: {lang: {part for _, part, _, _ in string.Formatter().parse(text) if part} for lang, text in said.items()}
        for key, said in SENTENCES.items()
    }
    assert [key for key, said in parts.items() if set(said) != {"en", "es"} or said["en"] != said["es"]] == []
    assert STATES["en"].keys() == STATES["es"].keys()
    assert CODES_ES
