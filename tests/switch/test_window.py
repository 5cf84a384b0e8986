"""What is left out of a conversation, and what never is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.switch.choosing.window import PART_TOKENS, TURN_TOKENS, least, room, size, tokens, trimmed
from schemas.errors import Failure
from schemas.switch import Chat, Turn

ONE = 1.0
"""A token for each byte: sizes can be read off the texts."""
CALL = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 50_000}}


def turn(role: Any, text: str | None = "x", **more: Any) -> Turn:
    return Turn(role=role, content=text, **more)


def talk(*turns: Turn, **fields: Any) -> Chat:
    return Chat(messages=list(turns), **fields)


def left(chat: Chat, context: int) -> list[str | None]:
    return [turn.content if isinstance(turn.content, str) else None for turn in trimmed(chat, context, ONE)]


def test_what_fits_is_left_as_it_is() -> None:
    chat = talk(turn("assistant"), turn("user"))
    assert trimmed(chat, 1_000, ONE) is chat.messages
    assert trimmed(chat, None, ONE) is chat.messages


def test_the_oldest_turns_go_first_and_instructions_stay() -> None:
    """60 of 80 tokens are for the turns: three with 20 each."""
    of_12 = "{:12}".format
    turns = [
        turn("system", of_12("rules")),
        *(turn("user", of_12(f"turn {n}")) for n in range(5)),
        turn("developer", of_12("more")),
    ]
    assert [text and text.strip() for text in left(talk(*turns), 107)] == ["rules", "turn 3", "turn 4", "more"]


def test_what_is_left_begins_with_a_user() -> None:
    """Many templates refuse a conversation that the assistant begins."""
    turns = [turn("user", "a" * 60), turn("assistant", "b"), turn("user", "c")]
    assert left(talk(*turns), 100) == ["c"]


def test_a_call_of_a_tool_is_never_parted_from_its_results() -> None:
    called = [turn("user", "u"), turn("assistant", None, tool_calls=[CALL]), turn("tool", "12:00", tool_call_id="c1")]
    whole = talk(turn("user", "z" * 200), *called)
    assert trimmed(whole, 300, ONE) == called
    needed = least(whole, ONE)
    assert needed == tokens(called[1:], ONE)
    assert trimmed(whole, (needed + 1) * 4 // 3 + 1, ONE) == called[1:]
    with pytest.raises(Failure, match="too_large"):
        trimmed(whole, needed, ONE)


def test_a_last_message_that_is_too_long_says_how_long_it_is_and_how_much_fits() -> None:
    with pytest.raises(Failure, match="takes about 1008 tokens, and 300 fit") as refused:
        trimmed(talk(turn("user"), turn("user", "x" * 1_000)), 400, ONE)
    assert (refused.value.code, refused.value.details) == ("too_large", {"tokens": 1_008, "fits": 300})


def test_instructions_that_fill_the_window_are_too_large_too() -> None:
    with pytest.raises(Failure, match="too_large"):
        trimmed(talk(turn("system", "x" * 1_000), turn("user")), 400, ONE)


def test_room_is_kept_for_the_answer_and_the_tools() -> None:
    assert room(talk(turn("user")), 10_000, ONE) == 10_000 - 1_024
    assert room(talk(turn("user"), max_tokens=100), 10_000, ONE) == 9_900
    assert room(talk(turn("user"), max_tokens=100_000), 10_000, ONE) == 7_500
    assert room(talk(turn("user"), max_tokens=100, tools=[CALL]), 10_000, ONE) < 9_900


def test_an_image_is_not_counted_by_its_bytes() -> None:
    chat = talk(Turn(role="user", content=[{"type": "text", "text": "what is this?"}, IMAGE]))
    assert tokens(chat.messages, ONE) == TURN_TOKENS + len("what is this?") + PART_TOKENS
    assert size(chat) is None
    assert size(talk(turn("user", "¿qué?"))) == 7


def test_half_a_character_can_be_counted() -> None:
    assert tokens([turn("user", "\ud83e")], ONE) == TURN_TOKENS + 1


TURNS = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant", "call", "tool"]), st.integers(0, 80)), min_size=1, max_size=12
)


@given(TURNS, st.integers(256, 700))
def test_whatever_was_said_what_is_left_keeps_its_rules(said: list[tuple[str, int]], context: int) -> None:
    """It fits, in its order, with all instructions and the last turn, and no result of a tool without its call."""
    turns = [
        turn("assistant", None, tool_calls=[CALL], name=f"{n}") if role == "call" else turn(role, "x" * long, name=f"{n}")
        for n, (role, long) in enumerate(said)
    ]
    chat = talk(*turns)
    if least(chat, ONE) > room(chat, context, ONE):
        with pytest.raises(Failure, match="too_large"):
            trimmed(chat, context, ONE)
        return
    kept = trimmed(chat, context, ONE)
    names = [int(one.name or "") for one in kept]
    assert names == sorted(names)
    assert tokens(kept, ONE) <= room(chat, context, ONE)
    assert {n for n, one in enumerate(turns) if one.role == "system"} <= set(names)
    others = [n for n, one in enumerate(turns) if one.role != "system"]
    assert not others or others[-1] in names
    if len(kept) == len(turns):
        return
    spoken = [n for n in names if turns[n].role != "system"]
    for n in spoken:
        before = others.index(n) - 1
        assert turns[n].role != "tool" or before < 0 or others[before] in names
    follows = [n for n in others if n >= spoken[0]] if spoken else []
    assert spoken == follows
