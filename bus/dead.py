"""How dead letters are written and read: their subjects, their headers, and the way back to the one who could not take it.

A letter of an event comes back on `<events or jobs>.dlq.again.<consumer>.<token>`, which only that consumer hears: the
others of the same event have handled it and do not get it twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from bus import call
from bus.redaction import hidden_by, redacted_document, redacted_event

PREFIX = "vx11-dlq-"
REASON = "vx11-dlq-reason"
"""`invalid`: no handler can ever take it; `failed`: the last try failed; `crashed`: no last try ended at all."""
DETAIL = "vx11-dlq-detail"
SUBJECT = "vx11-dlq-subject"
STREAM = "vx11-dlq-stream"
SEQUENCE = "vx11-dlq-sequence"
AT = "vx11-dlq-at"
"""When it was stored in STREAM, which counts from 1 again when it is made again."""
CONSUMER = "vx11-dlq-consumer"
TRIES = "vx11-dlq-tries"
HISTORY = "vx11-dlq-history"
"""JSON list of `{"try", "at", "error"}`, newest last. A try that ended with its process is counted but not told."""
REDACTED = "vx11-dlq-redacted"
"""On the letter of a request that had secrets in it."""
RETRY_OF = "vx11-retry-of"
"""On what comes back: the number of its letter."""
ORIGINAL = "vx11-orig-"
"""Put before `Nats-` headers: kept as they are they would tell the stream to drop or to refuse the dead letter."""
MESSAGE_ID = "Nats-Msg-Id"

HISTORY_MOST = 10
"""Tries that are told, those before a retry included. With this and the bounds of `bus.retry` all headers of ours fit into
`bus.streams.HEADER_ROOM_BYTES`."""
ROOTS = {"VX11_EVENTS": "vx11.events", "VX11_JOBS": "vx11.jobs"}
"""Of the streams whose consumers get their letters back."""
LITERAL = re.compile(r"vx11(\.[^.*>\s]+){2,}")
"""A subject that a message may have."""
EPOCH = datetime.fromtimestamp(0, UTC)


def filters(stream: str, consumer: str, subjects: Iterable[str]) -> list[str]:
    """What a durable consumer hears: its subjects, and the letters that are given back to it."""
    again = [f"{ROOTS[stream]}.dlq.again.{consumer}.*"] if stream in ROOTS else []
    return sorted({*subjects, *again})


def filter_of(subject: str) -> str:
    """The one of `filters` that lets this subject through."""
    return f"{subject.rpartition('.')[0]}.*" if ".dlq.again." in subject else subject


def again_subject(letter: Mapping[str, str]) -> str:
    """Where this letter of an event goes back to. One event of one consumer has one: a second copy can be found."""
    stored = datetime.fromisoformat(letter[AT]) if AT in letter else EPOCH
    return f"{ROOTS[letter[STREAM]]}.dlq.again.{letter[CONSUMER]}.{token(int(letter[SEQUENCE]), stored)}"


def token(sequence: int, stored: datetime) -> str:
    """One message of one stream in one word, also when the stream was made again."""
    return f"{sequence}-{(stored - EPOCH) // timedelta(microseconds=1)}"


def came_back(stream: str, subject: str) -> bool:
    """Is this a letter that was given back? Nobody but the keeper may publish there."""
    return subject.startswith(f"{ROOTS.get(stream, '?')}.dlq.again.")


def origin(stream: str, subject: str, headers: Mapping[str, str] | None) -> str:
    """Where it came from first."""
    told = (headers or {}).get(SUBJECT, "")
    return told if came_back(stream, subject) and LITERAL.fullmatch(told) else subject


def history(headers: Mapping[str, str] | None) -> list[dict[str, Any]]:
    """The tries that the headers tell of; those that cannot be read are left out."""
    try:
        told = json.loads((headers or {}).get(HISTORY) or "[]")
    except ValueError:
        return []
    return [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []


def dead_subject(subject: str) -> str:
    return f"vx11.dlq.{subject.removeprefix('vx11.')}"


def kept(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Of a message's headers what its letter has, too. One that comes back keeps its first message id.

    What whoever sent it says of letters is not among them: that is for who writes the letter.
    """
    told = {k: v for k, v in (headers or {}).items() if not k.lower().startswith(PREFIX)}
    renamed = {ORIGINAL + k: v for k, v in told.items() if k.lower().startswith("nats-")}
    return renamed | {k: v for k, v in told.items() if not k.lower().startswith("nats-")}


def restored(letter: Mapping[str, str]) -> dict[str, str]:
    """Of a letter's headers those that its message had, without its message id: the stream would take it for a copy."""
    return {k: v for k, v in letter.items() if not k.lower().startswith(("nats-", PREFIX, RETRY_OF))}


class Letter(NamedTuple):
    """Ready to be published."""

    subject: str
    body: bytes
    headers: dict[str, str]


def request_letter(
    actor: str, verb: str, body: bytes, headers: Mapping[str, str], detail: str, schema: Mapping[str, Any] | None
) -> Letter | None:
    """For a request that no instance survived; one request has one letter, whoever notices. None: it has one already.

    Its secrets are not kept, those that `schema` names included, and nothing of its body without a schema, because nobody
    knows then which of its fields are secret: such a request cannot be asked again.
    """
    if RETRY_OF in headers:
        return None
    subject = f"vx11.{actor}.{verb}"
    shown = b"" if schema is None else _without_secrets(body, schema)
    made = kept(headers) | {REASON: "crashed", SUBJECT: subject, DETAIL: detail}
    if shown != body:
        made[REDACTED] = "1"
    if request_id := headers.get(call.REQUEST_ID):
        made[MESSAGE_ID] = f"dlq:request:{request_id}"
    return Letter(dead_subject(subject), shown, made)


def _without_secrets(body: bytes, schema: Mapping[str, Any]) -> bytes:
    try:
        document = json.loads(body)
        shown = redacted_document(hidden_by(schema, document))
    except (ValueError, RecursionError):
        return redacted_event(body)
    return body if shown == document else json.dumps(shown).encode()
