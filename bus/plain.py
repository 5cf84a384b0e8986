"""Plain requests: one question, the first message that comes back, whatever it is; what JetStream's API is asked with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bus.streams import jetstream_failure
from bus.wire import Msg, Wire, status_of
from schemas.errors import Failure


class Plain:
    """Over one connection, whose end is the end of what was asked over it."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._hoping: set[asyncio.Future[Any]] = set()
        wire.on_disconnect.append(self._give_up)
        wire.on_close.append(self._give_up)

    async def api(
        self, subject: str, body: bytes = b"", *, timeout: float = 5.0, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """One request to JetStream; its error becomes a Failure: `storage_full`, `not_found`, `conflict`, else `unavailable`."""
        msg = await self.raw(subject, body, timeout=timeout, headers=headers)
        if status_of(msg) == "503":
            raise Failure("unavailable", f"no stream takes {subject}")
        document: dict[str, Any] = json.loads(msg.data)
        if error := document.get("error"):
            raise jetstream_failure(error)
        return document

    async def raw(self, subject: str, body: bytes = b"", *, timeout: float, headers: Mapping[str, str] | None = None) -> Msg:
        """One request, the first message that comes back, whatever it is. Raises Failure("timeout" | "unavailable").

        Either leaves unknown whether it was heard.
        """
        done: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        token, reply = self.wire.await_answer(lambda msg: None if done.done() else done.set_result(msg))
        try:
            self.wire.send(subject, body, reply=reply, headers=headers)
            async with asyncio.timeout(timeout):
                with self.unless_lost(done):
                    return await done
        except TimeoutError:
            if done.done() and not done.cancelled():  # it came while something else held the loop
                return done.result()
            raise Failure("timeout", f"no answer on {subject} in {timeout:g} s") from None
        finally:
            self.wire.forget_answer(token)

    @contextmanager
    def unless_lost(self, done: asyncio.Future[Any]) -> Iterator[None]:
        """While inside, the end of the connection fails `done`: to what was asked over it no answer comes any more."""
        self._hoping.add(done)
        try:
            yield
        finally:
            self._hoping.discard(done)

    def _give_up(self) -> None:
        for done in self._hoping:
            if not done.done():
                done.set_exception(Failure("unavailable", "the connection to the NATS server broke before the answer came"))
