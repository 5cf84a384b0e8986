"""A continuation is joined to what was said: nothing of it twice, nothing of it missing."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from actors.switch.seam import ANCHOR_CHARS, ANEW_CHARS, REPEAT_MIN_CHARS, Seam, Unjoined, anchor

WORDS = (
    "the",
    "sea",
    "calm;",
    "ñandú",
    "🦑",
    "réveil",
    "(again)",
    "and,",
    "on\n\n*",
    "list:",
    "1.",
    "zwölf",
    "Boxkämpfer",
    "東京",
    "—",
)
repetitive = st.lists(st.sampled_from(["ha ", "ab", "ab ", "\n", " ", "🦑", '"', "…"]), min_size=1, max_size=60).map("".join)
texts = st.text(max_size=200) | repetitive
cuts = st.lists(st.integers(0, 400), max_size=12)


def prose(seed: int, words: int = 120) -> str:
    """Words in any order, hardly ever the same one twice."""
    rng = random.Random(seed)
    return " ".join(f"{rng.choice(WORDS)}{rng.randrange(10_000)}" for _ in range(words))


def joined(seam: Seam, text: str, at: list[int] | None = None) -> str:
    bounds = [0, *sorted(min(cut, len(text)) for cut in at or []), len(text)]
    return "".join(seam.join(text[a:b]) for a, b in pairwise(bounds)) + seam.end()


@given(texts, texts, cuts)
@example("ha ha ha ha ha ha ha ha ha ha ", "ha ha ha", [1, 2, 3])
def test_who_begins_with_the_anchor_is_joined_exactly(said: str, rest: str, at: list[int]) -> None:
    """Whatever the text: the anchor marks one place, be it a text that repeats itself."""
    assert joined(Seam(said, anchor(said)), anchor(said) + rest, at) == rest


@given(texts, texts, cuts)
def test_who_was_given_the_text_to_go_on_with_is_taken_at_its_word(said: str, rest: str, at: list[int]) -> None:
    assume(not rest or not said.lstrip().startswith(rest[:REPEAT_MIN_CHARS]))
    assume(not rest or not said.startswith(rest[:REPEAT_MIN_CHARS]))
    assert joined(Seam(said), rest, at) == rest


@given(st.integers(0, 10**6), st.integers(0, 600), cuts, st.booleans())
def test_who_goes_on_exactly_is_joined_exactly(seed: int, cut: int, at: list[int], prefill: bool) -> None:
    said, rest = prose(seed)[:cut], prose(seed)[cut:]
    assert joined(Seam(said, "" if prefill else anchor(said)), rest, at) == rest


@given(st.integers(0, 10**6), st.integers(REPEAT_MIN_CHARS, 600), cuts, st.booleans())
def test_who_begins_again_is_joined_exactly(seed: int, cut: int, at: list[int], prefill: bool) -> None:
    said, rest = prose(seed)[:cut], prose(seed)[cut:]
    assert joined(Seam(said, "" if prefill else anchor(said)), said + rest, at) == rest


@given(st.integers(0, 10**6), st.integers(20, 600), st.integers(3, 40), cuts)
def test_who_repeats_some_words_is_joined_exactly(seed: int, cut: int, words: int, at: list[int]) -> None:
    said, rest = prose(seed)[:cut], prose(seed)[cut:]
    starts = [i for i in range(1, len(said)) if said[i - 1].isspace() and not said[i].isspace()]
    starts = [i for i in starts if len(said) - i >= REPEAT_MIN_CHARS]
    assume(starts)
    repeated = said[starts[-min(words, len(starts))] :]
    assert joined(Seam(said, anchor(said)), repeated + rest, at) == rest


@pytest.mark.parametrize("before", ["", " ", "\n\n", '"', "...", "…", "> ", "« ", '  "'])
def test_decoration_before_the_anchor_is_no_part_of_it(before: str) -> None:
    said = prose(1)[:300]
    assert joined(Seam(said, anchor(said)), before + anchor(said) + ", and so on", [1, 2, 5]) == ", and so on"


@given(texts, texts, st.booleans(), cuts, cuts)
def test_any_split_of_the_continuation_gives_the_same(
    said: str, told: str, prefill: bool, one: list[int], other: list[int]
) -> None:
    def outcome(at: list[int]) -> str | None:
        try:
            return joined(Seam(said, "" if prefill else anchor(said)), told, at)
        except Unjoined:
            return None

    assert outcome(one) == outcome(other)


@given(texts, texts, st.booleans(), cuts)
def test_whatever_comes_its_end_is_told(said: str, told: str, prefill: bool, at: list[int]) -> None:
    """Only the beginning may be taken away, and no more of it than was said, with its decoration."""
    try:
        new = joined(Seam(said, "" if prefill else anchor(said)), told, at)
    except Unjoined:
        return
    assert told.endswith(new)
    assert len(told) - len(new) <= len(said) + 8


def test_what_differs_at_once_is_not_held_back() -> None:
    """Who reads along waits for nothing."""
    seam = Seam("Once upon a time there was a squid. ")
    assert seam.join("I") == "I"
    assert not seam.holds


def test_what_is_held_back_is_given_as_soon_as_it_is_clear() -> None:
    said = "Once upon a time there was a squid in the deep blue sea."
    seam = Seam(said, anchor(said))
    assert seam.join("Once upon a ") == ""
    assert seam.holds
    assert seam.join("horse") == "Once upon a horse"
    assert seam.join("!") == "!"


def test_an_answer_told_anew_in_other_words_is_not_joined() -> None:
    """Half of it would stand there twice, in two versions."""
    said = prose(2)
    with pytest.raises(Unjoined):
        joined(Seam(said, anchor(said)), said[: ANEW_CHARS + 5] + " but then all was different", [7])
    with pytest.raises(Unjoined):
        joined(Seam(said), said[: ANEW_CHARS + 5])


def test_who_ends_within_the_anchor_has_not_gone_on() -> None:
    """As with a stop sequence in it: a repetition must not pass for the end of the answer."""
    said = prose(4)
    with pytest.raises(Unjoined, match="ended within"):
        joined(Seam(said, anchor(said)), anchor(said)[:-1])


def test_an_anchor_is_of_one_line_where_that_is_enough() -> None:
    """Blank lines are what models repeat worst."""
    assert anchor("Once upon a time.\n\nThere was a squid") == "There was a squid"
    assert anchor("def f():\n    return somewhere") == "return somewhere"
    assert anchor("Once upon a time there was.\n\n- a") == "upon a time there was.\n\n- a"
    assert anchor("a list of things\na list of things\na list of things").count("\n") == 2


def test_an_answer_that_was_whole_already_gets_nothing_more() -> None:
    said = prose(3)
    assert joined(Seam(said), "") == ""
    assert joined(Seam(said, anchor(said)), anchor(said)) == ""
    assert joined(Seam(said, anchor(said)), said) == ""


@given(texts | st.text(min_size=300, max_size=2_000) | st.integers(0, 99).map(prose))
def test_an_anchor_is_the_end_of_what_was_said_and_short(said: str) -> None:
    words = anchor(said)
    assert said.endswith(words)
    assert len(words) <= 2 * ANCHOR_CHARS[-1]
    if len(said) <= ANCHOR_CHARS[-1]:
        assert said.find(words) == len(said) - len(words)


def test_a_model_that_repeats_itself_for_ever_costs_little_time() -> None:
    """A loop of a small model is the longest text that there is; joining it must not be a loop, too."""
    said = "the end of " * 13_000
    seam = Seam(said, anchor(said))
    told = "".join(seam.join("end of the ") for _ in range(2_000)) + seam.end()
    assert told.endswith("end of the end of the ")
