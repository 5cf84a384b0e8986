"""The client's side of the NATS protocol as bytes: cutting what the server says, making what it is told. Pure.

Source: https://docs.nats.io/reference/reference-protocols/nats-protocol (and ADR-4 for headers).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from schemas.errors import Failure

CONTROL_BYTES_MOST = 256 * 1024
"""A line of the server's is no longer; its INFO is the longest."""
LINE_BYTES_MOST = 4_000
"""The server closes a connection for good over a control line of 4 KB: subject, reply and sizes."""
VERSION_CHARS = len("NATS/1.0")
"""What a head begins with."""
ACK_TOKENS = 9
"""`$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer sequence>.<ns>.<pending>`; longer ones have a domain and an
account before the stream."""

_UNSAFE = str.maketrans({"\r": " ", "\n": " "})

Said = Callable[[bytes], None]
Came = Callable[[int, bytes, bytes, bytes, bytes], None]
"""Subscription, subject, reply, head, body."""


class Delivery(NamedTuple):
    """What a consumer says of a message, in its reply subject."""

    stream: str
    consumer: str
    num_delivered: int
    """How often it has been delivered, this time included."""
    sequence: int
    """In the stream."""
    timestamp: datetime
    """When it was stored."""


class Msg:
    """One message as it came."""

    def __init__(self, subject: str, reply: str, data: bytes, headers: dict[str, str] | None) -> None:
        self.subject = subject
        self.reply = reply
        self.data = data
        self.headers = headers

    @property
    def header(self) -> dict[str, str] | None:
        """FastStream's name for it."""
        return self.headers

    @cached_property
    def delivery(self) -> Delivery:
        """Raises ValueError when the message comes from no consumer."""
        tokens = self.reply.split(".")
        if len(tokens) > ACK_TOKENS:
            tokens = [*tokens[:2], *tokens[4:]]
        if tokens[:2] != ["$JS", "ACK"] or len(tokens) < ACK_TOKENS:
            raise ValueError(f"{self.reply!r} is no consumer's")
        stored = datetime.fromtimestamp(int(tokens[7]) / 1e9, UTC)
        return Delivery(tokens[2], tokens[3], int(tokens[4]), int(tokens[5]), stored)


def address_of(url: str) -> SplitResult:
    """Raises Failure("invalid") for what is no address of a server."""
    try:
        where = urlsplit(url if "://" in url else f"nats://{url}")
        if where.scheme not in ("nats", "tls") or not where.hostname or where.port == 0:
            raise ValueError
    except ValueError:  # also what `port` raises
        raise Failure("invalid", f"{url!r} is no address of a NATS server: nats://host:port or tls://host:port") from None
    return where


class Subscription:
    """Whatever comes on `subject` is handed to `heard`, at once."""

    def __init__(self, sid: int, subject: str, queue: str, heard: Callable[[Msg], None]) -> None:
        self.sid, self.subject, self.queue, self.heard = sid, subject, queue, heard

    @property
    def command(self) -> bytes:
        return f"SUB {self.subject} {self.queue + ' ' if self.queue else ''}{self.sid}\r\n".encode()


class Reader:
    """Cuts the stream of bytes. `came` gets each message, `said` every other line, in their order."""

    def __init__(self, came: Came, said: Said) -> None:
        self._came = came
        self._said = said
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Raises ValueError on what is no NATS; then nothing after it can be understood either."""
        if self._rest:
            data = self._rest + data
        at = 0
        while (end := data.find(b"\r\n", at)) >= 0:
            if data[at : at + 4] == b"MSG " or data[at : at + 5] == b"HMSG ":
                words = data[at:end].split(b" ")
                headed = words[0] == b"HMSG"
                replied = len(words) - 5 if headed else len(words) - 4
                head, size = int(words[-2]) if headed else 0, int(words[-1])
                if replied not in (0, 1) or not 0 <= head <= size:
                    raise ValueError(repr(data[at:end][:60]))
                begin = end + 2
                stop = begin + size
                if len(data) < stop + 2:
                    break
                body = begin + head
                self._came(int(words[2]), words[1], words[3] if replied else b"", data[begin:body], data[body:stop])
                at = stop + 2
            else:
                self._said(data[at:end])
                at = end + 2
        else:
            if len(data) - at > CONTROL_BYTES_MOST:
                raise ValueError("a line without an end")
        self._rest = data[at:]


def head_of(headers: Mapping[str, str]) -> bytes:
    """Header lines as they travel. Line ends in a value become spaces."""
    lines = "\r\n".join([f"{name}: {value}" for name, value in headers.items()])
    if lines.count("\n") != len(headers) - 1 or lines.count("\r") != len(headers) - 1:  # a value that would say more than itself
        lines = "\r\n".join([f"{name}: {value.translate(_UNSAFE)}" for name, value in headers.items()])
    return f"NATS/1.0\r\n{lines}\r\n\r\n".encode(errors="replace")  # half a surrogate is no reason to answer nothing


def headers_of(head: bytes) -> dict[str, str] | None:
    """The header lines, and the status that the server may have put into the first one; what is no header is left out."""
    if not head:
        return None
    first, *lines = head.decode(errors="replace").split("\r\n")
    found: dict[str, str] = {}
    if len(first) > VERSION_CHARS:
        status, _, description = first[VERSION_CHARS:].strip().partition(" ")
        found = {"Status": status, "Description": description} if status.isdigit() else {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and name.isascii() and name and " " not in name:
            found[name] = value.strip()
    return found or None


def publication(subject: str, reply: str, data: bytes, head: bytes, most: int) -> bytes:
    """One message to be published. Raises Failure("too_large" | "invalid"). `most`: the server's max_payload."""
    if not subject.isprintable() or not subject or " " in subject:
        raise Failure("invalid", f"{subject!r} is no subject")
    if len(head) + len(data) > most:  # the server would close the connection, for good
        told = f"{len(head) + len(data)} bytes, {len(head)} of them headers"
        raise Failure("too_large", f"{told}, are more than a message may have ({most})")
    space = f"{subject} {reply} " if reply else f"{subject} "
    sizes = f"{len(head)} {len(head) + len(data)}" if head else f"{len(data)}"
    line = f"{'HPUB' if head else 'PUB'} {space}{sizes}\r\n".encode()
    if len(line) > LINE_BYTES_MOST:
        raise Failure("too_large", f"subject and reply have {len(line)} bytes; {LINE_BYTES_MOST} may be")
    return b"".join((line, head, data, b"\r\n"))
