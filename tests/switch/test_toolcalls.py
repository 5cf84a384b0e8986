"""Whatever form servers give to the deltas of tool calls, the same calls come out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.switch.asking.failure import ProviderFailed
from actors.switch.asking.toolcalls import CALLS_MAX, Calls


def delta(index: Any = None, id: Any = None, name: Any = None, arguments: Any = None) -> dict[str, Any]:  # noqa: A002 - OpenAI's name
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    told = {"index": index, "id": id, "function": function or None}
    return {key: value for key, value in told.items() if value is not None}


def made(*deltas: dict[str, Any]) -> list[tuple[str, str]]:
    calls = Calls()
    for one in deltas:
        calls.add([one])
    return [(call["function"]["name"], call["function"]["arguments"]) for call in calls.whole()]


OPENAI = (
    delta(0, "a", "look", ""),
    delta(0, arguments='{"x"'),
    delta(0, arguments=": 1}"),
    delta(1, "b", "go", ""),
    delta(1, arguments="{}"),
)
NO_INDEX = (delta(None, "a", "look", '{"x": 1}'), delta(None, "b", "go", "{}"))
SAME_INDEX = (delta(0, "a", "look", '{"x": 1}'), delta(0, "b", "go", "{}"))
NAME_EACH_TIME = (delta(0, "a", "look", '{"x"'), delta(0, "a", "look", ": 1}"), delta(1, "b", "go", "{}"))
OBJECTS = (delta(0, "a", "look", {"x": 1}), delta(1, "b", "go", {}))
NO_ID = (delta(0, None, "look", '{"x": 1}'), delta(1, None, "go", "{}"))


@pytest.mark.parametrize("deltas", [OPENAI, NO_INDEX, SAME_INDEX, NAME_EACH_TIME, OBJECTS, NO_ID])
def test_all_usual_forms_make_the_same_calls(deltas: tuple[dict[str, Any], ...]) -> None:
    assert made(*deltas) == [("look", '{"x": 1}'), ("go", "{}")]


def test_deltas_are_told_as_openai_tells_them() -> None:
    calls = Calls()
    first, second = calls.add([delta(None, "a", "look", '{"x"')]), calls.add([delta(None, None, None, ": 1}")])
    assert first == [{"index": 0, "id": "a", "type": "function", "function": {"name": "look", "arguments": '{"x"'}}]
    assert second == [{"index": 0, "function": {"arguments": ": 1}"}}]


def test_a_call_without_an_id_gets_one_that_is_its_own() -> None:
    """The result of a tool is sent back under it."""
    calls = Calls()
    calls.add(list(NO_ID))
    ids = [call["id"] for call in calls.whole()]
    assert len({*ids, ""}) == 3


def test_characters_in_two_halves_are_joined_in_arguments_too() -> None:
    assert made(delta(0, "a", "f", '"\ud83e'), delta(0, arguments='\udd91"')) == [("f", '"🦑"')]
    with pytest.raises(ProviderFailed, match="half a character"):
        made(delta(0, "a", "f", '"\ud83e'))


@pytest.mark.parametrize(
    ("deltas", "reason"),
    [
        ([delta(0, "a")], "without a name"),
        ([delta(1, "a", "f")], "out of order"),
        ([delta(-1, "a", "f")], "out of order"),
        ([delta(0, "a", "f", 3)], "no text"),
        ([delta(0, 7, "f")], "no name"),
        ([delta(0, "a", "f\n")], "no name"),
        ([{"index": 0, "function": "f"}], "no object"),
        ([delta(n, f"c{n}", "f") for n in range(CALLS_MAX + 1)], "too many"),
    ],
)
def test_what_is_no_call_is_a_failure_of_the_provider(deltas: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(ProviderFailed, match=reason):
        made(*deltas)


values = st.none() | st.booleans() | st.integers(-2, 200) | st.text(max_size=3) | st.dictionaries(st.text(max_size=2), st.none())


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["index", "id", "function", "type"]),
            values | st.fixed_dictionaries({"name": values, "arguments": values}),
        ),
        max_size=6,
    )
)
def test_no_delta_can_make_it_raise_anything_else(deltas: list[dict[str, Any]]) -> None:
    """Providers are not trusted."""
    try:
        made(*deltas)
    except ProviderFailed:
        return
