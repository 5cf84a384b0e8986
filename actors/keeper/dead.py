"""Dead letters: listed, shown, given back to the one who could not take them, or dropped with a reason.

Each step can be killed: a letter is removed only when what becomes of it is stored, and a second try finds what the first
has stored.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from bus import call, dead, streams
from bus.client import Bus
from bus.eventlog import EventLog, Stored, stored
from bus.moment import rfc3339, rfc3339_now
from schemas.dead import (
    PIECE_BYTES,
    Dead,
    DeadDropped,
    DeadLetter,
    DeadList,
    DeadRetried,
    DropDead,
    Dropped,
    GetDead,
    ListDead,
    Retried,
    RetryDead,
)
from schemas.errors import Failure

SUBJECTS = "vx11.dlq.>"
BLOCK = 256
SCAN_S = 10.0
"""A list ends early after it and says where to go on; before `ListDead.timeout`."""
ASK_S = 45.0
"""For a request that is asked again; before `RetryDead.timeout`."""
API_S = 5.0
PUBLISH_S = 10.0
AGAIN_S = 0.1


class DeadLetters:
    """`VX11_DLQ` as operators see it. Every method raises Failure."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._letters = EventLog(bus, streams.DLQ, SUBJECTS)
        self._in_hand: set[int] = set()
        self._refused: dict[int, int] = {}
        """Of letters of requests: how often it was asked again, and is known not to have been done."""

    async def list(self, asked: ListDead) -> DeadList:
        """Oldest first; what is looked for is found among all letters, however long that takes up to SCAN_S."""
        until = asyncio.get_running_loop().time() + SCAN_S
        _, last = await self._letters.bounds()
        after, found = asked.after, list[Dead]()
        while len(found) < asked.limit and after < last and asyncio.get_running_loop().time() < until:
            block = await self._letters.page(after, BLOCK)
            if not block:
                return DeadList(letters=found, next_after=last, total=await self._total())
            for one in map(stored, block):
                after = one.sequence
                if _wanted(letter := _dead(one), asked):
                    found.append(letter)
                if len(found) == asked.limit:
                    break
        return DeadList(letters=found, more=after < last, next_after=after, total=await self._total())

    async def get(self, asked: GetDead) -> DeadLetter:
        """A letter and a piece of its body."""
        one = await self._letter(asked.sequence)
        body, encoding = _piece(one.body, asked.offset)
        return DeadLetter(
            letter=_dead(one),
            history=dead.history(one.headers),
            headers=dead.restored(one.headers),
            offset=asked.offset,
            body=body,
            encoding=encoding,
        )

    async def retry(self, asked: RetryDead, by: str = "") -> DeadRetried:
        """Give it back, and remove the letter once that is stored."""
        with self._alone(asked.sequence):
            one = await self._letter(asked.sequence)
            done = await (self._give_back(one) if dead.CONSUMER in one.headers else self._ask_again(one))
            letter = _dead(one)
            event = Retried(
                sequence=one.sequence,
                actor=letter.actor,
                origin=letter.subject,
                consumer=letter.consumer,
                stored_as=done.stored_as,
                by=by,
                at=rfc3339_now(),
            )
            await self._bus.publish(event, message_id=f"retried:{_id(one)}")
            await self._remove(one.sequence)
            return done

    async def drop(self, asked: DropDead, by: str = "") -> DeadDropped:
        """Say so in the log, then remove it."""
        with self._alone(asked.sequence):
            one = await self._letter(asked.sequence)
            letter = _dead(one)
            event = Dropped(
                sequence=one.sequence,
                actor=letter.actor,
                origin=letter.subject,
                consumer=letter.consumer,
                reason=asked.reason,
                by=by,
                at=rfc3339_now(),
            )
            await self._bus.publish(event, message_id=f"dropped:{_id(one)}")
            await self._remove(one.sequence)
            return DeadDropped(letter=letter)

    @contextmanager
    def _alone(self, sequence: int) -> Iterator[None]:
        if sequence in self._in_hand:
            raise Failure("busy", f"dead letter {sequence} is being retried or dropped just now", retry_after=1)
        self._in_hand.add(sequence)
        try:
            yield
        finally:
            self._in_hand.discard(sequence)

    async def _give_back(self, one: Stored) -> DeadRetried:
        """To its consumer alone. The same letter is stored once, also when the keeper died after it was."""
        stream, consumer = one.headers.get(dead.STREAM, ""), one.headers[dead.CONSUMER]
        await self._check_hears(stream, consumer, one)
        subject = dead.again_subject(one.headers)
        before = await self._last_on(stream, subject)
        number = before or await self._store(stream, subject, one)
        return DeadRetried(
            sequence=one.sequence,
            subject=_origin(one),
            consumer=consumer,
            stream=stream,
            stored_as=number,
            again=before > 0,
        )

    async def _check_hears(self, stream: str, consumer: str, one: Stored) -> None:
        """Raises Failure("conflict") when what is stored would be heard by nobody."""
        info = await streams.consumer_info(self._bus.api, stream, consumer) if stream in dead.ROOTS else None
        heard = (info or {}).get("config", {}).get("filter_subjects") or ()
        if dead.filter_of(dead.again_subject(one.headers) if info else "") not in heard:
            raise Failure(
                "conflict",
                f"nobody would hear it: no actor of {stream or 'its stream'} has the durable handler {consumer}; "
                "bring it back, or drop the letter",
                next=[
                    ["vx11 status", "which actors there are"],
                    [f"vx11 dlq drop {one.sequence} --reason ...", "remove it for good"],
                ],
            )

    async def _last_on(self, stream: str, subject: str) -> int:
        found = await EventLog(self._bus, stream).page(0, 1, subject=subject)
        return stored(found[0]).sequence if found else 0

    async def _store(self, stream: str, subject: str, one: Stored) -> int:
        """A body that leaves no room for more goes back without what a retry adds: its history, at last its conversation."""
        info = await streams.stream_info(self._bus.api, stream)
        room = int(info["config"].get("max_msg_size", -1))
        own = dead.restored(one.headers)
        added = {
            dead.RETRY_OF: str(one.sequence),
            dead.SUBJECT: _origin(one),
            dead.HISTORY: json.dumps(dead.history(one.headers)),
            dead.MESSAGE_ID: f"again:{_id(one)}",
        }
        bare = {name: value for name, value in own.items() if name not in (call.CORRELATION, call.TRACEPARENT)}
        fitting = (made for made in (own | added, own, bare) if room < 0 or len(one.body) + _size(made) <= room)
        return await self._publish(subject, one.body, next(fitting, bare))

    async def _publish(self, subject: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Byte for byte, unlike what `Bus.publish` makes of an event; tried again for PUBLISH_S seconds."""
        end = time.monotonic() + PUBLISH_S
        while True:
            try:
                return int((await self._bus.api(subject, body, timeout=API_S, headers=headers))["seq"])
            except Failure as failure:
                if failure.code not in ("timeout", "unavailable") or time.monotonic() > end:
                    raise
            await asyncio.sleep(AGAIN_S)

    async def _ask_again(self, one: Stored) -> DeadRetried:
        """A request has nobody who waits for its answer: it is asked in the keeper's name, and done when it is answered."""
        subject = _origin(one)
        if dead.REDACTED in one.headers:
            raise Failure("conflict", "the secrets of this request were not kept; whoever has them must ask again")
        own = {k: v for k, v in dead.restored(one.headers).items() if k in (call.CORRELATION, call.TRACEPARENT)}
        own[dead.RETRY_OF] = str(one.sequence)
        times = self._refused.get(one.sequence, 0)
        try:  # by the same id as long as it may have been done: its actor then knows the copy
            await self._bus.ask(subject, one.body, timeout=ASK_S, request_id=f"retry:{_id(one)}:{times}", headers=own)
        except Failure as failure:
            if failure.code != "timeout":
                self._refused[one.sequence] = times + 1
            raise
        self._refused.pop(one.sequence, None)
        return DeadRetried(sequence=one.sequence, subject=subject)

    async def _letter(self, sequence: int) -> Stored:
        found = await self._letters.pick([sequence])
        if not found:
            told = f"there is no dead letter {sequence}; it may have been retried or dropped"
            raise Failure("not_found", told, next=[["vx11 dlq ls", "which letters there are"]])
        one = stored(found[0])
        own = {k: v for k, v in (found[0].headers or {}).items() if k == dead.MESSAGE_ID}
        return one._replace(headers={**one.headers, **own})

    async def _remove(self, sequence: int) -> None:
        try:
            body = json.dumps({"seq": sequence}).encode()
            await self._bus.api(f"$JS.API.STREAM.MSG.DELETE.{streams.DLQ}", body, timeout=API_S)
        except Failure:
            if await self._letters.pick([sequence]):
                raise

    async def _total(self) -> int:
        return int((await streams.stream_info(self._bus.api, streams.DLQ))["state"]["messages"])


def _dead(one: Stored) -> Dead:
    headers = one.headers
    origin = _origin(one)
    consumer = headers.get(dead.CONSUMER, "")
    return Dead(
        sequence=one.sequence,
        actor=consumer.partition("__")[0] or origin.removeprefix("vx11.").partition(".")[0],
        subject=origin,
        reason=headers.get(dead.REASON, ""),
        detail=headers.get(dead.DETAIL, ""),
        tries=call.milliseconds(headers.get(dead.TRIES)),
        consumer=consumer,
        stream=headers.get(dead.STREAM, ""),
        stored_as=call.milliseconds(headers.get(dead.SEQUENCE)),
        correlation_id=headers.get(call.CORRELATION, ""),
        size=len(one.body),
        buried_at=rfc3339(one.at),
    )


def _origin(one: Stored) -> str:
    return one.headers.get(dead.SUBJECT) or one.subject.replace("vx11.dlq.", "vx11.", 1)


def _id(one: Stored) -> str:
    """Of one letter, for good: the stream of letters may have been made again and count from 1."""
    return one.headers.get(dead.MESSAGE_ID) or f"{one.sequence}:{one.at}"


def _wanted(letter: Dead, asked: ListDead) -> bool:
    return (
        (not asked.actor or letter.actor == asked.actor)
        and (not asked.reason or letter.reason == asked.reason)
        and (not asked.since or datetime.fromisoformat(letter.buried_at) >= asked.since)
    )


def _piece(body: bytes, offset: int) -> tuple[str, str]:
    """Text, when the whole is text and short enough for one piece; else base64."""
    if offset == 0 and len(body) <= PIECE_BYTES:
        try:
            return body.decode(), "text"
        except UnicodeDecodeError:
            return base64.b64encode(body).decode(), "base64"
    return base64.b64encode(body[offset : offset + PIECE_BYTES]).decode(), "base64"


def _size(headers: Mapping[str, str]) -> int:
    return sum(len(f"{k}: {v}\r\n".encode()) for k, v in headers.items()) + len(b"NATS/1.0\r\n\r\n")
