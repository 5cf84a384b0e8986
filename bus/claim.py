"""An instance's claim: one compare-and-set on its actor's record, before it subscribes anything."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from bus.client import Bus
from bus.moment import rfc3339_now
from bus.process import born
from bus.records import Records
from bus.start import Start
from schemas.errors import Failure
from schemas.power import ActorRecord

log = logging.getLogger("vx11.claim")

READ_AGAIN_S = 0.05


async def claim(bus: Bus, start: Start) -> int | None:
    """The record's new revision; None when another was faster. An unknown outcome is read, never guessed.

    Raises Failure("storage_full").
    """
    records = Records(bus)
    mine = ActorRecord.model_validate({**start.record, **_owned(start)})
    asked_before = False
    full: Failure | None = None
    while True:
        try:
            revision = await records.swap(mine, start.revision)
            if revision or not asked_before:
                return revision
        except Failure as failure:
            log.warning("claim of %s: %s", start.actor, failure)
            full = failure if failure.code == "storage_full" else None
            await asyncio.sleep(READ_AGAIN_S)
        asked_before = True  # from here on a conflict may be with ourselves
        try:
            found, revision = await records.get(start.actor)
        except Failure as failure:
            log.warning("reading the record of %s: %s", start.actor, failure)
            continue
        if found and found.owner == start.run:
            return revision
        if revision != start.revision:
            return None
        if full:
            raise full


def _owned(start: Start) -> dict[str, Any]:
    return {
        "state": "waking",
        "owner": start.run,
        "instance": start.id,
        "host": start.host,
        "pid": os.getpid(),
        "born": born(os.getpid()),
        "since": rfc3339_now(),
        "card_version": start.card_version,
    }
