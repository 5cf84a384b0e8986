"""`key=value` words become the fields that the verb's schema asks for."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from gateway.cli.values import check_complete, fields, usage
from schemas.errors import Failure


class Inner(BaseModel):
    deep: int


class Everything(BaseModel):
    text: str
    count: int = 0
    share: float = 0.0
    on: bool = False
    maybe: int | None = None
    either: int | str = 0
    names: list[str] = []
    numbers: list[int] = []
    inner: Inner | None = None
    table: dict[str, Any] = {}
    things: list[Inner] = []
    colour: Literal["red", "blue"] = "red"
    anything: Any = None


SCHEMA = {**Everything.model_json_schema(), "additionalProperties": False}


def read(*words: str) -> dict[str, Any]:
    return fields(words, SCHEMA, verb="x.y")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("text=12", "12"),
        ("text=", ""),
        ("text=a=b", "a=b"),
        ("text=true", "true"),
        ("count=-3", -3),
        ("share=3", 3),
        ("share=2.5e-3", 0.0025),
        ("on=true", True),
        ("on=no", False),
        ("on=1", True),
        ("maybe=null", None),
        ("maybe=7", 7),
        ("either=7", 7),
        ("either=seven", "seven"),
        ("names=a,b", ["a", "b"]),
        ("names=", []),
        ('names=["a,b"]', ["a,b"]),
        ("numbers=1,2", [1, 2]),
        ('inner={"deep": 1}', {"deep": 1}),
        ("inner=null", None),
        ('table={"a": [1]}', {"a": [1]}),
        ('things=[{"deep": 1}]', [{"deep": 1}]),
        ("colour=blue", "blue"),
        ("anything=[1]", [1]),
        ("anything=word", "word"),
    ],
)
def test_a_value_is_read_as_its_schema_says(word: str, value: Any) -> None:
    assert read(word) == {word.partition("=")[0]: value}


@pytest.mark.parametrize(
    "word",
    ["count=1.5", "count=many", "share=inf", "share=nan", "on=perhaps", "maybe=x", "inner=5", "inner={", "things=1,2",
     "colour=green", "table=[]", "numbers=a"],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_it_is_sent(word: str) -> None:
    """Nobody is woken for a request that could only be refused."""
    with pytest.raises(Failure) as refused:
        read(word)
    assert refused.value.code == "invalid"
    assert word.partition("=")[0] in refused.value.message


def test_a_field_that_does_not_exist_is_answered_with_the_nearest() -> None:
    with pytest.raises(Failure, match="did you mean count"):
        read("coutn=3")


def test_words_that_are_no_fields_are_refused() -> None:
    for word in ("text", "=x"):
        with pytest.raises(Failure, match="no key=value"):
            read(word)


def test_a_field_is_given_once() -> None:
    with pytest.raises(Failure, match="twice"):
        read("count=1", "count=2")


def test_a_missing_field_is_named_with_the_command_that_would_be_right() -> None:
    with pytest.raises(Failure, match="needs text") as refused:
        check_complete({}, SCHEMA, verb="x.y")
    assert refused.value.details["next"][0][0] == "vx11 call x.y text=TEXT"
    assert usage("x.y", SCHEMA) == "vx11 call x.y text=TEXT"


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_is_kept_as_it_is(text: str) -> None:
    assert read(f"text={text}") == {"text": text}


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists)))
def test_any_json_object_is_kept_as_it_is(table: dict[str, Any]) -> None:
    assert read(f"table={json.dumps(table)}") == {"table": table}


@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_numbers_and_truth_survive(count: int, share: float, on: bool) -> None:
    found = read(f"count={count}", f"share={share!r}", f"on={on}")
    assert found == {"count": count, "share": share, "on": on}
