"""madre's chat asks for a yes before she stops anything, and does nothing that was not said."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.madre.assistant import CONFIRM_S, SESSIONS, Assistant
from actors.madre.phrases import EXAMPLES, understand
from actors.madre.speech import SENTENCES
from schemas.madre import MadreChatReply
from tests.madre.house import NOW, House


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def madre(house: House) -> Assistant:
    return Assistant(house)


@pytest.mark.parametrize(
    ("message", "done"),
    [
        ("put operator_backend to sleep", ("sleep", "operator_backend")),
        ("restart switch", ("restart", "switch")),
        ("close the window", ("close_window", "w-1")),
        ("reinicia switch", ("restart", "switch")),
    ],
)
async def test_nothing_is_stopped_before_a_yes(house: House, madre: Assistant, message: str, done: tuple[str, str]) -> None:
    house.window("w-1", "switch")
    asked = await madre.answer(message, "s", NOW)
    assert asked.pending
    assert house.acted == []
    settled = await madre.answer("yes", "s", NOW + CONFIRM_S)
    assert not settled.pending
    assert house.acted == [done]


async def test_she_says_what_she_is_going_to_do(madre: Assistant) -> None:
    reply = await madre.answer("pon a dormir a operator backend", "s", NOW)
    assert reply.response == (
        "Voy a poner a dormir a operator_backend: termina el trabajo que tiene y después para. "
        "¿Lo hago? Di sí antes de 60 segundos, o no."
    )
    assert reply.action == {"verb": "sleep", "targets": ["operator_backend"], "confirm_within_s": 60.0}


async def test_a_yes_counts_once(house: House, madre: Assistant) -> None:
    await madre.answer("restart switch", "s", NOW)
    await madre.answer("yes", "s", NOW)
    await madre.answer("yes", "s", NOW)
    assert house.acted == [("restart", "switch")]


async def test_a_no_ends_the_question(house: House, madre: Assistant) -> None:
    await madre.answer("restart switch", "s", NOW)
    assert (await madre.answer("no", "s", NOW)).response == "All right. I did not restart switch."
    await madre.answer("yes", "s", NOW)
    assert house.acted == []


async def test_a_late_yes_does_nothing_and_says_so(house: House, madre: Assistant) -> None:
    await madre.answer("restart switch", "s", NOW)
    reply = await madre.answer("yes", "s", NOW + CONFIRM_S + 0.1)
    assert "I did not restart switch" in reply.response
    assert house.acted == []


async def test_the_yes_of_another_session_confirms_nothing(house: House, madre: Assistant) -> None:
    await madre.answer("restart switch", "mine", NOW)
    await madre.answer("yes", "yours", NOW)
    assert house.acted == []


async def test_without_a_session_nothing_can_be_confirmed(house: House, madre: Assistant) -> None:
    """Everybody who sends no session shares the empty one."""
    reply = await madre.answer("restart switch", "", NOW)
    assert not reply.pending
    await madre.answer("yes", "", NOW)
    assert house.acted == []


@pytest.mark.parametrize("between", ["status", "what a nice day", "wake hormiguero"])
async def test_whatever_is_said_instead_of_yes_drops_the_question(house: House, madre: Assistant, between: str) -> None:
    await madre.answer("restart switch", "s", NOW)
    reply = await madre.answer(between, "s", NOW)
    assert reply.response.endswith("(I did not restart switch: there was no yes.)")
    await madre.answer("yes", "s", NOW)
    assert ("restart", "switch") not in house.acted


async def test_the_newest_question_is_the_one_that_is_confirmed(house: House, madre: Assistant) -> None:
    await madre.answer("restart switch", "s", NOW)
    await madre.answer("restart hormiguero", "s", NOW)
    await madre.answer("yes", "s", NOW)
    assert house.acted == [("restart", "hormiguero")]


async def test_who_sleeps_already_is_not_put_to_sleep(house: House, madre: Assistant) -> None:
    reply = await madre.answer("put switch to sleep", "s", NOW)
    assert (reply.response, reply.pending) == ("switch: already asleep.", False)


async def test_who_carries_the_conversation_is_not_stopped_by_it(house: House, madre: Assistant) -> None:
    """It would wait for the answer, and the answer for it, until the deadline."""
    asked = await madre.answer("restart operator_backend", "s", NOW, path=["operator_backend"])
    assert not asked.pending
    assert "vx11 restart operator_backend" in asked.response
    await madre.answer("restart operator_backend", "s", NOW)
    await madre.answer("yes", "s", NOW, path=["operator_backend"])
    assert house.acted == []


@pytest.mark.parametrize("message", ["wake switch", "restart switch", "open a window for 1 minute for switch"])
async def test_who_may_not_move_actors_only_looks(house: House, madre: Assistant, message: str) -> None:
    reply = await madre.answer(message, "s", NOW, may_move=False)
    assert reply.response == SENTENCES["may_not"]["en"]
    await madre.answer("yes", "s", NOW)
    assert house.acted == []


async def test_the_yes_too_needs_the_right_to_move(house: House, madre: Assistant) -> None:
    await madre.answer("restart switch", "s", NOW)
    await madre.answer("yes", "s", NOW, may_move=False)
    assert house.acted == []


async def test_the_session_longest_silent_gives_way_not_the_oldest(house: House, madre: Assistant) -> None:
    for i in range(SESSIONS):
        await madre.answer("no", f"s{i}", NOW)
    await madre.answer("restart switch", "s0", NOW)
    await madre.answer("no", "one more", NOW)
    await madre.answer("yes", "s0", NOW)
    assert house.acted == [("restart", "switch")]


async def test_sessions_are_bounded(house: House, madre: Assistant) -> None:
    await madre.answer("restart switch", "first", NOW)
    for i in range(SESSIONS):
        await madre.answer("no", f"s{i}", NOW)
    assert len(madre._talks) == SESSIONS
    assert (await madre.answer("yes", "first", NOW)).response == SENTENCES["nothing_pending"]["en"]
    assert house.acted == []


NAMES = ["switch", "operator backend", "hormiguero", "nobody", "switch and hormiguero", ""]
PHRASES = st.one_of(
    st.sampled_from([text for rows in EXAMPLES.values() for _, text in rows]),
    st.sampled_from(["yes", "no", "ok", "sí", "hola", "do not wake switch", "don't stop switch", "yes?", "..."]),
    st.builds(
        "{} {}".format,
        st.sampled_from(["wake", "stop", "restart", "apaga", "reinicia", "why", "close window", "never stop"]),
        st.sampled_from(NAMES),
    ),
    st.text(max_size=80),
)
TALK = st.lists(st.tuples(PHRASES, st.sampled_from(["", "a", "b"]), st.floats(0, 100), st.booleans()), max_size=12)
STOPS = {"sleep", "restart", "close_window"}


@settings(max_examples=300)
@given(TALK)
async def test_nothing_is_done_but_by_its_phrase_and_nothing_stopped_but_by_a_yes(
    talk: list[tuple[str, str, float, bool]],
) -> None:
    """The one promise of a chat with power: judged here without looking at how it is kept."""
    house, now = House(), NOW
    house.window("w-1", "switch")
    madre = Assistant(house)
    asked: dict[str, tuple[MadreChatReply, float]] = {}
    for message, session, later, may_move in talk:
        now += later
        house.done.clear()
        reply = await madre.answer(message, session, now, may_move=may_move)
        assert reply.response
        phrase = understand(message)
        said = phrase.intent if phrase else ""
        for done in house.acted:
            assert may_move
            if done[0] not in STOPS:
                assert said == done[0]
                continue
            question, when = asked[session]
            assert session
            assert said == "yes"
            assert now - when <= CONFIRM_S
            assert question.pending
            assert question.action is not None
            assert (question.action["verb"], done[1] in question.action["targets"]) == (done[0], True)
        asked[session] = (reply, now)
