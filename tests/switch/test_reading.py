"""What came together is one piece, and however the network cuts it, the pieces say the same."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.switch.asking.dialect import Piece
from actors.switch.asking.failure import ProviderFailed
from actors.switch.asking.reading import Reading

END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
COUNTS = {"choices": [], "usage": {"total_tokens": 3}}


def says(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}]}


def body(*documents: Any) -> bytes:
    texts = (one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in documents)
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def read(*parts: bytes) -> tuple[list[Piece], str]:
    """The pieces, and the reason why it failed, if it did."""
    reading, pieces = Reading(), []
    try:
        for part in parts:
            pieces.extend(reading.feed(part))
        pieces.extend(reading.close())
    except ProviderFailed as why:
        return pieces, why.reason
    return pieces, ""


def test_what_comes_together_is_one_piece() -> None:
    """Each piece is a message on the bus, which costs more than all that was done before."""
    pieces, failed = read(body(says("a"), says("b"), END, COUNTS, "[DONE]"))
    assert pieces == [Piece("ab", finish_reason="stop", usage={"total_tokens": 3})]
    assert not failed


@given(st.lists(st.text(max_size=5), max_size=8), st.lists(st.integers(0, 2_000), max_size=10))
def test_however_it_is_cut_the_same_is_said(texts: list[str], cuts: list[int]) -> None:
    data = body(*map(says, texts), END, COUNTS, "[DONE]")
    at = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces, failed = read(*(data[a:b] for a, b in pairwise(at)))
    assert "".join(piece.text for piece in pieces) == "".join(texts)
    assert [piece.finish_reason for piece in pieces if piece.finish_reason] == ["stop"]
    assert not failed


def test_what_was_good_is_told_before_the_failure() -> None:
    pieces, failed = read(body(says("a"), says("b"), "{", says("c")))
    assert (pieces, failed) == ([Piece("ab")], "it sent something that is no JSON")


def test_after_the_end_nothing_can_spoil_it() -> None:
    pieces, failed = read(body(says("a"), END, "{", says("never")))
    assert (pieces, failed) == ([Piece("a", finish_reason="stop")], "")


@pytest.mark.parametrize("last", [says("a"), ""])
def test_a_body_that_ends_before_the_answer_is_a_failure(last: Any) -> None:
    assert read(body(last))[1] == "the stream ended before the answer did"


def test_a_thought_after_the_answer_has_begun_stays_after_it() -> None:
    thought = {"choices": [{"delta": {"reasoning_content": "hm"}}]}
    pieces, _ = read(body(thought, says("a"), thought, says("b"), END))
    assert pieces == [Piece("a", "hm"), Piece("b", "hm", "stop")]


def test_half_a_character_before_the_end_is_no_end() -> None:
    pieces, failed = read(body('{"choices": [{"delta": {"content": "a\\ud83e"}}]}', END))
    assert (pieces, failed) == ([Piece("a")], "it ended in half a character")
