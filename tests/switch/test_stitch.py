"""A character that was cut in two arrives whole, or not at all."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.switch.asking.failure import ProviderFailed
from actors.switch.asking.stitch import Stitch

cuts = st.lists(st.integers(0, 120), max_size=8)


def joined(*parts: str) -> str:
    stitch = Stitch()
    text = "".join(stitch.join(part) for part in parts)
    stitch.end()
    return text


@given(st.text(max_size=30), cuts)
def test_characters_cut_between_their_escapes_are_joined(text: str, at: list[int]) -> None:
    r"""Servers that write `🦑` in ASCII as an escape pair may put its halves into two chunks."""
    units = text.encode("utf-16-be", "surrogatepass")
    halves = [chr(int.from_bytes(units[i : i + 2], "big")) for i in range(0, len(units), 2)]
    bounds = [0, *sorted(min(cut, len(halves)) for cut in at), len(halves)]
    assert joined(*("".join(halves[a:b]) for a, b in pairwise(bounds))) == text


@given(st.text(max_size=30), cuts)
def test_characters_cut_between_their_bytes_are_joined(text: str, at: list[int]) -> None:
    """Servers that turn each token into text by itself send the bytes as they fall."""
    data = text.encode()
    bounds = [0, *sorted(min(cut, len(data)) for cut in at), len(data)]
    assert joined(*(data[a:b].decode("utf-8", "surrogateescape") for a, b in pairwise(bounds))) == text


def test_what_is_whole_is_not_held_back() -> None:
    stitch = Stitch()
    assert stitch.join("a\ud83e") == "a"
    assert stitch.join("\udd91b\udcc3") == "🦑b"
    assert stitch.join("\udcb1") == "ñ"
    stitch.end()


@pytest.mark.parametrize(
    "parts",
    [
        ("a\udd91b",),
        ("\ud83eb",),
        ("a\ud83e", "b"),
        ("\udcf0\udc9f", "b"),
        ("\udcff",),
        ("\udcf0\ud83e",),
        ("\udcf0", "\ud83e"),
    ],
)
def test_half_a_character_in_the_middle_is_a_failure(parts: tuple[str, ...]) -> None:
    with pytest.raises(ProviderFailed, match="it sent half a character"):
        joined(*parts)


@pytest.mark.parametrize("half", [chr(0xD83E), "\udcf0\udc9f"])
def test_half_a_character_at_the_end_is_a_failure_and_is_not_told(half: str) -> None:
    stitch = Stitch()
    assert stitch.join("a" + half) == "a"
    with pytest.raises(ProviderFailed, match="it ended in half a character"):
        stitch.end()


@given(st.lists(st.text(st.characters(), max_size=6), max_size=6))
def test_whatever_comes_only_whole_characters_go_on(parts: list[str]) -> None:
    """A lone half cannot travel as UTF-8."""
    stitch = Stitch()
    for part in parts:
        try:
            json.dumps(stitch.join(part), ensure_ascii=False).encode()
        except ProviderFailed:
            return
