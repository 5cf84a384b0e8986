"""What the language models have cost, read out of the bucket VX11_USAGE: switch may sleep meanwhile."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from pydantic import ValidationError

from gateway.moment import rfc3339
from schemas.errors import Failure
from schemas.usage import Usage, UsageDay

log = logging.getLogger("vx11.usage")

DAYS_MOST = 400
LOOK_S = 0.5
"""The other numbers do not wait longer for these."""
FRESH_S = 1.0
"""One reading serves all who ask within; switch writes no more often."""


class Bucket(Protocol):
    """`bus.bucket.Bucket`."""

    async def read(self, keys: list[str]) -> dict[str, dict[str, Any]]: ...

    async def last(self) -> dict[str, Any] | None: ...


def today(now: float) -> str:
    """In UTC. `now`: seconds since the epoch."""
    return datetime.fromtimestamp(now, UTC).date().isoformat()


async def usage_of(bucket: Bucket, days: int, now: float) -> Usage:
    """Of the last `days`, today being one of them. Raises Failure."""
    last = datetime.fromtimestamp(now, UTC).date()
    found = await bucket.read([(last - timedelta(days=back)).isoformat() for back in range(days)])
    return Usage(observed_at=rfc3339(now), days=[_day(found[key]) for key in sorted(found, reverse=True)])


class Costs:
    """Reads for the gateway. `bucket` is None where there is no bus of our own."""

    def __init__(self, bucket: Bucket | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._bucket, self._clock = bucket, clock
        self._last: UsageDay | None = None
        self._until = 0.0

    async def days(self, count: int) -> Usage:
        """Raises Failure."""
        if self._bucket is None:
            raise Failure("unavailable", "there is no connection on which the usage could be read")
        return await usage_of(self._bucket, count, time.time())

    async def last(self) -> UsageDay | None:
        """The day that was told last; None when it cannot be read, or there is none."""
        if self._bucket is None or self._clock() < self._until:
            return self._last
        try:
            async with asyncio.timeout(LOOK_S):
                document = await self._bucket.last()
            self._last = _day(document) if document else None
        except (Failure, TimeoutError) as why:
            self._last = None
            log.warning("the usage of the models is not among the numbers: %s", str(why) or f"no answer within {LOOK_S:g} s")
        self._until = self._clock() + FRESH_S
        return self._last


def _day(document: dict[str, Any]) -> UsageDay:
    try:
        return UsageDay.model_validate(document)
    except ValidationError as error:
        raise Failure("internal", "a document in VX11_USAGE is none that this version of VX11 writes") from error
