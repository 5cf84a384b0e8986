"""Reads the log again and compares it with the chain, event by event."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from actors.keeper.ledger import Block, Ledger
from bus.chain import MARK_BYTES, fold
from bus.eventlog import PAGE, EventLog, stored
from schemas.errors import Failure
from schemas.keeper import Fault


class Bad(NamedTuple):
    """The first sequence that is not as it was."""

    fault: Fault
    sequence: int
    told: str


class Outcome(NamedTuple):
    checked: int
    after: int
    through: int
    bad: Bad | None


async def compare(log: EventLog, ledger: Ledger, after: int, head: bytes, *, rest: float = 0.0) -> Outcome:
    """From behind `after`, where the chain's hash is `head`, to the head as it is now.

    `rest`: pause so many times as long as was worked. Raises Failure("unavailable") when the log cannot be read.
    """
    at, through, checked, block = after, ledger.head, 0, Block(0, b"", b"")
    while at < through:
        begun = time.perf_counter()
        page = [stored(msg) for msg in await log.page(at, min(PAGE, through - at))]
        if ledger.genesis > at:  # trimmed, or accepted, meanwhile
            at, head = ledger.genesis, ledger.genesis_hash
            continue
        if not page:
            return Outcome(checked, after, through, cut(at + 1, through))
        for event in page:
            if event.sequence != at + 1:
                return Outcome(checked, after, through, missing(at + 1, event.sequence - 1))
            head, at, checked = fold(head, event), at + 1, checked + 1
            if at > block.last:
                block = _block(ledger, at)
            if block.mark(at) != head[:MARK_BYTES] or (at == block.last and block.hash != head):
                return Outcome(checked, after, through, changed(at))
        if rest:
            await asyncio.sleep(rest * (time.perf_counter() - begun))
    return Outcome(checked, after, through, None)


def missing(first: int, last: int) -> Bad:
    told = f"event {first} is" if first == last else f"events {first} to {last} are"
    return Bad("missing", first, f"{told} not in the log any more")


def changed(sequence: int) -> Bad:
    return Bad("changed", sequence, f"event {sequence} is not what it was")


def cut(first: int, through: int) -> Bad:
    told = f"event {first} is" if first == through else f"events {first} to {through} are"
    return Bad("cut", first, f"the log ends before {first}: {told} gone")


def beginning(first: int, last: int) -> Bad:
    told = f"event {first} is" if first == last else f"events {first} to {last} are"
    return Bad("beginning", first, f"{told} gone from the beginning of the log, and the keeper did not trim it")


def _block(ledger: Ledger, sequence: int) -> Block:
    found = ledger.block(sequence)
    if found is None:
        raise Failure("unavailable", f"keeper.db has nothing on event {sequence}, which is before its own head")
    return found
