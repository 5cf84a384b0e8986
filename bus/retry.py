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
from typing import Any, Protocol

import pydantic

from bus import call, dead
from bus.actor import RETRIES_S
from bus.moment import rfc3339_now
from bus.origin import origin_of
from bus.pull import ACK, NAK, TERM, Key, Pull, key_of
from bus.redaction import without_credentials
from bus.tries import Tries
from bus.wire import Msg
from schemas.errors import Failure

log = logging.getLogger("vx11.retry")

LADDER_S = RETRIES_S
DLQ_TIMEOUT_S = 5.0
DETAIL_CHARS = 1_000
ERROR_CHARS = 120
"""Of one try in the history. With these bounds all headers of ours fit into `bus.streams.HEADER_ROOM_BYTES`."""
LETTER_AGAIN_S = 30.0
"""Until a dead letter that could not be stored is tried again."""
REMEMBERED = 1_000
"""Messages whose tries are remembered: as many as a consumer may have unsettled (`MAX_ACK_PENDING`)."""


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
    """Decides for the messages of one `pull`; `publish` stores dead letters, `tries` remembers for the next process."""

    def __init__(
        self, pull: Pull, publish: Publish, tries: Tries, *, max_payload: int, ladder: tuple[float, ...] = LADDER_S
    ) -> None:
        self._pull, self._publish, self._tries = pull, publish, tries
        pull.returned = tries.returned
        self._max_payload, self._ladder = max_payload, ladder
        self._past: dict[Key, _Past] = {}

    async def handle(self, msg: Msg, run: Callable[[], Awaitable[object]]) -> bool:
        """Run the handler and tell the server what became of `msg`; True when it will not come again.

        Raises nothing that a handler may raise or leak: it would stop the whole consumer.
        """
        key = key_of(msg)
        try:
            past = self._past.pop(key, None) or await self._met(msg)
        except asyncio.CancelledError:
            self._hand_back(msg)
            return False
        if past.tries > len(self._ladder) and not past.reason:
            past.reason, past.detail = "crashed", "the last try began and never ended"
        settled = await self._bury(msg, past) if past.reason else await self._try(msg, past, run)
        if not settled:
            self._past[key] = past
            if len(self._past) > REMEMBERED:
                del self._past[next(iter(self._past))]
        return settled

    async def _met(self, msg: Msg) -> _Past:
        """A message that this process has not had in hand before; an earlier one may have."""
        past = _Past(msg.delivery.num_delivered - 1, dead.history(msg.headers) if _came_back(msg) else [])
        if past.tries:
            failed, returned = await self._tries.told(msg)
            past.tries = max(past.tries - returned, len(failed))
            past.history += failed
        return past

    def _hand_back(self, msg: Msg) -> None:
        """Cut short, not failed: another instance may have it at once."""
        self._tries.returned(msg)
        self._pull.say(msg, NAK)

    async def _try(self, msg: Msg, past: _Past, run: Callable[[], Awaitable[object]]) -> bool:
        error = await _outcome(run)
        if error is None:
            self._pull.say(msg, ACK)
            return True
        if isinstance(error, asyncio.CancelledError) and self._pull.leaving:
            self._hand_back(msg)
            return False
        past.tries += 1
        now = rfc3339_now()
        past.history.append({"try": past.tries, "at": now, "error": _shown(error)[:ERROR_CHARS]})
        if isinstance(error, pydantic.ValidationError):
            past.reason, past.detail = "invalid", _shown(error)
        elif past.tries > len(self._ladder):
            past.reason, past.detail = "failed", _shown(error)
        else:
            log.warning("try %d of %s failed: %r", past.tries, _name(msg), error)
            self._tries.failed(msg, past.tries, past.history[-1]["error"], now)
            self._pull.say(msg, NAK, delay_s=self._ladder[past.tries - 1])
            return False
        surprise = error if past.reason == "failed" else None  # what an invalid one has in it is for the dead letter only
        log.error("%s is dead: %s: %s", _name(msg), past.reason, past.detail, exc_info=surprise)
        return await self._bury(msg, past)

    async def _bury(self, msg: Msg, past: _Past) -> bool:
        letter = _letter(msg, past)
        if self._too_large(msg, letter):
            letter |= {dead.HISTORY: "[]", dead.DETAIL: letter[dead.DETAIL][:ERROR_CHARS]}
        try:
            if self._too_large(msg, letter):
                raise Failure("too_large", "body and headers together would cost the connection")
            await self._publish(dead.dead_subject(letter[dead.SUBJECT]), msg.data, timeout=DLQ_TIMEOUT_S, headers=letter)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it was, the message stays
            log.error("the dead letter of %s cannot be stored, it stays: %r", _name(msg), error)
            self._pull.say(msg, NAK, delay_s=LETTER_AGAIN_S)
            return False
        self._pull.say(msg, TERM)
        return True

    def _too_large(self, msg: Msg, letter: Mapping[str, str]) -> bool:
        return len(msg.data) + _size(letter) > self._max_payload


def told(error: pydantic.ValidationError) -> str:
    """What was wrong where, without what was in it: headers and logs are read by more people than bodies are."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in found)


def _shown(error: BaseException) -> str:
    """In one line, for headers and the log."""
    text = told(error) if isinstance(error, pydantic.ValidationError) else repr(error)
    return without_credentials(" ".join(text.split()))


async def _outcome(run: Callable[[], Awaitable[object]]) -> BaseException | None:
    try:
        await run()
    except (Exception, asyncio.CancelledError, SystemExit) as error:  # noqa: BLE001 - `Retry` answers for all of them
        return error
    return None


def _letter(msg: Msg, past: _Past) -> dict[str, str]:
    """The headers of the dead letter. One message of one consumer is stored once, however often it is sent."""
    meta = msg.delivery
    correlation, traceparent = origin_of(meta.stream, meta.sequence, msg.headers, msg.data)
    return (
        {call.CORRELATION: correlation, call.TRACEPARENT: traceparent}
        | dead.kept(msg.headers)
        | {
            dead.MESSAGE_ID: f"dlq:{meta.stream}:{meta.sequence}:{meta.timestamp.timestamp():.6f}:{meta.consumer}",
            dead.REASON: past.reason,
            dead.DETAIL: past.detail[:DETAIL_CHARS],
            dead.SUBJECT: dead.origin(meta.stream, msg.subject, msg.headers),
            dead.STREAM: meta.stream,
            dead.SEQUENCE: str(meta.sequence),
            dead.AT: meta.timestamp.isoformat(),
            dead.CONSUMER: meta.consumer,
            dead.TRIES: str(past.tries),
            dead.HISTORY: json.dumps(past.history[-dead.HISTORY_MOST :]),
        }
    )


def _came_back(msg: Msg) -> bool:
    return dead.came_back(msg.delivery.stream, msg.subject)


def _size(headers: Mapping[str, str]) -> int:
    return sum(len(f"{k}: {v}\r\n".encode()) for k, v in headers.items()) + len(b"NATS/1.0\r\n\r\n")


def _name(msg: Msg) -> str:
    return f"{msg.subject} ({msg.delivery.stream} {msg.delivery.sequence}, {msg.delivery.consumer})"
