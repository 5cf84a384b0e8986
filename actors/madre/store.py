"""madre's way to the records: asks until the outcome is known, however long that takes, and knows what is wrong meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from bus.records import Records
from schemas.errors import Failure
from schemas.power import ActorRecord

log = logging.getLogger("vx11.madre.store")

AGAIN_S = 0.05
AGAIN_MOST_S = 1.0
"""Between two tries: a thousand actors may be waiting for the same store."""


class Store:
    """`trouble`: of each actor whose record is being waited for, the code of what went wrong."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.trouble: dict[str, str] = {}

    async def swap(self, record: ActorRecord, revision: int) -> int | None:
        """Compare-and-set whose outcome is known in the end: an unknown one is read."""
        try:
            return await self._swap(record, revision)
        finally:
            self._well(record.actor)

    async def read(self, name: str) -> tuple[ActorRecord | None, int]:
        try:
            return await self._read(name)
        finally:
            self._well(name)

    async def _swap(self, record: ActorRecord, revision: int) -> int | None:
        for pause in _pauses():
            try:
                return await self._records.swap(record, revision)
            except Failure as failure:
                self._troubled(record.actor, failure)
            await asyncio.sleep(pause)
            found, current = await self._read(record.actor)
            if found == record:
                return current
            if current != revision:
                return None
        raise AssertionError("pauses never end")

    async def _read(self, name: str) -> tuple[ActorRecord | None, int]:
        for pause in _pauses():
            try:
                return await self._records.get(name)
            except Failure as failure:
                self._troubled(name, failure)
            await asyncio.sleep(pause)
        raise AssertionError("pauses never end")

    def _troubled(self, name: str, failure: Failure) -> None:
        if self.trouble.get(name) != failure.code:
            log.warning("the record of %s: %s", name, failure)
        self.trouble[name] = failure.code

    def _well(self, name: str) -> None:
        if self.trouble.pop(name, None):
            log.info("the record of %s is written and read again", name)


def _pauses() -> Iterator[float]:
    pause = AGAIN_S
    while True:
        yield pause
        pause = min(2 * pause, AGAIN_MOST_S)
