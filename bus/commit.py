"""One commit of one or many events: sent, and the stream's word heard, which is the only one that counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bus.plain import Plain
from bus.streams import EVENTS, jetstream_failure
from bus.wire import Msg, status_of
from schemas.errors import Failure

ID = "Nats-Msg-Id"
FENCE = "Nats-Expected-Last-Subject-Sequence"
BATCH = "Nats-Batch-"
TRY_S = 2.5
"""One commit without an answer."""


class Refused(Exception):
    """The server's word that nothing of it was stored."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.err_code = failure.details.get("err_code")


@dataclass(slots=True, eq=False)
class Waiting:
    """An event on its way. `begun`, in seconds since the epoch, and `after`, a sequence: it cannot have been stored before.

    `doubtful`: it was sent, and what became of it is not known.
    """

    subject: str
    body: bytes
    headers: Mapping[str, str]
    stored: asyncio.Future[int]
    size: int
    begun: float
    after: int
    until: float
    doubtful: bool
    overtaken: int = 0

    @property
    def id(self) -> str:
        return self.headers[ID]


class Commits:
    """Over one connection. `last`: the sequence that the stream has acknowledged last; `batches`: sent so far."""

    def __init__(self, bus: Plain) -> None:
        self.last = 0
        self._bus = bus
        self.batches = 0
        self._under_way: dict[asyncio.Future[dict[str, Any]], Sequence[Waiting]] = {}
        bus.wire.on_denied.append(self._denied)

    async def together(self, batch: Sequence[Waiting]) -> None:
        """All of them or none. Raises Refused; Failure: it is unknown which."""
        self.batches += 1
        common = {f"{BATCH}Id": f"{self._bus.wire.inbox.rpartition('.')[2]}-{self.batches}"}
        try:
            for number, event in enumerate(batch[:-1], 1):
                headers = {**event.headers, **common, f"{BATCH}Sequence": str(number)}
                self._bus.wire.send(event.subject, event.body, headers=headers)
        except Failure as failure:
            raise Refused(failure) from failure
        last = {**batch[-1].headers, **common, f"{BATCH}Sequence": str(len(batch)), f"{BATCH}Commit": "1"}
        ack = await self._asked(batch, last)
        for event, sequence in zip(batch, range(int(ack["seq"]) - len(batch) + 1, int(ack["seq"]) + 1), strict=True):
            settle(event, sequence)

    async def singly(self, batch: Sequence[Waiting]) -> Failure | None:
        """All at once, each for itself; why some of them are not settled."""
        outcomes = await asyncio.gather(*(self.one(event) for event in batch), return_exceptions=True)
        why: Failure | None = None
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                why = outcome
            elif isinstance(outcome, BaseException):
                raise outcome
        return why

    async def one(self, event: Waiting, *, fence: int | None = None) -> int:
        """Store one and settle it; its sequence, 0 when it was refused for good.

        Raises Failure: it is unknown, or may be tried again; Refused: something else has come to the subject.
        """
        headers = event.headers if fence is None else {**event.headers, FENCE: str(fence)}
        try:
            sequence = int((await self._asked((event,), headers))["seq"])
        except Refused as refused:
            if refused.failure.code == "conflict":
                raise
            if refused.failure.code == "unavailable":
                raise refused.failure from None
            event.doubtful = False
            fail(event, refused.failure)
            return fence or 0
        settle(event, sequence)
        return sequence

    async def _asked(self, events: Sequence[Waiting], headers: Mapping[str, str]) -> dict[str, Any]:
        """Send the last of them, which commits all; the server's acknowledgement."""
        last = events[-1]
        told: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        token, reply = self._bus.wire.await_answer(lambda msg: _hear(msg, told))
        try:
            async with asyncio.timeout(TRY_S):
                with self._bus.unless_lost(told):
                    self._under_way[told] = events
                    self._bus.wire.send(last.subject, last.body, reply=reply, headers=headers)
                    document = await told
        except (TimeoutError, Failure) as trouble:
            failure = trouble if isinstance(trouble, Failure) else Failure("timeout", f"no answer in {TRY_S:g} s")
            if failure.code not in ("timeout", "unavailable"):
                raise Refused(failure) from failure
            for event in events:
                event.doubtful = True
            raise failure from None
        finally:
            self._bus.wire.forget_answer(token)
            self._under_way.pop(told, None)
        if error := document.get("error"):
            raise Refused(jetstream_failure(error))
        self.last = int(document["seq"])
        return document

    def _denied(self, told: str) -> None:
        """The server refuses a subject, and with it all of a batch: there will be no other answer."""
        for done, events in self._under_way.items():
            if not done.done() and any(_of_publishing(event.subject) in told for event in events):
                done.set_exception(Failure("forbidden", f"the NATS server says: {told}"))


def _of_publishing(subject: str) -> str:
    """Part of what the server says when it refuses a message."""
    quoted = subject.replace("\\", "\\\\").replace('"', '\\"')
    return f'Publish to "{quoted}"'


def _hear(msg: Msg, told: asyncio.Future[dict[str, Any]]) -> None:
    """The stream's word, or the server's that there is no stream. Somebody who listens for the event may answer, too."""
    try:
        document = json.loads(msg.data or b"{}")
    except ValueError:
        return
    if status_of(msg) == "503":
        document = {"error": {"code": 503, "description": "no stream takes it"}}
    if not told.done() and isinstance(document, dict) and (_acknowledges(document) or _refuses(document)):
        told.set_result(document)


def _acknowledges(document: Mapping[str, Any]) -> bool:
    return document.get("stream") == EVENTS and isinstance(document.get("seq"), int) and document["seq"] > 0


def _refuses(document: Mapping[str, Any]) -> bool:
    error = document.get("error")
    return isinstance(error, dict) and "description" in error and (document.get("stream") == EVENTS or "stream" not in document)


def settle(event: Waiting, sequence: int) -> None:
    if not event.stored.done():
        event.stored.set_result(sequence)


def fail(event: Waiting, failure: Failure) -> None:
    if not event.stored.done():
        event.stored.set_exception(Failure(failure.code, failure.message, **failure.details))
