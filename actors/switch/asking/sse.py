"""An incremental parser of server-sent events (WHATWG HTML 9.2.6): bytes in whatever pieces, events out."""

from __future__ import annotations

import re

LINE_MAX_BYTES = 256 * 1024
"""A line, and all data of one event. A token takes some 200 bytes; a chunk must fit into one bus message."""
LINE_END = re.compile(rb"\r\n|\n|\r")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class TooLong(ValueError):
    """A line or an event of more than the allowed bytes."""


class Parser:
    """Feed it the body as it comes; each event is given once, as the text of its data.

    Lines are cut as bytes and decoded whole, so a character that is split between two reads is not broken. Bytes that are
    no UTF-8 become lone surrogates (PEP 383): a character may be split between two events as well.
    """

    def __init__(self, limit: int = LINE_MAX_BYTES) -> None:
        self._limit = limit
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._first = True

    def feed(self, received: bytes) -> list[str]:
        """The data of the events that these bytes complete. Raises TooLong."""
        if self._after_cr and received:
            received = received.removeprefix(b"\n")
            self._after_cr = False
        events: list[str] = []
        start = 0
        for end in LINE_END.finditer(received):
            self._keep(received[start : end.start()])
            start = end.end()
            self._end_line(events)
        self._keep(received[start:])
        self._after_cr = self._after_cr or received.endswith(b"\r")
        return events

    def close(self) -> list[str]:
        """The body ended: the event that no blank line has ended, as servers leave it after their last line."""
        events: list[str] = []
        if self._line:
            self._end_line(events)
        self._dispatch(events)
        return events

    def _keep(self, part: bytes) -> None:
        self._line += part
        if len(self._line) + self._size > self._limit:
            raise TooLong(f"an event of more than {self._limit} bytes")

    def _end_line(self, events: list[str]) -> None:
        line = bytes(self._line)
        self._line.clear()
        if self._first:
            line = line.removeprefix(BYTE_ORDER_MARK)
            self._first = False
        if not line:
            self._dispatch(events)
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(line)

    def _dispatch(self, events: list[str]) -> None:
        if self._data:
            events.append(b"\n".join(self._data).decode("utf-8", "surrogateescape"))
        self._data.clear()
        self._size = 0
