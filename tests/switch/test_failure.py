"""What an HTTP status says, and what of a provider's words may be repeated."""

from __future__ import annotations

import pytest

from actors.switch.asking.failure import SAID_MAX_CHARS, of_status, quoted, seconds_of_rest

WEDNESDAY = 1_445_412_480.0
"""2015-10-21 07:28:00 GMT"""


@pytest.mark.parametrize(
    ("status", "blame"),
    [
        *[(status, "caller") for status in (400, 413, 422)],
        *[(status, "setup") for status in (301, 307, 401, 402, 403, 404)],
        *[(status, "provider") for status in (204, 408, 429, 500, 503)],
    ],
)
def test_a_status_says_whose_move_is_next(status: int, blame: str) -> None:
    """Only what the provider is to blame for opens its circuit."""
    assert of_status(status).blame == blame


def test_a_wrong_path_gets_the_usual_hint() -> None:
    assert "end in /v1" in of_status(404).reason


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("", 0.0),
        ("soon", 0.0),
        ("-3", 0.0),
        ("9" * 400, 999_999_999.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float) -> None:
    assert seconds_of_rest(header, WEDNESDAY) == seconds


def test_retry_after_counts_with_429_and_503_only() -> None:
    assert of_status(429, retry_after="7").retry_after == 7.0
    assert of_status(503, retry_after="7").retry_after == 7.0
    assert of_status(401, retry_after="7").retry_after == 0.0


def test_a_key_is_never_repeated() -> None:
    assert quoted("wrong key: abc123", key="abc123") == "wrong key: ***"
    assert quoted("Incorrect API key provided: sk-proj-1234****abcd.") == "Incorrect API key provided: ***."


def test_words_are_one_bounded_line_that_can_travel() -> None:
    assert quoted("a\r\nb\x1b[31m\ud800c") == "a b [31m c"
    assert len(quoted("x" * 9_999)) == SAID_MAX_CHARS


def test_what_is_recorded_has_the_fact_without_the_providers_words() -> None:
    """Events carry no conversation, and a provider may quote the prompt."""
    failed = of_status(400, said="your prompt 'secret plan' is too long")
    assert "secret plan" not in failed.reason
    assert "secret plan" in failed.told


@pytest.mark.parametrize(
    ("status", "words", "expected"), [(413, False, True), (400, True, True), (400, False, False), (429, True, False)]
)
def test_too_long_is_what_a_status_or_its_words_say(status: int, words: bool, expected: bool) -> None:
    failed = of_status(status, too_long=words)
    assert failed.too_long is expected
    assert not expected or (failed.blame == "caller" and "too long" in failed.reason)


@pytest.mark.parametrize(("status", "unspent"), [(401, True), (429, True), (307, True), (408, False), (500, False), (504, False)])
def test_who_was_surely_not_at_work_is_not_paid(status: int, unspent: bool) -> None:
    """A gateway that times out may have a model behind it that has generated everything."""
    assert of_status(status).unspent is unspent
