"""A key-value bucket whose values are JSON documents: put, remove, read all. Its keys expire when given a time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from bus.client import Bus
from bus.wire import Msg, status_of
from schemas.errors import Failure

READ_S = 3.0
WRITE_S = 3.0
REMOVED = ("KV-Operation", "Nats-Marker-Reason")
"""Headers of the markers that stand where a key was removed or has expired."""


class Bucket:
    """`VX11_LEASES` and the like, as `nats kv` sees them."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus = bus
        self._keys = f"$KV.{name}."
        self._get = f"$JS.API.DIRECT.GET.KV_{name}"

    async def put(self, key: str, document: dict[str, Any], *, ttl_s: float | None = None) -> None:
        """Write; with `ttl_s` (rounded up to whole seconds) the server removes it by itself. Raises Failure."""
        headers = {"Nats-TTL": f"{max(1, -int(-ttl_s // 1))}s"} if ttl_s else None
        await self._bus.api(self._keys + key, json.dumps(document).encode(), timeout=WRITE_S, headers=headers)

    async def remove(self, key: str) -> None:
        await self._bus.api(self._keys + key, b"", timeout=WRITE_S, headers={"KV-Operation": "DEL"})

    async def all(self) -> dict[str, dict[str, Any]]:
        """Key to document. Raises Failure when the bucket cannot be read to its end."""
        return await self.read([">"])

    async def last(self) -> dict[str, Any] | None:
        """The document that was written last, whatever its key; None when there is none. Raises Failure."""
        body = json.dumps({"last_by_subj": f"{self._keys}>"}).encode()
        msg = await self._bus.raw(self._get, body, timeout=READ_S)
        if status := status_of(msg):
            if status == "404":
                return None
            raise Failure("unavailable", f"{self._keys} cannot be read: {status}")
        return None if _removed(msg) else json.loads(msg.data)

    async def read(self, keys: list[str]) -> dict[str, dict[str, Any]]:
        """Those of these keys that are there, with their documents. Raises Failure as `all` does."""
        found: dict[str, dict[str, Any]] = {}
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def heard(msg: Msg) -> None:
            status = status_of(msg)
            if status in ("204", "404"):
                if not done.done():
                    done.set_result(None)
            elif status:
                if not done.done():
                    done.set_exception(Failure("unavailable", f"{self._keys} cannot be read: {status}"))
            elif not _removed(msg):
                found[(msg.headers or {})["Nats-Subject"].removeprefix(self._keys)] = json.loads(msg.data)

        token, reply = self._bus.wire.await_answer(heard)
        try:
            self._bus.wire.send(self._get, json.dumps({"multi_last": [self._keys + key for key in keys]}).encode(), reply=reply)
            async with asyncio.timeout(READ_S):
                with self._bus.unless_lost(done):
                    await done
        except TimeoutError:
            raise Failure("timeout", f"{self._keys} was not read in {READ_S:g} s") from None
        finally:
            self._bus.wire.forget_answer(token)
        return found


def _removed(msg: Msg) -> bool:
    return any(name in (msg.headers or {}) for name in REMOVED)
