"""The protocol as bytes: cut at every place, and with what a stranger may have put into it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.protocol import CONTROL_BYTES_MOST, Msg, Reader, head_of, headers_of, publication
from schemas.errors import Failure

SAID = (
    b'INFO {"a":1}\r\n',
    b"PING\r\n",
    b"MSG vx11.a.b 1 5\r\nhello\r\n",
    b"MSG vx11.a.b 22 _INBOX.x.1 0\r\n\r\n",
    b"HMSG vx11.a 3 12 17\r\nNATS/1.0\r\n\r\n\r\nMSG\r\n",
    b"HMSG vx11.a 3 reply 12 12\r\nNATS/1.0\r\n\r\n\r\n",
    b"MSG MSG 4 4\r\n\r\n\r\n\r\n",
    b"-ERR 'it is so'\r\n",
    b"PONG\r\n",
)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)


def read(data: list[bytes]) -> list[object]:
    heard: list[object] = []
    reader = Reader(lambda *message: heard.append(message), heard.append)
    for piece in data:
        reader.feed(piece)
    return heard


@given(st.lists(st.sampled_from(SAID), max_size=12), st.data())
def test_it_does_not_matter_where_the_bytes_are_cut(said, data):
    whole = b"".join(said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert read(pieces) == [one for alone in said for one in read([alone])]
    assert len(read(pieces)) == len(said)


def test_a_message_is_cut_into_its_parts():
    assert read(list(SAID[2:6])) == [
        (1, b"vx11.a.b", b"", b"", b"hello"),
        (22, b"vx11.a.b", b"_INBOX.x.1", b"", b""),
        (3, b"vx11.a", b"", b"NATS/1.0\r\n\r\n", b"\r\nMSG"),
        (3, b"vx11.a", b"reply", b"NATS/1.0\r\n\r\n", b""),
    ]


@pytest.mark.parametrize("garbage", [b"MSG a b c\r\n", b"MSG \r\n", b"HMSG a 1 2\r\n", b"MSG a 1 -5\r\n\r\n\r\n\r\n"])
def test_what_is_no_protocol_is_an_error_and_no_message(garbage):
    heard: list[object] = []
    reader = Reader(lambda *message: heard.append(message), heard.append)
    with pytest.raises((ValueError, IndexError)):
        reader.feed(garbage)
    assert heard == []


def test_a_line_without_an_end_is_an_error():
    with pytest.raises(ValueError, match="without an end"):
        read([b"x" * (CONTROL_BYTES_MOST + 1)])


@given(st.dictionaries(st.text("abcXYZ-", min_size=1, max_size=10), TEXT.map(str.strip), max_size=6))
def test_headers_come_back_as_they_were(headers):
    assert headers_of(head_of(headers)) == (headers or None)


@given(st.text(max_size=60))
def test_a_value_never_becomes_a_second_header(value):
    assert set(headers_of(head_of({"a": value, "b": "1"})) or {}) == {"a", "b"}


@given(st.binary(max_size=200))
def test_any_head_can_be_read(head):
    found = headers_of(head)
    assert found is None or all(isinstance(value, str) for value in found.values())


@given(st.text(max_size=30), st.text("abc.", max_size=10), st.binary(max_size=50))
def test_what_is_published_is_one_message_or_refused(subject, reply, data):
    if not subject or not subject.isprintable() or " " in subject or len(data) > 40:
        with pytest.raises(Failure):
            publication(subject, reply, data, b"", 40)
        return
    command = publication(subject, reply, data, b"", 40)
    line, _, rest = command.partition(b"\r\n")
    assert rest == data + b"\r\n"
    assert line.decode().split(" ") == ["PUB", subject, *([reply] if reply else []), str(len(data))]


@pytest.mark.parametrize("place", ["", "hub.H4SH."])
def test_a_consumer_tells_where_a_message_stands(place):
    tail = ".r4nd0m" if place else ""
    msg = Msg("a", f"$JS.ACK.{place}EVENTS.baker__bake.3.120.17.1700000000500000000.9{tail}", b"", None)
    stored = datetime(2023, 11, 14, 22, 13, 20, 500_000, UTC)
    assert msg.delivery == ("EVENTS", "baker__bake", 3, 120, stored)


@pytest.mark.parametrize("reply", ["", "_INBOX.a.b", "$JS.ACK.too.short"])
def test_what_comes_from_no_consumer_says_so(reply):
    with pytest.raises(ValueError, match="no consumer"):
        _ = Msg("a", reply, b"", None).delivery
