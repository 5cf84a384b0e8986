"""How an answer grows under several speakers."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.switch.answer import ANSWER_MAX_CHARS, Answer
from actors.switch.asking.dialect import Piece, question
from actors.switch.asking.failure import ProviderFailed
from actors.switch.choosing.choice import Choice
from actors.switch.configured.providers import Provider
from actors.switch.configured.traits import Traits
from actors.switch.outcome import reply
from schemas.switch import Chat, Speaker, Turn
from tests.switch.reciting import MANNERS, PREFILLED, Manner, Recital, prose

HELLO = Chat(messages=[Turn(role="user", content="hello")])
CLOUD = Choice(Provider("cloud", "http://127.0.0.1:9/v1", "big"), "big", "the configured order")
NOTE = "offline model, 135M, English"
SMALL = Choice(Provider("local", "", "tiny"), "tiny", "the next in line", Traits(prefill=True, offline=True, note=NOTE))


def test_a_small_model_says_what_it_is_wherever_it_begins_to_speak() -> None:
    answer = Answer(HELLO)
    answer.begin(CLOUD)
    answer.hear(Piece("Once upon "))
    answer.begin(SMALL)
    chunk = answer.hear(Piece("a time", finish_reason="stop"))
    assert chunk is not None
    assert chunk.speaker == Speaker(provider="local", model="tiny", note=NOTE)
    whole = reply(SMALL, answer, [], 0.0, 0.5, 1.0)
    assert (whole.text, whole.note, whole.first_ms, whole.latency_ms) == ("Once upon a time", NOTE, 500.0, 1000.0)
    assert [speaker.note for speaker in whole.speakers] == ["", NOTE]


def test_what_was_said_is_an_unfinished_turn_for_those_who_can() -> None:
    answer = Answer(HELLO)
    assert answer.begin(SMALL) == HELLO
    answer.hear(Piece("Once"))
    assert answer.begin(SMALL).messages == [*HELLO.messages, Turn(role="assistant", content="Once")]
    *_, said, asked = answer.begin(CLOUD).messages
    assert said == Turn(role="assistant", content="Once")
    assert str(asked.content).endswith('"Once"')


def test_nobody_is_told_to_go_on_with_nothing() -> None:
    """A blank at the beginning is no beginning; it is not doubled either."""
    answer = Answer(HELLO)
    answer.begin(CLOUD)
    answer.hear(Piece("\n"))
    assert answer.begin(SMALL) == HELLO
    answer.hear(Piece("\nHello"))
    answer.end()
    assert answer.text == "\nHello"


def test_nothing_to_add_is_an_end_only_of_an_unfinished_turn() -> None:
    """To a question, silence is no answer."""
    answer = Answer(HELLO)
    answer.begin(CLOUD)
    answer.hear(Piece("All is said."))
    answer.begin(CLOUD)
    answer.hear(Piece(finish_reason="stop"))
    with pytest.raises(ProviderFailed, match="without a word"):
        answer.end()
    answer.begin(SMALL)
    answer.hear(Piece(finish_reason="stop"))
    assert answer.end() is None


def test_a_call_that_was_garbage_at_once_is_no_beginning() -> None:
    answer = Answer(HELLO)
    answer.begin(CLOUD)
    with pytest.raises(ProviderFailed):
        answer.hear(Piece(tool_calls=({"index": 0, "function": {"name": "f"}}, {"index": 7, "function": {}})))
    assert not answer.stuck
    answer.begin(CLOUD)
    answer.hear(Piece("Hi"))
    assert (answer.text, answer.tool_calls()) == ("Hi", [])


@pytest.mark.parametrize(("first", "stuck"), [("Once ", True), ("", False)])
def test_too_much_at_once_ends_the_answer_only_when_it_has_begun(first: str, stuck: bool) -> None:
    """Else somebody else may be briefer."""
    answer = Answer(HELLO)
    answer.begin(CLOUD)
    answer.hear(Piece(first, "hm"))
    with pytest.raises(ProviderFailed, match="characters"):
        answer.hear(Piece("x" * ANSWER_MAX_CHARS + "y"))
    assert bool(answer.stuck) is stuck
    assert answer.text == first


def test_everybody_may_think_as_long_as_the_first() -> None:
    answer = Answer(HELLO)
    for _ in range(3):
        answer.begin(CLOUD)
        assert answer.hear(Piece(reasoning="x" * ANSWER_MAX_CHARS)) is not None


turns = st.lists(
    st.tuples(
        st.sampled_from([*((manner, False) for manner in MANNERS), *((manner, True) for manner in PREFILLED)]),
        st.integers(0, 200),
    ),
    max_size=5,
)


@given(st.integers(0, 10**6), turns, st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_whoever_takes_turns_in_whatever_manner_the_text_is_told_once(
    seed: int, breaks: list[tuple[tuple[Manner, bool], int]], sizes: list[int]
) -> None:
    """All but the last break off after some characters, of which some may have been held back."""
    rng = random.Random(seed)
    known, answer, told = Recital(prose(rng)), Answer(HELLO), ""
    for (manner, prefill), length in [*breaks, (("anchor", False), 10**6)]:
        choice = replace(CLOUD, traits=Traits(prefill=prefill))
        rest = known.rest(question(answer.begin(choice), "m", ask_usage=False), manner, rng)[:length]
        while rest:
            size = rng.choice(sizes)
            chunk = answer.hear(Piece(rest[:size]))
            told += chunk.text if chunk else ""
            rest = rest[size:]
    last = answer.end()
    assert told + (last.text if last else "") == answer.text == known.text
    assert sum(speaker.characters for speaker in answer.speakers) == len(known.text)
    assert known.wrong == []


def test_an_answer_that_reaches_its_length_within_a_repetition_has_nothing_new() -> None:
    answer = Answer(HELLO)
    answer.begin(CLOUD)
    answer.hear(Piece("Once upon a time there was a squid"))
    answer.begin(CLOUD)
    answer.hear(Piece("time there was", finish_reason="length"))
    assert answer.end() is None
    assert (answer.text, answer.finish_reason) == ("Once upon a time there was a squid", "length")
