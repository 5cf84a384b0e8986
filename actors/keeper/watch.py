"""Follows the event log: folds it into the chain, indexes it, and says when it is not what it was."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from actors.keeper import compare
from actors.keeper.compare import Bad, Outcome
from actors.keeper.index import Index
from actors.keeper.ledger import Ledger
from actors.keeper.rules import Rules
from actors.keeper.signer import Signer
from bus import call, chaos
from bus.chain import fold
from bus.client import Bus
from bus.eventlog import PAGE, STREAM, SUBJECTS, EventLog, Stored, stored
from bus.moment import rfc3339_now
from bus.origin import headers_of
from bus.vault import Vault
from schemas.errors import Failure
from schemas.keeper import Checkpoint, Checkpointed, Finding, LogAccepted, LogBroken
from schemas.message import Event

log = logging.getLogger("vx11.keeper")

AGAIN_S = 0.5
"""After the log could not be read, or keeper.db not be written."""
LAST_WORDS_S = 2.0
"""For what is still to be told at the end."""


class Watch:
    """`open`, then `follow` until it is cancelled, then `close`."""

    def __init__(self, bus: Bus, vault: Vault, ledger: Ledger, index: Index, signer: Signer, rules: Rules) -> None:
        self._bus = bus
        self._vault = vault
        self.ledger = ledger
        self.index = index
        self._signer = signer
        self._rules = rules
        self.log = EventLog(bus)
        self.news = asyncio.Event()
        self.broken: Finding | None = ledger.open
        self.checked = False
        """Whether every event has been compared since the start."""
        self.trouble = ""
        """Why the log is not followed just now; empty while it is."""
        self.stuck_since = 0.0
        self._opened_at = ledger.head
        """Up to here an earlier process vouches for what is in the file."""
        self._turn = asyncio.Lock()
        self._chain = 0
        """Which one since the start: what was found of another one is of no use."""
        self._doubted = True
        """The server may be another one, with another stream: its end is compared before anything is read on."""
        self._since_events = self._since_bytes = 0
        self._since = 0.0
        self._telling: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin the chain when there is none. Raises Failure when the stream cannot be read."""
        first, _ = await self.log.bounds()
        if not self.ledger.begun:
            with self.written():
                self.ledger.begin(STREAM, first, first - 1)
                self.index.forget_before(STREAM, first)
        await self._bus.listen(SUBJECTS, lambda _: self.news.set())
        self._bus.wire.on_reconnect.append(self.doubt)
        self.news.set()

    async def follow(self) -> None:
        while True:
            await self.news.wait()
            await asyncio.sleep(self._rules.gather_s)
            self.news.clear()
            try:
                await self.catch_up()
                self.trouble = ""
            except Failure as failure:
                if failure.message != self.trouble:  # said once: it may stay for hours
                    log.warning("the log is not followed for a moment: %s", failure)
                self.stuck_since = self.stuck_since if self.trouble else time.monotonic()
                self.trouble = failure.message
                await asyncio.sleep(AGAIN_S)
                self.news.set()

    async def close(self) -> None:
        """Fold and sign what is there, and fold the own last words, too."""
        try:
            await self.catch_up()
            self.sign()
            if self._telling:
                await asyncio.wait(self._telling, timeout=LAST_WORDS_S)
            await self.catch_up()
        except Failure as failure:
            log.warning("the last events are folded at the next start: %s", failure)

    async def catch_up(self) -> None:
        """Fold and index all that is stored. Raises Failure."""
        async with self._turn:
            while True:
                if self._doubted:
                    await self._compare_end()
                page = [stored(msg) for msg in await self.log.page(self.index.through(STREAM), PAGE)]
                if self._doubted:
                    continue  # it may have come from another server than the one that was compared
                if not page:
                    return
                self._take(page)
                if self._due():
                    self.sign()

    async def assure(self) -> None:
        """Know whether the stream is still the one that the chain is of. Raises Failure."""
        async with self._turn:
            if self._doubted:
                await self._compare_end()

    async def verify(self, *, rest: float = 0.0) -> Outcome:
        """Compare everything. What is bad is found, and the log broken from then on. Raises Failure."""
        chain = self._chain
        first, _ = await self.log.bounds()
        ledger = self.ledger
        if first > ledger.genesis + 1 and ledger.head > ledger.genesis:
            bad = compare.beginning(ledger.genesis + 1, min(first - 1, ledger.head))
            outcome = Outcome(0, ledger.genesis, ledger.head, bad)
        else:
            outcome = await compare.compare(self.log, ledger, ledger.genesis, ledger.genesis_hash, rest=rest)
        if self._chain != chain:
            raise Failure("conflict", "the log was accepted while it was compared; ask again")
        if outcome.bad:
            self.found(outcome.bad)
        elif not self.broken:
            self.checked = True
            with self.written():
                ledger.verified(rfc3339_now())
        return outcome

    def found(self, bad: Bad) -> None:
        """Write it down and tell it, unless something is known that is as early: all behind it is bad, too."""
        if self.broken and self.broken.sequence <= bad.sequence:
            return
        with self.written():
            self._find(bad)
        self._tell_broken(bad)

    async def accept(self, reason: str, by: str) -> None:
        """Begin the chain anew behind what is there now. Raises Failure("conflict") when nothing is wrong."""
        self._check_broken()
        await self.catch_up()
        async with self._turn:
            first, last = await self.log.bounds()
            self._check_broken()  # somebody else may have accepted it meanwhile
            at = min(last, self.index.through(STREAM))
            with self.written():
                self.index.forget_after(STREAM, at)
                self.ledger.begin(STREAM, first, at)
                self.ledger.accept(rfc3339_now(), by, reason)
            self.broken, self.checked, self._opened_at = None, True, at
            self._chain += 1
        log.warning("the log was accepted as it is behind %d: %s", at, reason)
        self.tell(LogAccepted(sequence=at, hash=self.ledger.genesis_hash.hex(), reason=reason, by=by))
        self.news.set()

    def _check_broken(self) -> None:
        if not self.broken:
            raise Failure("conflict", "the log is not broken; there is nothing to accept")

    def sign(self) -> None:
        """Make a checkpoint of the head, when there is something new."""
        if self.broken or not self._since_events:
            return
        ledger = self.ledger
        made = self._signer.sign(ledger.generation + 1, ledger.head, ledger.head_hash.hex(), rfc3339_now())
        with self.written():
            ledger.sign(made)
        self._since_events = self._since_bytes = 0
        chaos.point("keeper.signed")
        self.tell(Checkpointed(**made.model_dump()))

    def sign_if_due(self) -> None:
        if self._due():
            self.sign()

    def tell(self, event: Event) -> None:
        """Store an event, without waiting for it."""
        task = asyncio.get_running_loop().create_task(self._publish(event))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def doubt(self) -> None:
        """Compare the end of the stream before anything is read on."""
        self._doubted = True
        self.news.set()

    @contextmanager
    def written(self) -> Iterator[None]:
        """A transaction; when it fails the numbers in memory are again those on disk."""
        try:
            with self._vault.transaction():
                yield
        except BaseException:
            self.ledger.load()
            self.index.load()
            raise

    async def _publish(self, event: Event) -> None:
        try:
            await self._bus.publish(event)
        except Failure as failure:
            log.warning("not told (%s): %s", failure.code, event.told())

    async def _compare_end(self) -> None:
        """Whether the stream still ends as the chain does: it may have been cut, grown again, or put back."""
        self._doubted = False
        if self.broken:
            return
        try:
            bad = await self._bad_end()
            if bad and bad.fault != "beginning":  # what is known to be bad need not be the first
                outcome = await compare.compare(self.log, self.ledger, self.ledger.genesis, self.ledger.genesis_hash)
                bad = outcome.bad or bad
            if bad:
                self.found(bad)
        except BaseException:  # also when who waits for it has no more time
            self._doubted = True
            raise

    async def _bad_end(self) -> Bad | None:
        """What is wrong with the stream's bounds, and with the events since the last checkpoint."""
        ledger = self.ledger
        first, last = await self.log.bounds()
        if last < ledger.head:
            return compare.cut(last + 1, ledger.head)
        if first > ledger.genesis + 1 and (ledger.head > ledger.genesis or first > ledger.head + 1):
            return compare.beginning(ledger.genesis + 1, first - 1)
        start = ledger.checkpoint_before(ledger.head)
        if start:
            outcome = await compare.compare(self.log, ledger, start.sequence, bytes.fromhex(start.hash))
        else:
            outcome = await compare.compare(self.log, ledger, ledger.genesis, ledger.genesis_hash)
        return outcome.bad

    def _take(self, page: list[Stored]) -> None:
        """One page into the chain and the index, in one transaction."""
        hashes, bad = ([], None) if self.broken else self._folded(page)
        with self.written():
            if hashes:
                self.ledger.append(self.ledger.head + 1, hashes)
            if bad:
                self._find(bad)
            entries = [(event.sequence, id_) for event in page if (id_ := conversation_of(event))]
            self.index.add(STREAM, entries, page[-1].sequence)
        if bad:
            self._tell_broken(bad)
        for event in page:
            if event.subject != Checkpointed.subject:  # which is no reason for another one
                self._since = self._since if self._since_events else time.monotonic()
                self._since_events += 1
                self._since_bytes += len(event.body)

    def _folded(self, page: list[Stored]) -> tuple[list[bytes], Bad | None]:
        """The hash after each event, up to the first that is not what must come."""
        at, head = self.ledger.head, self.ledger.head_hash
        hashes: list[bytes] = []
        for event in page:
            if event.sequence != at + 1:
                return hashes, compare.missing(at + 1, event.sequence - 1)
            if event.subject == Checkpointed.subject and not self._is_known(event):
                told = f"the log has a checkpoint ({event.sequence}) that keeper.db has not: an older keeper.db was put back"
                return hashes, Bad("keeper", self._opened_at + 1, told)
            head = fold(head, event)
            hashes.append(head)
            at += 1
        return hashes, None

    def _is_known(self, event: Stored) -> bool:
        """Whether a checkpoint in the log is in keeper.db, too; what was signed with another key says nothing."""
        try:
            document = json.loads(event.body)
            told = Checkpoint(**{name: document[name] for name in Checkpoint.model_fields})
        except (ValueError, TypeError, KeyError, RecursionError):
            log.warning("event %d looks like a checkpoint and is none", event.sequence)
            return True
        if not self._signer.is_ours(told):
            log.warning("the checkpoint in event %d is not signed with this keeper's key; it counts for nothing", event.sequence)
            return True
        return self.ledger.signed(told.generation) == told

    def _find(self, bad: Bad) -> None:
        self.ledger.find(Finding(fault=bad.fault, sequence=bad.sequence, told=bad.told, found_at=rfc3339_now()))

    def _tell_broken(self, bad: Bad) -> None:
        self.broken = self.ledger.open
        log.error("the log is broken at %d: %s", bad.sequence, bad.told)
        self.tell(LogBroken(fault=bad.fault, sequence=bad.sequence, what=bad.told))

    def _due(self) -> bool:
        rules = self._rules
        many = self._since_events >= rules.checkpoint_events or self._since_bytes >= rules.checkpoint_bytes
        return many or (self._since_events > 0 and time.monotonic() - self._since >= rules.checkpoint_s)


def conversation_of(event: Stored) -> str:
    """The correlation id: in the headers or a CloudEvent's attributes, else in a JSON body; empty when it has none."""
    if told := event.headers.get(call.CORRELATION) or headers_of(event.headers, event.body).get(call.CORRELATION):
        return told
    if b'"correlation_id"' not in event.body:
        return ""
    try:
        document = json.loads(event.body)
    except (ValueError, RecursionError):  # a stranger's thousand brackets
        return ""
    told = document.get(call.CORRELATION) if isinstance(document, dict) else None
    return told if isinstance(told, str) else ""
