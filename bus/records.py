"""The records of VX11_ACTORS: read one or all, replace one by compare-and-set."""

from __future__ import annotations

import json
import logging

from pydantic import ValidationError

from bus.client import Bus
from bus.wire import status_of
from schemas.errors import Failure
from schemas.power import ActorRecord

log = logging.getLogger("vx11.records")

BUCKET = "VX11_ACTORS"
READ_S = 2.0
SWAP_S = 3.0


class Records:
    """The one place where the power state is kept. Revisions are the stream's sequence numbers; 0: no record yet."""

    def __init__(self, bus: Bus, bucket: str = BUCKET) -> None:
        self._bus = bus
        self._key = f"$KV.{bucket}."
        self._get = f"$JS.API.DIRECT.GET.KV_{bucket}.{self._key}"
        self._info = f"$JS.API.STREAM.INFO.KV_{bucket}"

    async def get(self, actor: str) -> tuple[ActorRecord | None, int]:
        """The record, None when there is none or what is there is none, and its revision.

        Raises Failure when the store cannot be read.
        """
        msg = await self._bus.raw(self._get + actor, timeout=READ_S)
        status = status_of(msg)
        if status == "404":
            return None, 0
        if status:
            raise Failure("unavailable", f"the record of {actor} cannot be read: {status}")
        revision = int((msg.headers or {})["Nats-Sequence"])
        try:
            return ActorRecord.model_validate_json(msg.data), revision
        except ValidationError as error:
            log.error("revision %d of %s is no record and counts as none: %s", revision, actor, error)
            return None, revision

    async def swap(self, record: ActorRecord, revision: int) -> int | None:
        """Replace revision `revision`; the new revision, or None when somebody was faster.

        Raises Failure("timeout" | "unavailable" | "storage_full"): then it is unknown whether it was written.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        try:
            done = await self._bus.api(
                self._key + record.actor, record.model_dump_json().encode(), timeout=SWAP_S, headers=headers
            )
        except Failure as failure:
            if failure.code == "conflict":
                return None
            raise
        return int(done["seq"])

    async def names(self) -> list[str]:
        """Actors that have a record."""
        request = json.dumps({"subjects_filter": f"{self._key}>"}).encode()
        info = await self._bus.api(self._info, request, timeout=READ_S)
        return sorted(subject.removeprefix(self._key) for subject in (info["state"].get("subjects") or {}))
