"""What becomes of a durable message: settled, tried again later, or buried with its reason; nothing vanishes.

An outcome that the server does not hear of is no outcome: the message comes again. A dead letter that cannot be stored
leaves its message where it is.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import pydantic

from bus.pull import ACK, NAK, TERM, Key, Pull, key_of
from bus.wire import Msg
from schemas.errors import Failure

log = logging.getLogger("vx11.retry")

LADDER_S = (1.0, 2.0, 4.0, 30.0)
"""Waits before try 2, 3, 4, 5; after the last try the message is dead."""
DLQ_TIMEOUT_S = 5.0
DETAIL_CHARS = 1_000
ERROR_CHARS = 120
"""Of one try in the history. With these bounds all headers of ours fit into `bus.streams.HEADER_ROOM_BYTES`."""
LETTER_AGAIN_S = 30.0
"""Until a dead letter that could not be stored is tried again."""
REMEMBERED = 1_000
"""Messages whose tries are remembered: as many as a consumer may have unsettled (`MAX_ACK_PENDING`)."""

REASON = "vx11-dlq-reason"
"""`invalid`: no handler can ever take it; `failed`: the last try failed; `crashed`: no last try ended at all."""
DETAIL = "vx11-dlq-detail"
SUBJECT = "vx11-dlq-subject"
STREAM = "vx11-dlq-stream"
SEQUENCE = "vx11-dlq-sequence"
CONSUMER = "vx11-dlq-consumer"
TRIES = "vx11-dlq-tries"
HISTORY = "vx11-dlq-history"
"""JSON list of `{"try", "at", "error"}`; tries of an earlier process are counted but not told."""
ORIGINAL = "vx11-orig-"
"""Put before `Nats-` headers: kept as they are they would tell the stream to drop or to refuse the dead letter."""


class Publish(Protocol):
    """Store a message: `Bus.api`."""

    def __call__(self, subject: str, body: bytes, *, timeout: float, headers: Mapping[str, str]) -> Awaitable[dict[str, Any]]: ...


@dataclass(slots=True)
class _Past:
    """What is known of a message that has not been settled."""

    tries: int
    """Tries that have begun, in this process or, as the server counts deliveries, in an earlier one."""
    history: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""
    """Why it is dead, when its letter could not be stored yet."""
    detail: str = ""


class Retry:
    """Decides for the messages of one `pull`; `publish` stores dead letters."""

    def __init__(self, pull: Pull, publish: Publish, *, max_payload: int, ladder: tuple[float, ...] = LADDER_S) -> None:
        self._pull, self._publish = pull, publish
        self._max_payload, self._ladder = max_payload, ladder
        self._past: dict[Key, _Past] = {}

    async def handle(self, msg: Msg, run: Callable[[], Awaitable[object]]) -> bool:
        """Run the handler and tell the server what became of `msg`; True when it will not come again.

        Raises nothing that a handler may raise or leak: it would stop the whole consumer.
        """
        key = key_of(msg)
        past = self._past.pop(key, None) or _Past(msg.metadata.num_delivered - 1)
        if past.tries > len(self._ladder) and not past.reason:
            past.reason, past.detail = "crashed", "the last try began and never ended"
        settled = await self._bury(msg, past) if past.reason else await self._try(msg, past, run)
        if not settled:
            self._past[key] = past
            if len(self._past) > REMEMBERED:
                del self._past[next(iter(self._past))]
        return settled

    async def _try(self, msg: Msg, past: _Past, run: Callable[[], Awaitable[object]]) -> bool:
        error = await _outcome(run)
        if error is None:
            self._pull.say(msg, ACK)
            return True
        if isinstance(error, asyncio.CancelledError) and self._pull.leaving:
            self._pull.say(msg, NAK)  # cut short, not failed: another instance may have it at once
            return False
        past.tries += 1
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        past.history.append({"try": past.tries, "at": now, "error": repr(error)[:ERROR_CHARS]})
        if isinstance(error, pydantic.ValidationError):
            past.reason, past.detail = "invalid", told(error)
        elif past.tries > len(self._ladder):
            past.reason, past.detail = "failed", repr(error)
        else:
            log.warning("try %d of %s failed: %r", past.tries, _name(msg), error)
            self._pull.say(msg, NAK, delay_s=self._ladder[past.tries - 1])
            return False
        surprise = error if past.reason == "failed" else None  # what an invalid one has in it is for the dead letter only
        log.error("%s is dead: %s: %s", _name(msg), past.reason, past.detail, exc_info=surprise)
        return await self._bury(msg, past)

    async def _bury(self, msg: Msg, past: _Past) -> bool:
        letter = _letter(msg, past)
        try:
            if len(msg.data) + _size(letter) > self._max_payload:
                raise Failure("too_large", "body and headers together would cost the connection")
            await self._publish(dead_subject(msg.subject), msg.data, timeout=DLQ_TIMEOUT_S, headers=letter)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it was, the message stays
            log.error("the dead letter of %s cannot be stored, it stays: %r", _name(msg), error)
            self._pull.say(msg, NAK, delay_s=LETTER_AGAIN_S)
            return False
        self._pull.say(msg, TERM)
        return True


def dead_subject(subject: str) -> str:
    return f"vx11.dlq.{subject.removeprefix('vx11.')}"


def told(error: pydantic.ValidationError) -> str:
    """What was wrong where, without what was in it: headers and logs are read by more people than bodies are."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in found)


async def _outcome(run: Callable[[], Awaitable[object]]) -> BaseException | None:
    try:
        await run()
    except (Exception, asyncio.CancelledError, SystemExit) as error:  # noqa: BLE001 - `Retry` answers for all of them
        return error
    return None


def _letter(msg: Msg, past: _Past) -> dict[str, str]:
    """The headers of the dead letter. One message of one consumer is stored once, however often it is sent."""
    meta = msg.metadata
    kept = {(ORIGINAL + k if k.lower().startswith("nats-") else k): v for k, v in (msg.headers or {}).items()}
    return kept | {
        "Nats-Msg-Id": f"dlq:{meta.stream}:{meta.sequence.stream}:{meta.timestamp.timestamp():.6f}:{meta.consumer}",
        REASON: past.reason,
        DETAIL: " ".join(past.detail.split())[:DETAIL_CHARS],
        SUBJECT: msg.subject,
        STREAM: meta.stream,
        SEQUENCE: str(meta.sequence.stream),
        CONSUMER: meta.consumer,
        TRIES: str(past.tries),
        HISTORY: json.dumps(past.history),
    }


def _size(headers: Mapping[str, str]) -> int:
    return sum(len(f"{k}: {v}\r\n".encode()) for k, v in headers.items()) + len(b"NATS/1.0\r\n\r\n")


def _name(msg: Msg) -> str:
    return f"{msg.subject} ({msg.metadata.stream} {msg.metadata.sequence.stream}, {msg.metadata.consumer})"
