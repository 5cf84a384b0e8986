"""What is asked, and what the documents of an answer say."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.switch.dialect import Piece, Reader, Stitch, error_of, model_names, question
from actors.switch.failure import ProviderFailed
from schemas.switch import Chat, Turn

HELLO = Chat(messages=[Turn(role="user", content="¡hola!")])


def read(document: Any) -> Piece:
    return Reader().read(document if isinstance(document, str) else json.dumps(document))


def delta(**said: Any) -> dict[str, Any]:
    return {"choices": [{"delta": said}]}


def test_a_question_always_asks_for_a_stream() -> None:
    assert question(HELLO, "m", ask_usage=False) == {
        "model": "m",
        "messages": [{"role": "user", "content": "¡hola!"}],
        "stream": True,
    }


def test_what_the_caller_chose_is_asked_for() -> None:
    asked = question(HELLO.model_copy(update={"temperature": 0.0, "max_tokens": 5}), "m", ask_usage=True)
    assert (asked["temperature"], asked["max_tokens"]) == (0.0, 5)
    assert asked["stream_options"] == {"include_usage": True}


def test_text_and_thoughts_are_kept_apart() -> None:
    assert read(delta(content="Hi")) == Piece(text="Hi")
    assert read(delta(content=None, reasoning_content="hm")) == Piece(reasoning="hm")
    assert read(delta(reasoning="hm")) == Piece(reasoning="hm")


def test_the_end_and_the_counts_are_read() -> None:
    document = {"model": "m-1", "choices": [{"delta": {}, "finish_reason": "length"}]}
    assert read(document) == Piece(finish_reason="length", model="m-1")
    usage = {"prompt_tokens": 3, "total_tokens": 5, "details": {"cached": 1}, "odd": True, "cost": 0.1}
    assert read({"choices": [], "usage": usage}).usage == {"prompt_tokens": 3, "total_tokens": 5}


def test_a_whole_answer_is_read_too() -> None:
    document = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}
    assert Reader().read(json.dumps(document), "message") == Piece("Hi", finish_reason="stop")


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("9" * 5_000, "no JSON"),
        ("[]", "no object"),
        ("3", "no object"),
        ({}, "without choices"),
        ({"choices": {}}, "without choices"),
        ({"choices": ["x"]}, "without choices"),
        ({"choices": [{"delta": "x"}]}, "delta that is no object"),
        (delta(content=3), "content that is no text"),
        (delta(reasoning_content=["x"]), "reasoning_content that is no text"),
        ({"error": {"message": "overloaded"}}, "error document"),
        ({"error": "overloaded", "choices": []}, "error document"),
    ],
)
def test_what_is_no_answer_is_a_failure_of_the_provider(document: Any, reason: str) -> None:
    with pytest.raises(ProviderFailed, match=reason) as failed:
        read(document)
    assert failed.value.blame == "provider"


def test_an_error_inside_a_stream_brings_its_words() -> None:
    with pytest.raises(ProviderFailed) as failed:
        read({"error": {"message": "overloaded"}})
    assert failed.value.said == "overloaded"


def test_no_document_can_make_it_raise_anything_else() -> None:
    """Providers are not trusted."""

    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), _nested, max_leaves=12))
    def check(document: Any) -> None:
        try:
            read(document if isinstance(document, str) else json.dumps(document))
        except ProviderFailed:
            return

    check()


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["choices", "delta", "content", "usage", "error", "message", "model", "finish_reason"])
    return st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": {"message": "no"}}', "no"),
        (b'{"error": "no"}', "no"),
        (b'{"detail": "no"}', "no"),
        (b'{"message": "no"}', "no"),
        (b'{"error": {"message": 3}}', ""),
        (b"<html>no</html>", ""),
        (b"\xff", ""),
        (b"", ""),
    ],
)
def test_the_words_of_an_error_are_found_in_all_usual_shapes(body: bytes, words: str) -> None:
    assert error_of(body) == words


def test_a_model_list_gives_the_names_that_are_names() -> None:
    listed = {"data": [{"id": "a"}, {"id": 3}, {"id": "x" * 201}, {"id": "b\nc"}, "d", {"id": "e"}]}
    assert model_names(json.dumps(listed)) == ["a", "e"]


def test_a_model_list_is_bounded() -> None:
    assert len(model_names(json.dumps({"data": [{"id": f"m{n}"} for n in range(2_000)]}))) == 1_000


def test_something_else_is_no_model_list() -> None:
    with pytest.raises(ProviderFailed, match="without data"):
        model_names("{}")


@given(st.text(max_size=30), st.lists(st.integers(0, 60), max_size=8))
def test_characters_cut_between_their_escapes_are_joined(text: str, cuts: list[int]) -> None:
    r"""Servers that write `🦑` in ASCII as an escape pair may put its halves into two chunks."""
    units = text.encode("utf-16-be", "surrogatepass")
    halves = [chr(int.from_bytes(units[i : i + 2], "big")) for i in range(0, len(units), 2)]
    at = [0, *sorted(min(cut, len(halves)) for cut in cuts), len(halves)]
    stitch = Stitch()
    joined = "".join(stitch.join("".join(halves[a:b])) for a, b in pairwise(at)) + stitch.rest()
    assert joined == text


def test_a_half_character_that_stays_alone_is_replaced() -> None:
    """A lone half cannot travel as UTF-8."""
    stitch = Stitch()
    assert stitch.join("a\udd91b") == "a\N{REPLACEMENT CHARACTER}b"
    assert stitch.join("c\ud83e") == "c"
    assert stitch.rest() == "\N{REPLACEMENT CHARACTER}"
    assert stitch.rest() == ""
