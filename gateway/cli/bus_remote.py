"""The way over the bus of this machine, as the user `client`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from bus import call
from bus.bucket import Bucket
from bus.client import Answer, Bus
from bus.redaction import redact_last_resort
from bus.settings import Settings
from bus.streams import USAGE
from gateway.cli.home import Running, running
from gateway.cli.remote import Remote, Reply, read_object
from gateway.usage import usage_of
from schemas.errors import Failure
from schemas.usage import Usage

USER = "client"
NAME = "vx11-cli"
CONNECT_S = 3.0
"""A server on loopback accepts within a millisecond; after a crash it is back in a second."""
NEXT = [["vx11 doctor", "which part does not answer"], ["vx11 logs nats", "what its server wrote"]]


class BusRemote:
    """`bus` is open; whoever opened it closes it."""

    def __init__(self, bus: Bus, where: str) -> None:
        self.bus = bus
        self.where = where
        self.conversation = ""

    async def ask(self, subject: str, document: Mapping[str, Any], *, timeout: float, idempotent: bool = False) -> Reply:
        answer = await self.bus.ask(
            subject, json.dumps(document).encode(), timeout=timeout, idempotent=idempotent, headers=self._headers()
        )
        return _reply(answer, subject, last=True)

    async def stream(self, subject: str, document: Mapping[str, Any], *, timeout: float) -> AsyncIterator[Reply]:
        async for frame in self.bus.ask_stream(subject, json.dumps(document).encode(), timeout=timeout, headers=self._headers()):
            last = call.END in frame.headers or call.SEQ not in frame.headers
            yield _reply(frame, subject, last=last)

    async def usage(self, days: int) -> Usage:
        return await usage_of(Bucket(self.bus, USAGE), days, time.time())

    def _headers(self) -> dict[str, str]:
        return {call.CORRELATION: self.conversation} if self.conversation else {}


@asynccontextmanager
async def open_bus(settings: Settings) -> AsyncIterator[Remote]:
    """Ask what runs on this home. Raises Failure("unavailable") when nothing does."""
    run = running(settings)
    async with connected(run, settings) as bus:
        yield BusRemote(bus, run.nats_url)


@asynccontextmanager
async def connected(run: Running, settings: Settings) -> AsyncIterator[Bus]:
    """A connection as `client`. The bus itself would go on trying to connect for ever; here somebody is waiting."""
    redact_last_resort()
    seed = settings.seed_file(USER)
    if not seed.is_file():
        raise Failure(
            "forbidden",
            f"the key of the bus user {USER} is missing",
            why=f"there is no {seed}",
            next=[["vx11 down", ""], ["vx11 up", "makes the keys that are missing"]],
        )
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(CONNECT_S):
                connecting = Bus.connect(run.nats_url, user=USER, seed=seed, name=NAME, buffered=False)
                bus = await stack.enter_async_context(connecting)
        except TimeoutError:
            raise Failure("unavailable", f"the bus at {run.nats_url} does not answer", next=NEXT) from None
        yield bus


def _reply(answer: Answer, subject: str, *, last: bool) -> Reply:
    return Reply(read_object(answer.body, subject), call.milliseconds(answer.headers.get(call.WAKE_MS)), last)
