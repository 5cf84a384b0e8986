"""One running copy of an actor: claims the record, serves, can be drained and called back, leaves with empty hands."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any

from bus import chaos
from bus.actor import Actor, Handler
from bus.call import call_from, current
from bus.cards import card_of
from bus.claim import claim
from bus.client import Bus
from bus.cloudevents import opened
from bus.discovery import Discovery
from bus.moment import rfc3339_now
from bus.process import born
from bus.resources import Resources
from bus.responder import Responder
from bus.settings import Settings
from bus.start import Start
from bus.wire import Msg, Subscription, Wire
from schemas.card import Card, DescribeReply
from schemas.errors import Failure
from schemas.power import Active, Slept

log = logging.getLogger("vx11.instance")

BEAT_S = 2.0
LEFT, LOST_CLAIM, BROKEN, NO_ROOM = 0, 3, 1, 4
"""Exit codes: left with empty hands; another was faster; could not start or lost its connection for good; the store has no
room for the claim."""
CLEAN_EXITS = (LEFT, LOST_CLAIM)
LEAVE_AGAIN_S = 1.0
"""After a SIGTERM it asks to be drained so often, until it is."""


class Instance:
    """Lives from its claim to its exit; `live` returns the exit code."""

    def __init__(self, actor: Actor, start: Start, bus: Bus, settings: Settings) -> None:
        self.actor = actor
        self._start = start
        self._bus = bus
        self._epoch = start.epoch
        self._stay = 0
        self._revision = 0
        self._born = born(os.getpid())
        self._orders = asyncio.Event()
        self._want = "serve"
        self._left = 0.0
        self._shared: Subscription | None = None
        self._durable: Any = None  # bus.durable.DurableConsumers, imported only by those who have some
        self._released = False
        self._consuming: asyncio.Task[None] | None = None
        self._ears: list[Subscription] = []
        self._hearing: set[asyncio.Task[None]] = set()
        """Events that are being handled and will not come again."""
        self._resources = Resources(actor, {Bus: bus, Settings: settings})
        self._resources.check()
        alone_since = float(start.record.get("vacated", math.inf))
        self._responder = Responder(
            actor, bus.wire, self._resources, run=start.run, describe=self._describe, alone_since=alone_since
        )

    @cached_property
    def _card(self) -> Card:
        """Made when somebody asks: the schemas take longer than the wake."""
        return card_of(self.actor, card_version=self._start.card_version)

    def _describe(self) -> bytes:
        return DescribeReply(card=self._card, state="active", instance=self._start.id).model_dump_json().encode()

    async def live(self, claiming: Awaitable[int | None] | None = None) -> int:
        """Claim, open, serve until drained, close. Exit code 3: the claim was lost and nothing was touched.

        `claiming`: a claim that is already under way.
        """
        try:
            revision = await (claiming or claim(self._bus, self._start))
        except Failure as failure:
            log.error("%s cannot claim its record: %s", self.actor.name, failure)
            return NO_ROOM
        if revision is None:
            return LOST_CLAIM
        self._revision = revision
        chaos.point("instance.claimed")
        await self._resources.open()
        beats: asyncio.Task[None] | None = None
        try:
            private = f"vx11.inst.{self.actor.name}.{self._start.run}.>"
            own = await self._bus.listen(private, self._heard_private)
            self._shared = await self._bus.listen(f"vx11.{self.actor.name}.>", self._responder.receive, queue=self.actor.name)
            self._bus.wire.flush()
            chaos.point("instance.subscribed")
            self._say_active()  # on the same connection, behind the subscriptions: who hears it can reach us
            beats = asyncio.create_task(self._beat_for_ever())
            await self._conduct(own)
        finally:
            try:
                await self._resources.close()
            finally:
                if beats is not None:  # who is silent is taken for frozen, also while it closes a model
                    beats.cancel()
        self._responder.recorder.flush()
        slept = Slept(actor=self.actor.name, id=self._start.id, run=self._start.run, at=rfc3339_now(), left=self._left)
        self._bus.tell(slept, subject=f"{Slept.subject}.{self.actor.name}")
        return LEFT

    async def _conduct(self, own: Subscription) -> None:
        """Follow the newest order until the instance has left; see `_drain` and `_stay`."""
        await self._after_active()
        while True:
            await self._orders.wait()
            self._orders.clear()
            if self._want == "stay":
                await self._return()
            elif self._want == "leave" and await self._leave(own):
                return

    async def _return(self) -> None:
        """Called back, or asked by a new madre: be subscribed, prove it, say so."""
        self._want = "serve"
        stay = self._stay
        if self._shared is None:
            name = self.actor.name
            self._shared = await self._bus.listen(f"vx11.{name}.>", self._responder.receive, queue=name)
        try:
            await self._bus.wire.barrier()
        except Failure as failure:
            log.warning("cannot prove itself: %s", failure)
            return  # madre asks again
        if stay == self._stay:
            self._say_active()
        if self._durable and self._released:
            self._released = False
            self._consuming = asyncio.create_task(self._consume_again())

    async def _leave(self, own: Subscription) -> bool:
        """Leave the shared subject, finish, leave the private one. False: called back in between."""
        if self._shared is not None:
            shared, self._shared = self._shared, None
            await self._bus.wire.leave(shared)
            chaos.point("instance.unsubscribed")
        if self._durable:
            await self._durable.release()
            self._released = True
        while self._responder.in_flight or self._events_pending():
            if self._want != "leave":
                return False
            await self._finished_or_ordered()
        if self._want != "leave":
            return False
        if self._durable:
            await self._settle_durable()
        await self._bus.wire.leave(own)  # from here on it cannot be called back
        for ear in self._ears:
            await self._bus.wire.leave(ear)
        await self._responder.idle()
        if self._hearing:
            await asyncio.wait(self._hearing)
        self._responder.disown_doubts()
        self._left = time.time()
        chaos.point("instance.left")
        return True

    async def _settle_durable(self) -> None:
        if self._consuming:
            await self._consuming
        await self._durable.stop()

    async def _consume_again(self) -> None:
        """Called back: what still runs finishes, then events are taken again."""
        await self._durable.stop()
        await self._durable.start()

    async def _finished_or_ordered(self) -> None:
        waits = [asyncio.ensure_future(self._orders.wait()), asyncio.ensure_future(self._responder.idle())]
        if self._events_pending():
            waits[1].cancel()
            waits[1] = asyncio.ensure_future(asyncio.sleep(0.02))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        if self._want == "leave":
            self._orders.clear()

    def _heard_private(self, msg: Msg) -> None:
        verb = msg.subject.rsplit(".", 1)[1]
        if not verb.startswith("_"):
            self._responder.receive(msg)
            return
        order = json.loads(msg.data or b"{}")
        if verb == "_ping":
            self._bus.wire.send(msg.reply or "vx11.hb.ping", self._beat())
            return
        if order.get("epoch", 0) < self._epoch:
            return
        self._epoch = order["epoch"]
        if verb == "_drain":
            self._want = "leave"
        elif verb == "_stay":
            self._stay = order["stay"]
            self._want = "stay"
        self._orders.set()

    def ask_to_leave(self) -> None:
        """SIGTERM: leaving is madre's to order, so that nothing is lost. Under load every drain would be called back but this."""
        asyncio.get_running_loop().call_later(LEAVE_AGAIN_S, self.ask_to_leave)  # there may be no madre just now
        told = {"name": self.actor.name, "reason": "SIGTERM", "recall": False}
        self._bus.wire.send("vx11.madre.sleep", json.dumps(told).encode())

    def _say_active(self) -> None:
        active = Active(
            actor=self.actor.name,
            id=self._start.id,
            run=self._start.run,
            revision=self._revision,
            epoch=self._epoch,
            stay=self._stay,
            host=self._start.host,
            pid=os.getpid(),
            born=self._born,
            at=rfc3339_now(),
        )
        cause = {} if self._stay else self._start.headers
        self._bus.tell(active, subject=f"{Active.subject}.{self.actor.name}", headers=cause)
        self._bus.wire.flush()

    async def _after_active(self) -> None:
        """What can wait until the first requests are being answered."""
        discovery = Discovery(self._bus.wire, lambda: self._card, self._start.run, self._responder.stats)
        await discovery.open()
        self._responder.on_first_answer = self._send_beat
        for handler in self.actor.events:
            if not handler.durable:
                self._ears.append(await self._bus.listen(handler.message.subject, self._hearer(handler)))
        if self.actor.durables:
            heard = await asyncio.to_thread(importlib.import_module, "bus.durable_handlers")  # 80 ms beside the first requests
            self._durable = heard.consumers(self.actor, self._bus, self._resources)
            self._durable.on_first = self._send_beat  # who has done something did not die of what it was woken for
            await self._durable.start()

    def _hearer(self, handler: Handler) -> Any:
        def heard(msg: Msg) -> None:
            task = asyncio.get_running_loop().create_task(run_event(handler, self._resources, msg))
            self._hearing.add(task)
            task.add_done_callback(self._hearing.discard)
            task.add_done_callback(_log_failure)

        return heard

    def _events_pending(self) -> int:
        return len(self._hearing) + (self._durable.pending() if self._durable else 0)

    async def _beat_for_ever(self) -> None:
        pause = min(BEAT_S, self.actor.idle_after / 2)
        while True:
            self._send_beat()
            self._responder.tick()
            await asyncio.sleep(pause)

    def _send_beat(self) -> None:
        try:
            self._bus.wire.send(f"vx11.hb.{self.actor.name}.{self._start.run}", self._beat())
        except Failure as failure:
            log.info("no heartbeat: %s", failure)

    def _beat(self) -> bytes:
        beat = {
            "actor": self.actor.name,
            "run": self._start.run,
            "instance": self._start.id,
            "idle_s": round(self._responder.idle_s(), 3),
            "in_flight": self._responder.in_flight,
            "pending": self._events_pending(),
            "answered": self._responder.answered + (self._durable.settled if self._durable else 0),
            "shed": self._responder.recorder.shed,
            "card_version": self._start.card_version,
        }
        return json.dumps(beat).encode()


