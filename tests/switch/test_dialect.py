"""What is asked, and what the documents of an answer say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.switch.asking.dialect import Piece, Reader, complaint_of, model_names, question
from actors.switch.asking.failure import ProviderFailed
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
    assert complaint_of(body).words == words


def test_a_model_list_gives_the_names_that_are_names() -> None:
    listed = {"data": [{"id": "a"}, {"id": 3}, {"id": "x" * 201}, {"id": "b\nc"}, "d", {"id": "e"}]}
    assert model_names(json.dumps(listed)) == ["a", "e"]


def test_a_model_list_is_bounded() -> None:
    assert len(model_names(json.dumps({"data": [{"id": f"m{n}"} for n in range(2_000)]}))) == 1_000


def test_something_else_is_no_model_list() -> None:
    with pytest.raises(ProviderFailed, match="without data"):
        model_names("{}")


@pytest.mark.parametrize(
    "error",
    [
        {"code": "context_length_exceeded", "message": "no"},
        {"type": "exceed_context_size_error", "code": 400, "n_ctx": 2048},
        {"message": "This model's maximum context length is 8192 tokens."},
        {"message": "the request exceeds the available context size"},
        {"message": "prompt is too long: 210000 tokens > 200000 maximum"},
        "input length exceeds the context length",
    ],
)
def test_a_conversation_that_is_too_long_is_known_in_the_words_of_all(error: Any) -> None:
    assert complaint_of(json.dumps({"error": error}).encode()).too_long


def test_another_error_is_not_taken_for_a_conversation_that_is_too_long() -> None:
    assert not complaint_of(b'{"error": {"message": "too many requests", "code": "rate_limit_exceeded"}}').too_long


@pytest.mark.parametrize(
    ("error", "blame"),
    [
        ({"code": 429}, "provider"),
        ({"code": 400}, "caller"),
        ({"code": 401}, "setup"),
        ({"code": "context_length_exceeded"}, "caller"),
        ({"code": True}, "provider"),
        ("overloaded", "provider"),
    ],
)
def test_an_error_inside_a_stream_says_whose_fault_it_is(error: Any, blame: str) -> None:
    with pytest.raises(ProviderFailed) as failed:
        read({"error": error})
    assert failed.value.blame == blame


def test_all_that_the_caller_chose_is_passed_on_as_it_is() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    chosen: dict[str, Any] = {
        "temperature": 0.0,
        "max_tokens": 5,
        "top_p": 0.5,
        "presence_penalty": 1.0,
        "frequency_penalty": -1.0,
        "seed": 0,
        "stop": ["a"],
        "tools": [tool],
        "tool_choice": "none",
        "parallel_tool_calls": False,
        "response_format": {"type": "json_object"},
        "reasoning_effort": "low",
    }
    asked = question(HELLO.model_copy(update=chosen), "m", ask_usage=False)
    assert {name: asked[name] for name in chosen} == chosen


def test_turns_are_passed_on_as_openai_writes_them() -> None:
    """Strict servers want `content: null` where only tools are called, and no other null anywhere."""
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        Turn(role="user", content=parts),
        Turn(role="assistant", tool_calls=[call]),
        Turn(role="tool", content="4", tool_call_id="c1"),
    ]
    assert question(Chat(messages=turns), "m", ask_usage=False)["messages"] == [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
    ]


def test_deltas_of_tool_calls_are_pieces() -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}
    assert read(delta(content=None, tool_calls=[call])) == Piece(tool_calls=(call,))
    assert read(delta(tool_calls=None)) == Piece()


@pytest.mark.parametrize("calls", [3, "x", ["x"], {"a": 1}])
def test_tool_calls_in_another_shape_are_a_failure(calls: Any) -> None:
    with pytest.raises(ProviderFailed, match="no list of objects"):
        read(delta(tool_calls=calls))


def test_pieces_are_joined_only_as_long_as_their_order_stays() -> None:
    """A thought after the answer has begun must not appear before it."""
    call = {"index": 0}
    assert Piece("a", reasoning="t").then(Piece("b", "", "stop")) == Piece("ab", "t", "stop")
    assert Piece(reasoning="t").then(Piece("a", "u")) == Piece("a", "tu")
    assert Piece("a").then(Piece(tool_calls=(call,))) == Piece("a", tool_calls=(call,))
    assert Piece("a").then(Piece(reasoning="t")) is None
    assert Piece(tool_calls=(call,)).then(Piece("a")) is None
