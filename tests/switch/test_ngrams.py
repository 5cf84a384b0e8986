"""Messages as hashed n-grams."""

from __future__ import annotations

import math
import time

import pytest

from actors.switch.kind.ngrams import FIELDS, grams

A_MILLISECOND = 0.001
LONG = "¿Por qué no está en marcha hormiguero, y quién ha despertado esta noche a shubniggurath sin que yo lo pidiera? " * 2


def test_the_same_words_in_another_order_or_dress_are_the_same() -> None:
    assert grams("Despierta a SWITCH") == grams("a switch, ¡despiértá!")


def test_a_number_is_any_number() -> None:
    assert grams("keep it up for 30 minutes") == grams("keep it up for 45 minutes")


@pytest.mark.parametrize("text", ["a", "wake switch", LONG])
def test_the_length_of_a_text_does_not_count(text: str) -> None:
    assert math.isclose(sum(weight * weight for weight in grams(text).values()), 1.0)
    assert all(0 <= field < FIELDS for field in grams(text))


@pytest.mark.parametrize("text", ["", "?!", "你好", "\x00\ud800"])
def test_what_has_no_letters_has_no_grams(text: str) -> None:
    assert grams(text) == {}


def test_a_message_takes_less_than_a_millisecond() -> None:
    """The best of some tries: others want the processor, too."""

    def took() -> float:
        begun = time.thread_time()
        grams(LONG)
        return time.thread_time() - begun

    assert min(took() for _ in range(20)) < A_MILLISECOND
