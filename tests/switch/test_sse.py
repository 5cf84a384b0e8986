"""Bytes in whatever pieces become the same events."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.switch.asking.sse import Parser, TooLong

TRICKY = b"\xef\xbb\xbfdata: a\r\ndata: \xc3\xb1\r\rdata: b\n\r\ndata: c\r\n\r\n"
# A short alphabet makes the interesting neighbours (CR before LF, half characters) frequent.
streams = st.lists(
    st.sampled_from(["data:", "data: ", "data", "event: x", ": note", "id: 1", "\r", "\n", "\r\n", "\n\n", "{}", "ñ", "🦑"])
    | st.text(max_size=8),
    max_size=40,
).map(lambda parts: "".join(parts).encode("utf-8", "replace"))
data_lines = st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=20), min_size=1, max_size=4)


def parse(*parts: bytes, limit: int = 1024) -> list[str]:
    parser = Parser(limit)
    return [event for part in parts for event in parser.feed(part)] + parser.close()


@given(streams, st.lists(st.integers(0, 300), max_size=20))
@example(b"data: a\r\ndata: b\r\n\r\n", [8, 8])
def test_any_split_of_the_bytes_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    """TCP cuts where it likes, also inside a character and between CR and LF."""
    at = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(at)]
    assert parse(*pieces, limit=10_000) == parse(stream, limit=10_000)


@given(streams)
@example(TRICKY)
def test_byte_by_byte_gives_the_same_events(stream: bytes) -> None:
    assert parse(*(bytes([byte]) for byte in stream), limit=10_000) == parse(stream, limit=10_000)


def test_each_way_to_end_a_line_is_understood() -> None:
    assert parse(TRICKY) == ["a\nñ", "b", "c"]


@given(st.lists(data_lines, max_size=6), st.sampled_from(["\n", "\r\n", "\r"]))
def test_what_was_written_is_read(events: list[list[str]], newline: str) -> None:
    text = "".join("".join(f"data: {line}{newline}" for line in event) + newline for event in events)
    assert parse(text.encode(), limit=10_000) == ["\n".join(event) for event in events]


def test_comments_and_other_fields_say_nothing() -> None:
    assert parse(b": keep-alive\n\nevent: ping\nid: 7\nretry: 10\n\ndata: one\n\n") == ["one"]


def test_one_blank_after_the_colon_is_not_part_of_the_data() -> None:
    assert parse(b"data:one\n\ndata: two\n\ndata:  three\n\n") == ["one", "two", " three"]


def test_a_byte_order_mark_is_skipped_at_the_beginning_only() -> None:
    assert parse(b"\xef\xbb\xbfdata: one\n\n\xef\xbb\xbfdata: two\n\n") == ["one"]


def test_a_last_event_needs_no_blank_line() -> None:
    """Servers close right after their last line; a half-sent document is told apart by its JSON."""
    assert parse(b"data: one\n\ndata: [DONE]") == ["one", "[DONE]"]
    assert parse(b"data: [DONE]\n") == ["[DONE]"]


def test_bytes_that_are_no_utf8_are_kept_for_whoever_joins_them() -> None:
    """Half a character may end one event, and the other half begin the next."""
    assert parse(b"data: a\xffb\n\n") == ["a\udcffb"]


def test_a_line_without_an_end_is_given_up() -> None:
    parser = Parser(limit=100)
    parser.feed(b"data: " + b"x" * 90)
    with pytest.raises(TooLong, match="more than 100 bytes"):
        parser.feed(b"y" * 10)


def test_an_event_of_endless_lines_is_given_up() -> None:
    parser = Parser(limit=100)
    parser.feed(b"data: 0123456789\n" * 6)
    with pytest.raises(TooLong):
        parser.feed(b"data: 0123456789\n")


def test_the_bound_is_for_one_event_not_for_the_stream() -> None:
    assert parse(*[b"data: 0123456789\n\n"] * 100, limit=100) == ["0123456789"] * 100
