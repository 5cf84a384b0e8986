"""A log as a file: one JSON document a line and an event, each with the hash of the chain after it; the last line is the end.

The first event's line also has `after`, the hash that the chain begins with. A body is `body` when it is UTF-8, else
`body_base64`. Whoever wants to check the file without us finds the hash's definition in bus/chain.py.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple, TextIO

from bus.chain import fold
from bus.eventlog import Stored
from bus.moment import rfc3339
from schemas.errors import Failure


class End(NamedTuple):
    """What the last line says."""

    events: int
    through: int
    chain: str

    def line(self) -> str:
        return json.dumps({"end": self._asdict()})


class Writer:
    """Writes events in order; `end` when all are written."""

    def __init__(self, out: TextIO, after: bytes) -> None:
        self._out = out
        self._after = after
        self.head = after
        self.events = self.through = 0

    def write(self, event: Stored) -> None:
        self.head = fold(self.head, event)
        first = {} if self.events else {"after": self._after.hex()}
        self._out.write(json.dumps({**document_of(event), "chain": self.head.hex(), **first}) + "\n")
        self.events, self.through = self.events + 1, event.sequence

    def end(self) -> End:
        made = End(self.events, self.through, self.head.hex())
        self._out.write(made.line() + "\n")
        return made


def document_of(event: Stored) -> dict[str, Any]:
    """The event for a person or a program; exact."""
    try:
        body = {"body": event.body.decode()}
    except UnicodeDecodeError:
        body = {"body_base64": base64.b64encode(event.body).decode()}
    return {
        "sequence": event.sequence,
        "time": rfc3339(event.at, "microseconds"),
        "subject": event.subject,
        "headers": dict(event.headers),
        **body,
    }


def read(lines: Iterable[str]) -> Iterator[Stored]:
    """The events of a file. Raises Failure("invalid"), with the line, at the first that is not what was exported.

    What comes before it has been given out by then: read to the end before anything is done with it.
    """
    head, events, through = b"", 0, 0
    for number, line in enumerate(lines, 1):
        try:
            document = json.loads(line)
            if end := document.get("end"):
                if (end["events"], end["through"], end["chain"]) != (events, through, head.hex() if events else end["chain"]):
                    raise Failure(
                        "invalid", f"line {number} tells of {end['events']} events through {end['through']}, not of these"
                    )
                return
            event = _event(document)
            head, told = fold(head or bytes.fromhex(document["after"]), event), document["chain"]
        except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:  # binascii.Error is a ValueError
            raise Failure("invalid", f"line {number} is no event of an exported log: {error!r}") from error
        if head.hex() != told:
            raise Failure("invalid", f"line {number}: event {event.sequence} or its hash was changed after it was exported")
        events, through = events + 1, event.sequence
        yield event
    raise Failure("invalid", f"the file ends in the middle, after {events} events: its last line is missing")


def _event(document: dict[str, Any]) -> Stored:
    body = base64.b64decode(document["body_base64"], validate=True) if "body_base64" in document else document["body"].encode()
    at = datetime.fromisoformat(document["time"]).timestamp()
    headers = {str(name): str(value) for name, value in document["headers"].items()}
    return Stored(int(document["sequence"]), str(document["subject"]), at, headers, body)
