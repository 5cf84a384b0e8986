"""What a stranger may put into a message: bodies, headers, subjects."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from bus import call

DEEP = 100_000
BODIES: tuple[bytes, ...] = (
    b"",
    b" ",
    b"nonsense",
    b"null",
    b"true",
    b"[]",
    b"[{}]",
    b'"text"',
    b"0",
    b"{",
    b'{"a": 1}',
    b'{"": null}',
    b'{"name": null, "text": 1, "message": []}',
    b'{"name": "\\u0000", "text": "\\u0000", "message": ""}',
    b'{"name": "\\ud800", "text": "\\ud800", "message": "\\ud800"}',
    b'{"name": "a b.*.>", "text": {}, "message": {}}',
    b'{"text": "a", "text": 2, "name": "a", "name": 2}',
    b'{"text": NaN, "message": Infinity, "seconds": -Infinity}',
    b'{"text": "endless", "seconds": 1e999}',
    b'{"text": "never", "seconds": NaN}',
    b'{"text": 1e999, "ttl_sec": ' + b"9" * 5_000 + b"}",
    b"9" * 5_000,
    b'{"text": "\xff\xfe", "name": "\xff"}',
    b"\xef\xbb\xbf{}",
    b"\xff\xfe{\x00}\x00",
    b"\x00" * 1_000,
    b"[" * DEEP + b"]" * DEEP,
    b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    b'{"name": "' + b"n" * 1_000_000 + b'"}',
    b"{" + b" " * 1_000_000 + b"}",
)
WRONG: tuple[Any, ...] = (None, True, -1, 1e300, 10**400, "", "\x00", "x" * 5_000, "\U0001f9a5", [], [[]], {}, {"a": {}})
"""Values for a field that wants another one."""

NAMES = (
    call.CORRELATION, call.TRACEPARENT, call.TRACESTATE, call.REQUEST_ID, call.DEADLINE, call.SENT, call.AGAIN,
    call.PASSIVE, call.PATH, call.CALLER, call.SCOPES, call.HELD_MS, call.WAKE_MS, call.FORWARD, call.STREAM, call.SEQ,
    call.END, call.RUN, call.ERROR, call.ERROR_CODE, "vx11-epoch", "vx11-unheard-of", "Nats-Msg-Id", "Nats-TTL",
    "Nats-Rollup", "Nats-Expected-Last-Sequence", "Status", "Description", "ce-specversion", "Content-Type",
)  # fmt: skip
VALUES: tuple[bytes, ...] = (
    b"",
    b" ",
    b"0",
    b"1",
    b"-1",
    b"9" * 15,
    b"9" * 400,
    b"1e9",
    "１２３".encode(),
    b"NaN",
    b"held",
    b"a b",
    b"a\nb",
    b"a\rb",
    b"\x00",
    b"\xff\xfe",
    "ñandú \U0001f9a5".encode(),
    b"x" * 10_000,
    b"notebook," * 500,
    b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-00",
    b"00-" + b"f" * 32 + b"-" + b"f" * 16 + b"-zz",
    b"_INBOX.nobody 1",
    b"vx11.events.power.slept.notebook 1",
    b"503",
)
HEADS: tuple[bytes, ...] = (
    b"",
    b"nonsense\r\n",
    b": nameless\r\n",
    b"\xff: a\r\n",
    b"a b: c\r\n",
    b" 503\r\n",
    b" 404 No Messages\r\n",
    b" 204 EOB\r\nNats-Num-Pending: 0\r\n",
    b" 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\n",
    b" \xff\xfe\r\n",
    b"a: b\r\n folded\r\n",
    b"\r\n\r\n",
    b"a: b\nc: d\r\n",
    b"a: b\r\n" * 5_000,
    b"a: " + b"b" * 60_000 + b"\r\n",
    b"vx11-request-id: a\r\nvx11-request-id: b\r\n",
    b"VX11-DEADLINE: 1\r\n",
    b"\x00: \x00\r\n",
)
"""Whole heads, beside those of one header with an odd value."""

ORDERS: tuple[bytes, ...] = (
    b"Nats-Sequence: x\r\nNats-Subject: y\r\nNats-Time-Stamp: z\r\nNats-Stream: z\r\n",
    b"Nats-Rollup: all\r\n",
    b"Nats-Rollup: sub\r\n",
    b"Nats-Expected-Stream: x\r\n",
    b"Nats-Expected-Last-Msg-Id: x\r\n",
    b"Nats-TTL: 1s\r\n",
    b"Nats-Incr: +1\r\n",
    b"Nats-Batch-Id: x\r\nNats-Batch-Sequence: 1\r\nNats-Batch-Commit: 1\r\n",
    b"Nats-Schedule: @at 2030-01-01T00:00:00Z\r\nNats-Schedule-Target: vx11.events.power.slept.notebook\r\n",
)
"""What would tell JetStream to do something, and what only JetStream says."""


def header(name: str, value: bytes) -> bytes:
    return name.encode() + b": " + value + b"\r\n"


def nearly(schema: dict[str, Any]) -> list[bytes]:
    """Bodies with the fields of a verb and something else in them."""
    names = list(schema.get("properties", {}))
    return [json.dumps({name: value}).encode() for name in names for value in WRONG] + [
        json.dumps(dict.fromkeys(names, value)).encode() for value in WRONG
    ]


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ANY_BODY = st.one_of(st.sampled_from(BODIES), st.binary(max_size=200), DOCUMENTS.map(json.dumps).map(str.encode))
ANY_VALUE = st.one_of(st.sampled_from(VALUES), st.binary(max_size=40).filter(lambda b: b"\r\n" not in b))
ANY_HEAD = st.one_of(
    st.none(),
    st.sampled_from(HEADS),
    st.lists(st.builds(header, st.sampled_from(NAMES), ANY_VALUE), max_size=6).map(b"".join),
)
ANY_VERB = st.text("abcdefghijklmnopqrstuvwxyz_-0123456789ABC$%/", min_size=1, max_size=20).map(str.encode)
