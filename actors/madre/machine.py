"""Drives the power machines: brings them what happens on the bus, one move at a time per actor, and does their effects."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any

from actors.madre import effects as do
from actors.madre.asked import Asked
from actors.madre.driven import Driven, Move
from actors.madre.effects import Beat, Effect, Held
from actors.madre.hold import HELD_MOST
from actors.madre.store import Store
from actors.madre.voice import Voice
from bus import call, chaos
from bus.client import Bus
from bus.moment import rfc3339_now
from bus.records import Records
from bus.wire import Msg
from schemas.madre import MadreStarted
from schemas.power import ActorRecord

log = logging.getLogger("vx11.madre")

SWEEP_S = 0.05
"""Between two looks at the actors that are not quiet; sleepers are not looked at."""
LATE_S = 1.0
DEAF_S = 3.0
"""Her own heartbeat, every 2 s, has not come back: nobody's silence counts."""
FULL = "storage_full"
NO_ROOM = "the store has no room for its record: nobody can be woken, and nothing be waited for"
LEAVE_S = 5.0
"""Without a server nothing is routed to anybody."""


class Machine:
    """All actors of this madre. `epoch` was raised by her when she started; `allowed` is the policy's word."""

    def __init__(self, bus: Bus, records: Records, *, run: str, allowed: Callable[[str], bool]) -> None:
        self.bus = bus
        self.run = run
        self.epoch = 0
        self.announced = math.inf
        """When callers were told of this madre: what they sent before, they ask again. Seconds since the epoch."""
        self.driven: dict[str, Driven] = {}
        self.stepped_down = asyncio.Event()
        self.on_idle: Callable[[Driven], None] = lambda _: None
        self.on_transition: Callable[[Driven], None] = lambda _: None
        self._kept = Store(records)
        self._allowed = allowed
        self._noisy: dict[str, Driven] = {}
        self._ends: dict[str, tuple[str, float]] = {}
        """Of each actor the run that ended last, and when."""
        self._stir = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._heard_self = 0.0
        """When her own heartbeat came back, on the monotonic clock; 0.0: she has none yet."""
        self.voice = Voice(bus)

    async def open(self) -> None:
        """Hear what instances and hosts say. Call before the first actor is added."""
        _, self.voice.acks = self.bus.wire.await_answer(self._heard_ack)
        await self.bus.listen("vx11.events.power.active.*", self._heard_active)
        await self.bus.listen("vx11.events.power.slept.*", self._heard_slept)
        await self.bus.listen("vx11.events.power.exited.*", self._heard_exited)
        await self.bus.listen("vx11.hb.*.*", self._heard_beat)
        await self.bus.listen(MadreStarted.subject, lambda _: self._suspect())
        self.bus.wire.on_reconnect.append(self._reconnected)
        self._spawn(self._sweep())

    async def close(self) -> None:
        self._closed = True  # a reconnect may still come, and begins nothing any more
        for task in list(self._tasks):
            task.cancel()

    async def add(self, name: str) -> Driven:
        """Take an actor over: raise its epoch by compare-and-set, then stand in for it. Idempotent."""
        if name in self.driven:
            return self.driven[name]
        driven = self.driven[name] = Driven(self.bus, name, self.knock)
        driven.storing = True
        while True:
            record, revision = await self._kept.read(name)
            if record and record.epoch > self.epoch:
                self._step_down(record.epoch)
                return driven
            raised = (record or ActorRecord(actor=name, since=rfc3339_now(), reason="asleep")).model_copy(
                update={"epoch": self.epoch}
            )
            done = await self._kept.swap(raised, revision)
            if done is not None:
                break
        driven.record = raised
        driven.since = raised.since or rfc3339_now()
        self._resume(driven, lambda: driven.power.adopt(raised, done, time.time()))
        return driven

    def knock(self, driven: Driven, held: Held) -> None:
        allowed = self._allowed(driven.name)
        if not held.again and call.SENT in held.headers and call.milliseconds(held.headers[call.SENT]) <= self.announced * 1000:
            held.headers = {**held.headers, call.AGAIN: call.AGAIN_HELD}  # there may be a repeat of it
            held.again = True
        if driven.storing and len(driven.waiting) >= HELD_MOST:
            busy = f"{len(driven.waiting)} requests already wait for the record of {driven.name}"
            return self.voice.answer(driven, do.Answer(held, "busy", busy, 1.0))
        return self._move(driven, lambda: driven.power.knock(held, time.time(), allowed=allowed), held)

    def wake(self, driven: Driven, reason: str, asked: Asked | None = None) -> None:
        def move() -> list[Effect]:
            if driven.power.state not in ("handover", "active"):
                driven.wanted_by = asked or Asked()
            return driven.power.wake(time.time(), reason)

        self._move(driven, move)

    def sleep(self, driven: Driven, reason: str, asked: Asked | None = None, *, recall: bool = True) -> None:
        def move() -> list[Effect]:
            if driven.power.state == "active":
                driven.slept_by = asked or Asked()
            return driven.power.sleep(reason, recall=recall)

        self._move(driven, move)

    def note(self, driven: Driven, **notes: object) -> None:
        """Have the record tell something more, at once if it does not yet."""
        driven.notes.update(notes)
        told = driven.record.model_dump()
        if any(told[name] != value for name, value in notes.items()):
            self._move(driven, driven.power.note)

    def ask_host(self, driven: Driven) -> None:
        """A host has come: does what the record says was awake still live?"""
        self._move(driven, driven.power.ask_host)

    def _heard_ack(self, msg: Msg) -> None:
        name, _, number = msg.data.decode().partition(" ")
        if driven := self.driven.get(name):
            chaos.point("madre.acknowledged")
            self._move(driven, lambda: driven.power.acked(int(number), time.time()))

    def _heard_active(self, msg: Msg) -> None:
        told = json.loads(msg.data)
        driven = self.driven.get(told["actor"])
        if driven is None:
            return

        def move() -> list[Effect]:
            power = driven.power
            done = power.active(
                told["id"], told["run"], time.time(), revision=told["revision"], epoch=told["epoch"], stay=told["stay"]
            )
            if done:
                chaos.point("madre.active")
                power.host, power.pid, power.born = told["host"], told["pid"], told["born"]
            return done

        self._move(driven, move)

    def _heard_slept(self, msg: Msg) -> None:
        told = json.loads(msg.data)
        if driven := self.driven.get(told["actor"]):
            chaos.point("madre.slept")
            self._note_end(driven, told["run"], told.get("left", 0.0))
            self._move(driven, lambda: driven.power.slept(told["run"], time.time()))

    def _heard_exited(self, msg: Msg) -> None:
        told = json.loads(msg.data)
        if driven := self.driven.get(told["actor"]):
            reason, clean = told.get("reason", ""), bool(told.get("clean"))
            self._note_end(driven, told["run"], told.get("ended", 0.0))
            self._move(driven, lambda: driven.power.exited(told["id"], told["run"], time.time(), reason, clean=clean))

    def _heard_beat(self, msg: Msg) -> None:
        told = json.loads(msg.data)
        if told.get("actor") == "madre":
            self._heard_self = time.monotonic()
        driven = self.driven.get(told.get("actor", ""))
        if driven is None:
            return
        beat = Beat(
            told["run"],
            told["idle_s"],
            told["in_flight"] + told.get("pending", 0),
            told["answered"],
            card_version=told["card_version"],
        )
        driven.power.beaten(beat, time.time())
        if driven.power.state == "active" and driven.power.run == beat.run:
            self.on_idle(driven)

    def _reconnected(self) -> None:
        self._suspect()
        for driven in self.driven.values():
            self._move(driven, lambda d=driven: d.power.reconnected(time.time()))  # type: ignore[misc]

    async def _sweep(self) -> None:
        """One clock for all that is not quiet; stands still when everything is."""
        last = time.monotonic(), time.time()
        while True:
            if not self._noisy:
                self._stir.clear()
                await self._stir.wait()
                last = time.monotonic(), time.time()
            await asyncio.sleep(SWEEP_S)
            passed, wall = time.monotonic() - last[0], time.time() - last[1]
            late = passed > LATE_S + SWEEP_S or abs(wall - passed) > LATE_S  # she stood still, or the clock was set
            last = time.monotonic(), time.time()
            if late:
                self._suspect()
            for driven in list(self._noisy.values()):
                try:
                    self._look_after(driven, late=late)
                except Exception:
                    log.exception("the clock of %s", driven.name)  # of this one; the others' goes on

    def _look_after(self, driven: Driven, *, late: bool) -> None:
        now = time.time()
        if self._heard_self and time.monotonic() - self._heard_self > DEAF_S:
            driven.power.last_beat = now  # she does not hear herself either: it is the server that is silent
        if late:
            self._move(driven, lambda: driven.power.late(time.time()))
        if not driven.storing:
            return self._move(driven, lambda: driven.power.tick(time.time()))
        if self.full(driven):
            refused: list[Effect] = [do.Answer(held, FULL, NO_ROOM, 1.0) for held in driven.taken_out()]
        else:
            told = f"the record of {driven.name} cannot be written or read just now"
            refused = [do.Answer(held, "unavailable", told, 1.0) for held in driven.overdue(now)]
        for answer in driven.power.expire(now) + refused:
            self._perform(driven, answer)
        return None

    def full(self, driven: Driven) -> bool:
        """The store refuses its record for want of room."""
        return self._kept.trouble.get(driven.name) == FULL

    def _suspect(self) -> None:
        """Is somebody else madre now?"""
        if not self.stepped_down.is_set():
            self._spawn(self._check_epoch())

    async def _check_epoch(self) -> None:
        """She reads her own record, which a successor would have raised."""
        record, _ = await self._kept.read("madre")
        if record and record.epoch > self.epoch:
            self._step_down(record.epoch)

    def _move(self, driven: Driven, move: Callable[[], list[Effect]], held: Held | None = None) -> None:
        """Make a move now, or in its turn while the record is being written or read."""
        if driven.storing or self.stepped_down.is_set():
            driven.waiting.append(Move(move, held))
        else:
            self._do(driven, move())

    def _do(self, driven: Driven, wanted: list[Effect]) -> None:
        for effect in wanted:
            self._perform(driven, effect)
        power = driven.power
        if power.quiet and not driven.storing:
            self._noisy.pop(driven.name, None)
        elif driven.name not in self._noisy:
            self._noisy[driven.name] = driven
            self._stir.set()
        if power.state != driven.shown:
            self.voice.change(driven, wanted)
            driven.shown, driven.since = power.state, rfc3339_now()
            driven.transitions.append((driven.since, power.state, power.reason))
            driven.stirred()
            self.on_transition(driven)

    def _perform(self, driven: Driven, effect: Effect) -> None:
        match effect:
            case do.Forward():
                self._forward(driven, effect)
            case do.Answer():
                self.voice.answer(driven, effect)
            case do.Open(generation):
                driven.stand_in.open(lambda: self._move(driven, lambda: driven.power.proven(generation, time.time())))
            case do.Close(generation):
                driven.stand_in.close(lambda: self._move(driven, lambda: driven.power.proven(generation, time.time())))
            case do.Activate():
                chaos.point("madre.activating")
                self.voice.activate(driven, effect)
            case do.Order():
                chaos.point("madre.ordering")
                self.voice.order(driven, effect)
            case do.Swap():
                driven.storing = True
                self._spawn(self._store(driven, effect))
            case do.Read():
                driven.storing = True
                self._spawn(self._look(driven))
            case do.AskHost():
                self.voice.ask_host(driven, effect)
            case do.Tell():
                self.voice.tell(driven, effect)
            case do.Bury():
                self.voice.bury(driven, effect.held)
            case do.StepDown(epoch):
                self._step_down(epoch)

    def _forward(self, driven: Driven, effect: do.Forward) -> None:
        chaos.point("madre.forwarding")
        if not self.voice.forward(driven, effect):  # it has been answered
            self._move(driven, lambda: driven.power.acked(effect.held.n, time.time()))

    async def _store(self, driven: Driven, swap: do.Swap) -> None:
        power = driven.power
        vacated = {"vacated": self._end_of(driven)} if swap.purpose == "release" else {}
        written = driven.written({**swap.changes, **vacated})
        revision = await self._kept.swap(written, power.revision)
        if revision is not None:
            driven.record = written
            if swap.purpose == "release":
                chaos.point("madre.released")
        self._resume(driven, lambda: power.swapped(swap.purpose, revision, time.time()))

    def _note_end(self, driven: Driven, run: str, at: float) -> None:
        """The first word counts: an instance that says when it had left does nothing more."""
        if at and self._ends.get(driven.name, ("", 0.0))[0] != run:
            self._ends[driven.name] = (run, at)

    def _end_of(self, driven: Driven) -> float:
        """When the owner that is being released was gone, as far as somebody saw it: now, at the latest."""
        run, at = self._ends.get(driven.name, ("", 0.0))
        return at if run and run == driven.power.run else time.time()

    async def _look(self, driven: Driven) -> None:
        record, revision = await self._kept.read(driven.name)
        if record:
            driven.record = record
            if record.owner:
                chaos.point("madre.claim_read")
        self._resume(driven, lambda: driven.power.read(record, revision, time.time()))

    def _resume(self, driven: Driven, move: Callable[[], list[Effect]]) -> None:
        """The store has answered: that move first, then what waited, until the next one has to be stored."""
        driven.storing = False
        self._do(driven, move())
        while driven.waiting and not driven.storing and not self.stepped_down.is_set():
            self._do(driven, driven.waiting.popleft().make())
        driven.stirred()

    def _step_down(self, epoch: int) -> None:
        if not self.stepped_down.is_set():
            log.error("another madre has taken over (epoch %d, mine is %d)", epoch, self.epoch)
            self.stepped_down.set()

    async def give_back(self, *, successor: bool) -> None:
        """Leave every queue group, then send what is held to whoever is in it now (8), or say that nobody is."""
        leaving = [driven.stand_in.leave() for driven in self.driven.values()]
        try:
            async with asyncio.timeout(LEAVE_S):
                outcomes = await asyncio.gather(*leaving, return_exceptions=True)
        except TimeoutError as late:
            outcomes = [late]
        if failures := [outcome for outcome in outcomes if outcome is not None]:
            log.warning("leaving: %r", failures[0])
        for driven in self.driven.values():
            for held in driven.hand:
                if not successor and not held.sent_at:
                    self.voice.answer(driven, do.Answer(held, "unavailable", "madre stops; ask again", 1.0))
                    continue
                headers = dict(held.headers)
                if held.sent_at or call.SENT in headers:  # its caller may have asked again
                    headers[call.AGAIN] = "1"
                self.voice.send(f"vx11.{driven.name}.{held.verb}", held.body, reply=held.reply, headers=headers)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        if self._closed:
            return coroutine.close()
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task.add_done_callback(_log_failure)


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("a task of madre failed", exc_info=error)
