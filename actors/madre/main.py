"""madre's process: become the only madre, take every actor over, serve until told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from actors.madre.actor import actor
from actors.madre.assistant import Assistant
from actors.madre.control import Control
from actors.madre.machine import Machine
from actors.madre.operations import Operations
from actors.madre.policy import Policy
from actors.madre.sleepers import Sleepers
from actors.madre.upkeep import Upkeep
from bus import chaos, streams
from bus.bucket import Bucket
from bus.cards import card_of
from bus.client import Bus
from bus.discovery import Discovery
from bus.loading import as_told
from bus.moment import rfc3339_now
from bus.process import started_at
from bus.records import Records
from bus.resources import Resources
from bus.responder import Responder
from bus.settings import Settings
from schemas.card import DescribeReply
from schemas.errors import Failure
from schemas.madre import MadreStarted
from schemas.power import ActorRecord

T = TypeVar("T")

log = logging.getLogger("vx11.madre")

STORE_AGAIN_S = 0.05
BEAT_S = 2.0
CARDS = "vx11.host.all.cards"
CARDS_AGAIN_S = (0.3, 0.7, 2.0, 7.0, 20.0)
"""While somebody has a record and no card; for good when its source was removed."""
CUT_OFF = 1
STEPPED_DOWN = 3
"""Exit code: another madre has taken over."""
CARD = card_of(actor)
"""Made with the import, before the process is forked: schemas made later are memory of its own."""


def run(settings: Settings, url: str) -> int:
    """The process; returns its exit code."""
    chaos.arm(settings)
    return asyncio.run(_main(settings, url))


async def _main(settings: Settings, url: str) -> int:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    seed = settings.seed_file("madre")
    async with Bus.connect(
        url, user="madre", seed=seed if seed.exists() else None, name="madre", actor="madre", fast=True
    ) as bus:
        madre = Madre(bus, settings)
        await madre.open()
        closed = asyncio.Event()
        bus.wire.on_close.append(closed.set)
        waits = [asyncio.create_task(event.wait()) for event in (stop, closed, madre.machine.stepped_down)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()
        if closed.is_set():
            log.error("the server has closed the connection for good: %s", bus.wire.last_error)
            return CUT_OFF
        successor = madre.machine.stepped_down.is_set()
        await madre.close(successor=successor)
        return STEPPED_DOWN if successor else 0


class Madre:
    """All parts of madre on one connection."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        self.run = secrets.token_hex(6)
        self._bus = bus
        self._settings = settings
        self._records = Records(bus)
        self.policy = Policy.from_environment(settings.variables)
        self.machine = Machine(bus, self._records, run=self.run, allowed=lambda name: self.policy.allowed(name, time.time()))
        self._store = Bucket(bus, streams.LEASES)
        self.control = Control(bus, self.machine, self.policy, self._store)
        self._tasks: list[asyncio.Task[None]] = []
        self._responder: Responder | None = None

    async def open(self) -> None:
        """Streams, epoch, policy, stand-ins, then the own verbs; last the word that she is here."""
        for outcome in await _until_done(
            lambda: streams.ensure_streams(self._bus.api, streams.stream_configs(self._bus.wire.max_payload))
        ):
            if outcome.did != "kept":
                log.info("stream %s: %s %s", outcome.name, outcome.did, dict(outcome.changed) or "")
        self.machine.epoch = await self._become_madre()
        self.policy.load(await _until_done(self._store.all), time.time())
        await self.machine.open()
        names = await _until_done(self._records.names)
        await asyncio.gather(*(self.machine.add(name) for name in names if name != "madre"))
        await Sleepers(self._bus.wire, self.machine).open()
        await self._serve()
        self._tasks.append(asyncio.create_task(self.control.watch()))
        self.machine.announced = time.time()
        self._bus.tell(MadreStarted(epoch=self.machine.epoch, run=self.run, at=self.machine.announced))
        self._bus.wire.send(CARDS, b"{}")
        self._tasks.append(asyncio.create_task(self._ask_again_for_cards()))

    async def _ask_again_for_cards(self) -> None:
        """The server may have been away, too, and hosts may have come back to it later than she."""
        for pause in CARDS_AGAIN_S:
            await asyncio.sleep(pause)
            if all(driven.card for driven in self.machine.driven.values()):
                return
            try:
                self._bus.wire.send(CARDS, b"{}")
            except Failure as failure:
                log.info("hosts cannot be asked: %s", failure)

    async def close(self, *, successor: bool = False) -> None:
        """Give back what is held, to a successor if there is one, and leave."""
        for task in self._tasks:
            task.cancel()
        self.machine.stepped_down.set()
        await self.machine.give_back(successor=successor)
        await self.machine.close()
        if self._responder:
            self._responder.recorder.flush()

    async def _become_madre(self) -> int:
        """Raise the epoch by compare-and-set on the own record; whoever had the lower one steps down."""
        while True:
            record, revision = await _until_done(lambda: self._records.get("madre"))
            epoch = (record.epoch if record else 0) + 1
            mine = ActorRecord(
                actor="madre", state="active", epoch=epoch, owner=self.run, instance=self.run,
                pid=os.getpid(), born=started_at(os.getpid()), since=rfc3339_now(), reason="always awake",
            )  # fmt: skip
            if await _until_done(lambda: self._records.swap(mine, revision)) is not None:  # noqa: B023 - awaited here
                return epoch

    async def _serve(self) -> None:
        """Answer the own verbs."""
        assistant = Assistant(Operations(self.control))
        given = {Bus: self._bus, Control: self.control, Assistant: assistant, Upkeep: Upkeep(self._bus)}
        told = as_told(actor, self._settings)
        resources = Resources(told, given)
        resources.check()
        describe = DescribeReply(card=CARD, state="active", instance=self.run).model_dump_json().encode()
        self._responder = Responder(told, self._bus.wire, resources, run=self.run, describe=lambda: describe)
        await self._bus.listen("vx11.madre.>", self._responder.receive, queue="madre")
        await Discovery(self._bus.wire, lambda: CARD, self.run, self._responder.stats).open()
        await self._bus.wire.barrier()
        self._tasks.append(asyncio.create_task(self._beat(self._responder)))

    async def _beat(self, responder: Responder) -> None:
        while True:
            responder.tick()
            try:
                self._bus.wire.send(f"vx11.hb.madre.{self.run}", b'{"actor":"madre"}')
            except Failure as failure:
                log.info("no heartbeat: %s", failure)
            await asyncio.sleep(BEAT_S)


async def _until_done(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask the store until it answers: without it there is no madre."""
    while True:
        try:
            return await ask()
        except Failure as failure:
            log.warning("the store does not answer: %s", failure)
            await asyncio.sleep(STORE_AGAIN_S)