async def run_event(handler: Handler, resources: Resources, msg: Msg) -> None:
    """Parse an event and run its handler with the event's correlation id and trace."""
    headers, body = opened(msg.headers, msg.data)
    circumstances = call_from(headers)
    current.set(circumstances)
    event = handler.message.model_validate_json(body or b"{}")
    await handler.run(event, **resources.give(handler.wants, circumstances))


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("an event handler failed", exc_info=error)


async def live(become: Callable[[], Actor], start: Start, url: str, settings: Settings) -> int:
    """The whole life of one instance in this process. Returns its exit code.

    `become` loads the actor, while the claim is on its way: it goes out with the first bytes to the server.
    """
    begun = time.monotonic()
    chaos.point("instance.claiming")
    loop = asyncio.get_running_loop()
    wire = Wire()
    wire.be("actor")
    bus = Bus(wire, name=start.actor)
    claiming = loop.create_task(claim(bus, start))
    await asyncio.sleep(0)  # it has been sent, to be said when we are heard
    seed = settings.seed_file("actor")
    try:
        known = seed if seed.exists() else None
        await wire.open(url, user="actor", seed=known, name=f"{start.actor}.{start.run}", eager=True)
        instance = Instance(become(), start, await bus.start(), settings)
        main = asyncio.current_task()
        wire.on_close.append(lambda: _leave_hard(main))
        if wire.is_closed:
            raise Failure("forbidden", f"the server at {url} does not let us in: {wire.last_error}")
        if sys.platform != "win32":
            loop.add_signal_handler(signal.SIGTERM, instance.ask_to_leave)
        code = await instance.live(claiming)
    finally:
        wire.on_close.clear()
        claiming.cancel()
        await wire.aclose()
        if sys.platform != "win32":
            loop.remove_signal_handler(signal.SIGTERM)
    log.info("%s left after %.1f s with code %d", start.actor, time.monotonic() - begun, code)
    return code


def _leave_hard(main: asyncio.Task[Any] | None) -> None:
    """The connection is closed for good: without it nothing can be answered; the host reports the exit."""
    if main and not main.done():
        main.cancel("the connection to the NATS server was closed for good")
