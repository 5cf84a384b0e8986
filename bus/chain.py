"""The hash chain over a stream: each event's hash covers the one before it, so that one hash vouches for all before it.

    h(n) = SHA-256( h(n-1) | sequence, 8 bytes | time, 8 bytes | length of the subject, 4 bytes | length of the headers, 4 bytes
                    | subject | headers | body )

Numbers are unsigned and big-endian. The time is the server's, in whole microseconds since the epoch. The headers are those of
the publisher, without what begins with `Nats-`, sorted by name, each as `name:value` with CR and LF; text is UTF-8.
"""

from __future__ import annotations

import hashlib
import struct

from bus.eventlog import Stored

MARK_BYTES = 8
"""Of each event's hash this much is kept, so that the first bad event is known and not only its block."""

_NUMBERS = struct.Struct(">QQII")


def genesis(stream: str, after: int, before: bytes = b"") -> bytes:
    """The hash that a chain begins with, behind the sequence `after`. `before`: the head of the chain that it replaces."""
    return hashlib.sha256(f"vx11 chain of {stream} after {after}\n".encode() + before).digest()


def fold(head: bytes, event: Stored) -> bytes:
    """The hash of the chain after `event`."""
    subject = event.subject.encode(errors="surrogateescape")
    headers = b""
    if event.headers:
        lines = (f"{name}:{value}\r\n" for name, value in sorted(event.headers.items()))
        headers = "".join(lines).encode(errors="surrogateescape")
    numbers = _NUMBERS.pack(event.sequence, microseconds(event.at), len(subject), len(headers))
    return hashlib.sha256(b"".join((head, numbers, subject, headers, event.body))).digest()


def microseconds(at: float) -> int:
    """Seconds since the epoch as whole microseconds; a double keeps them apart until the year 2242."""
    return round(at * 1_000_000)
