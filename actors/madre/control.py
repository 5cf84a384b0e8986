"""madre's decisions about all actors together: registration, commands that wait for their end, idle-out, windows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from typing import Any

from actors.madre import asked
from actors.madre.asked import Asked
from actors.madre.driven import Driven
from actors.madre.kept import KeptCard
from actors.madre.machine import FULL, NO_ROOM, Machine
from actors.madre.policy import KeepAwake, OpenedWindow, Policy, rfc3339
from actors.madre.waiting import Waiting
from bus.bucket import Bucket
from bus.client import Bus
from schemas.card import Card
from schemas.errors import Failure
from schemas.madre import ActorList, ActorStatus, Explanation, Moved, PolicyState, Transition, Window
from schemas.message import RESERVED
from schemas.power import Cause, Gate
from schemas.power import Policy as PolicyName

log = logging.getLogger("vx11.madre.control")

ALWAYS = ("madre", "redis", "tentaculo_link")
"""What runs at rest."""
HOUSE = (*ALWAYS, "keeper", "host")
"""Names that a person sees running, and may take for actors."""
YOUNG_S = 3.0
"""After her start hosts tell madre what they have; until then an unknown name may be one that she has not heard yet."""
PATIENCE_S = 1.0
KNOWN_LOOK_S = 0.02
EVENTS_LOOK_S = 3.0
"""Between two looks at what durable consumers have waiting: for what was published while nobody listened."""
KEPT_MOST = 500
"""Windows and leases together: the store is read in one answer, which has at most 1,024 keys."""
CALLED_BACK_S = 0.5
MOVE_S = 55.0
"""A wake or sleep that was commanded is waited for so long, below the timeout of the command."""


class Control:
    """Holds the policy and its store; turns commands into moves of the machine and waits for what they lead to."""

    def __init__(self, bus: Bus, machine: Machine, policy: Policy, store: Bucket) -> None:
        self.machine = machine
        self.policy = policy
        self._store = store
        self._waiting = Waiting(bus, machine, policy)
        self._alarm = asyncio.Event()
        machine.on_idle = self._idle
        machine.on_transition = self._changed
        self._begun = time.monotonic()

    def driven(self, name: str) -> Driven:
        """Raises Failure("not_found") with the names that exist, "unavailable" for one that no host has registered yet."""
        found = self.machine.driven.get(name)
        if found is not None and found.card is None:
            raise Failure("unavailable", f"no host has said in this life of madre that it can start {name}", retry_after=1)
        if found is None or found.card is None:
            if name in HOUSE:
                raise Failure("not_found", f"{name} is a part of VX11 that always runs; it has no gate and never sleeps")
            if time.monotonic() - self._begun < YOUNG_S:
                raise Failure("unavailable", f"no host has told of {name!r} yet; madre has just started", retry_after=1)
            known = ", ".join(sorted(n for n, d in self.machine.driven.items() if d.card)) or "none"
            raise Failure("not_found", f"there is no actor {name!r}; there are: {known}")
        return found

    async def known(self, name: str) -> Driven:
        """`driven`, with a moment's patience just after her start: her hosts tell her of their actors in a tenth of a second."""
        while True:
            try:
                return self.driven(name)
            except Failure as failure:
                if failure.code != "unavailable" or time.monotonic() - self._begun > PATIENCE_S:
                    raise
            await asyncio.sleep(KNOWN_LOOK_S)

    async def register(self, card: Card, host: str) -> None:
        """A host can start this actor. A changed card lets the instance of the old code finish and leave."""
        if card.name in ALWAYS:
            return  # they are found in the tree like the others, and are not hers to start
        if card.name in RESERVED:
            raise Failure("conflict", f"{card.name} is a name of the platform's own; give the actor another one")
        driven = await self.machine.add(card.name)
        changed = driven.card is not None and driven.card.card_version != card.card_version
        driven.card = driven.stand_in.card = KeptCard.of(card)
        driven.hosts.add(host)
        self.machine.ask_host(driven)
        self.machine.note(driven, gate=self.policy.gate(card.name), idle_after=card.idle_after)
        idle = not self._waiting
        await self._waiting.register(card)
        if idle and self._waiting:
            self._alarm.set()  # the first of all durable handlers starts the looking
        power = driven.power
        outdated = driven.card_version not in ("", card.card_version)
        if power.state == "active" and (changed or outdated) and not card.error:
            self.machine.sleep(driven, "its code has changed", Asked("code"), recall=False)
        self._keep_awake(driven)

    async def watch(self) -> None:
        """For ever: end windows on time, look at what waits for durable handlers."""
        while True:
            self._alarm.clear()
            now = time.time()
            for window in self.policy.expired(now):
                await self._forget(f"window.{window.window_id}")
                for name in window.services:
                    if (driven := self.machine.driven.get(name)) and not self.policy.kept_awake(name, now):
                        self.machine.sleep(driven, "its window has ended", Asked("window", about=window.window_id))
            await self._waiting.look()
            end = self.policy.next_end()
            look = EVENTS_LOOK_S if self._waiting else None
            waits = [t for t in (look, None if end is None else max(0.0, end - time.time())) if t is not None]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(waits) if waits else None):
                    await self._alarm.wait()

    def _idle(self, driven: Driven) -> None:
        """Put an actor to sleep that has had nothing to do for its time, or may not be awake."""
        beat, card, now = driven.power.beat, driven.card, time.time()
        if not self.policy.allowed(driven.name, now):
            self.machine.sleep(
                driven, "it may not be awake", Asked("gate")
            )  # it was on its way when its gate or window was closed
        if card is None or beat.in_flight or self.policy.kept_awake(driven.name, now):
            return
        if driven.card_version not in ("", card.card_version) and not card.error:
            self.machine.sleep(driven, "its code has changed", Asked("code"), recall=False)
        elif beat.idle_s >= card.idle_after:
            self.machine.sleep(driven, f"idle for {beat.idle_s:.0f} s", Asked("idle"))

    def _keep_awake(self, driven: Driven) -> None:
        """A window or the policy wants it awake, and it sleeps."""
        now = time.time()
        full = self.policy.name == "full"
        wanted = (full or self.policy.in_window(driven.name, now)) and self.policy.allowed(driven.name, now)
        if wanted and driven.power.state == "dormant" and driven.card and not driven.card.error:
            self.machine.wake(driven, "it is to be kept awake", Asked("policy" if full else "window"))

    def _changed(self, driven: Driven) -> None:
        """Who has crashed is not left asleep; who was put to sleep by an operator is."""
        if driven.power.crashes:
            self._keep_awake(driven)
            if driven.power.state == "dormant" and self._waiting:
                self._look_soon()  # for what it had in hand, and what has come since

    def _look_soon(self) -> None:
        self._waiting.soon()
        self._alarm.set()

    # -- commands ----------------------------------------------------------------------------------------------------

    async def wake(self, name: str, reason: str, cause: Cause = "operator", about: str = "") -> Moved:
        driven = self.driven(name)
        begun, before = time.monotonic(), driven.power.state
        if driven.card and driven.card.error:
            raise Failure("unavailable", f"{name} cannot be loaded: {driven.card.error}")
        if before != "active" and not self.policy.allowed(name, time.time()):
            raise Failure(
                "off_by_policy",
                driven.power.reason_denied(),
                service=name,
                status="OFF_BY_POLICY",
                recommended_action=f"open a window for {name}, or set its gate to on_demand",
            )
        if before != "active":
            self.machine.wake(driven, reason, asked.now(cause, about))
            await self._until(driven, ("active", "failed", "dormant"))
        if driven.power.state == "failed":
            raise Failure("unavailable", f"{name} cannot be woken: {driven.power.reason}")
        if driven.power.state == "dormant":
            raise Failure("crashed", f"{name} woke and ended at once; it is {driven.power.reason}")
        return _moved(driven, before, begun)

    async def sleep(self, name: str, reason: str, cause: Cause = "operator", about: str = "", *, recall: bool = True) -> Moved:
        """Drain an actor; answers when it sleeps, or `conflict` when a request called it back."""
        driven = self.driven(name)
        begun, before = time.monotonic(), driven.power.state
        if before in ("handover", "waking", "adopting"):
            await self._until(driven, ("active", "dormant", "failed"))
        if driven.power.state == "active":
            self.machine.sleep(driven, reason, asked.now(asked.SENDERS.get(reason, cause), about), recall=recall)
        if driven.power.state not in ("dormant", "failed"):
            seen = await self._until(driven, ("dormant", "failed", "waking", "handover", "active"))
            if seen in ("handover", "active"):
                raise Failure("conflict", f"a request called {name} back; it stays awake")
        return _moved(driven, before, begun)

    async def restart(self, name: str, reason: str) -> Moved:
        driven = self.driven(name)
        begun, before = time.monotonic(), driven.power.state
        if before not in ("dormant", "failed"):
            await self.sleep(name, reason, recall=False)
        await self.wake(name, reason)
        return _moved(driven, before, begun)

    async def _until(self, driven: Driven, states: tuple[str, ...]) -> str:
        end = time.monotonic() + MOVE_S
        while driven.power.state not in states or driven.storing:
            if self.machine.full(driven):
                raise Failure(FULL, NO_ROOM)
            left = end - time.monotonic()
            if left <= 0:
                raise Failure("timeout", f"{driven.name} is {driven.power.state} after {MOVE_S:g} s: {driven.power.reason}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, CALLED_BACK_S)):
                    await driven.changed.wait()
        return driven.power.state

    async def set_gate(self, name: str, gate: Gate) -> ActorStatus:
        driven = self.driven(name)
        self.policy.refuse_pinned(name, gate)
        await self._store.put(f"gate.{name}", {"gate": gate})
        self.policy.set_gate(name, gate)
        self.machine.note(driven, gate=gate)
        if gate == "closed":
            self.machine.sleep(driven, "its gate was closed", asked.now("gate", gate))
        else:
            self._look_soon()  # for the events that have waited before the gate
        return self.status(driven)

    async def open_window(self, services: list[str], ttl_sec: float | None, reason: str) -> tuple[Window, list[Moved]]:
        """Open, store, wake; a service that cannot wake is told in its `Moved`, and the window stays open."""
        for name in services:
            self.driven(name)
        if len(self.policy.leases) + len(self.policy.windows) >= KEPT_MOST:
            raise Failure("busy", f"{KEPT_MOST} windows and leases are open; close one first", retry_after=60)
        now = time.time()
        window = OpenedWindow(secrets.token_hex(4), services, reason, now, None if ttl_sec is None else now + ttl_sec, ttl_sec)
        document = {k: v for k, v in vars(window).items() if k != "window_id"}
        await self._store.put(f"window.{window.window_id}", document, ttl_s=ttl_sec)
        self.policy.windows[window.window_id] = window
        self._alarm.set()
        told = f"the window {window.window_id}"
        woken = await asyncio.gather(*(self._try(self.wake, name, told, "window", window.window_id) for name in services))
        return window.shown(time.time()), list(woken)

    async def close_window(self, window_id: str | None) -> tuple[Window, list[Moved]]:
        windows = self.policy.windows
        if window_id is None and len(windows) != 1:
            told = ", ".join(sorted(windows)) or "none"
            raise Failure("not_found" if not windows else "conflict", f"say which window; open are: {told}")
        window = windows.pop(next(iter(windows)) if window_id is None else window_id, None)
        if window is None:
            told = f"there is no open window {window_id!r}; open are: {', '.join(sorted(windows)) or 'none'}"
            raise Failure("not_found", told, next=[["vx11 window ls", "which are open"]])
        await self._forget(f"window.{window.window_id}")
        idle = [name for name in window.services if not self.policy.kept_awake(name, time.time())]
        told = "its window was closed"
        slept = await asyncio.gather(*(self._try(self.sleep, name, told, "window", window.window_id) for name in idle))
        return window.shown(time.time()), list(slept)

    async def apply(self, policy: PolicyName) -> list[Moved]:
        """Keep the policy, then put all to sleep (solo_madre) or wake all that may be (full)."""
        await self._store.put("policy", {"policy": policy})
        self.policy.name = policy
        move = self.sleep if policy == "solo_madre" else self.wake
        names = [d.name for d in self._known() if policy == "solo_madre" or self.policy.allowed(d.name, time.time())]
        told = f"the policy is {policy}"
        return list(await asyncio.gather(*(self._try(move, name, told, "policy", policy) for name in names)))

    async def renew_lease(self, actor: str, ttl_sec: float, lease_id: str | None) -> KeepAwake:
        self.driven(actor)
        if lease_id and lease_id not in self.policy.leases:
            raise Failure("not_found", f"there is no lease {lease_id!r}: it has ended, or never was")
        if not lease_id and len(self.policy.leases) + len(self.policy.windows) >= KEPT_MOST:
            raise Failure("busy", f"{KEPT_MOST} windows and leases are open; close one, or prolong one of yours", retry_after=60)
        lease = KeepAwake(lease_id or secrets.token_hex(6), actor, time.time() + ttl_sec)
        await self._store.put(f"lease.{lease.lease_id}", {"actor": actor, "ends": lease.ends}, ttl_s=ttl_sec)
        self.policy.leases[lease.lease_id] = lease
        return lease

    async def drop_lease(self, lease_id: str) -> None:
        if self.policy.leases.pop(lease_id, None) is None:
            raise Failure("not_found", f"there is no lease {lease_id!r}")
        await self._forget(f"lease.{lease_id}")

    async def _forget(self, key: str) -> None:
        try:
            await self._store.remove(key)
        except Failure as failure:
            log.warning("%s stays in the store: %s", key, failure)

    async def _try(self, move: Any, name: str, reason: str, cause: Cause, about: str) -> Moved:
        begun, before = time.monotonic(), self.driven(name).power.state
        try:
            moved: Moved = await move(name, reason, cause, about)
            return moved
        except Failure as failure:
            return _moved(self.driven(name), before, begun, str(failure))

    # -- what is ------------------------------------------------------------------------------------------------------

    def _known(self) -> list[Driven]:
        return sorted((d for d in self.machine.driven.values() if d.card), key=lambda d: d.name)

    def status(self, driven: Driven) -> ActorStatus:
        power, card, now = driven.power, driven.card, time.time()
        awake = power.state in ("active", "draining") and power.beat.run == power.run
        return ActorStatus(
            name=driven.name,
            state=power.state,
            summary=card.summary if card else "",
            instance=power.id if power.run else "",
            host=power.host,
            pid=power.pid if power.run else 0,
            since=driven.since,
            idle_s=round(power.beat.idle_s, 1) if awake else None,
            idle_after=card.idle_after if card else 0.0,
            gate=self.policy.gate(driven.name),
            gate_pinned=self.policy.pinned(driven.name),
            allowed=self.policy.allowed(driven.name, now),
            wakes=power.wakes,
            last_wake_ms=power.last_wake_ms,
            in_flight=power.beat.in_flight if awake else 0,
            held=len(power.held),
            reason=card.error if card and card.error else power.reason,
            card_version=card.card_version if card else "",
            observed_at=rfc3339(power.last_beat if awake else now),
        )

    def listed(self) -> ActorList:
        now = time.time()
        actors = [self.status(driven) for driven in self._known()]
        awake = sum(a.state not in ("dormant", "failed") for a in actors)
        windows = [w.shown(now) for w in self.policy.windows.values() if w.ends is None or w.ends > now]
        return ActorList(actors=actors, policy=self.policy.name, mode=self.policy.mode(now, awake), windows=windows)

    def explain(self, name: str) -> Explanation:
        """Why an actor is as it is: from what was seen in this life of madre; older causes are in the event log."""
        driven = self.driven(name)
        power, now = driven.power, time.time()
        told = [f"{name} is {power.state} since {driven.since}: {power.reason}"]
        if not self.policy.allowed(name, now):
            told.append(f"it may not wake now, its gate is {self.policy.gate(name)}")
        if driven.card and driven.card.error:
            told.append(f"it cannot be loaded: {driven.card.error}")
        if self.policy.kept_awake(name, now):
            told.append("a window, a lease or the policy keeps it awake")
        seen = [Transition(at=at, what=what, reason=reason) for at, what, reason in driven.transitions]
        return Explanation(actor=name, state=power.state, sentence="; ".join(told) + ".", transitions=seen)

    def recent(self, minutes: float) -> list[Transition]:
        """What changed in the last `minutes`, oldest first, as far as this life of madre has seen it."""
        since = rfc3339(time.time() - minutes * 60)
        found = [
            Transition(at=at, what=f"{driven.name}: {what}", reason=reason)
            for driven in self._known()
            for at, what, reason in driven.transitions
            if at >= since
        ]
        return sorted(found, key=lambda transition: transition.at)

    def policy_state(self) -> PolicyState:
        """`running` counts madre; what the gateway and Redis do is the gateway's to observe."""
        listed = self.listed()
        awake = [a.name for a in listed.actors if a.state not in ("dormant", "failed")]
        allowed = [a.name for a in listed.actors if a.allowed]
        active = not awake if self.policy.name == "solo_madre" else sorted(awake) == sorted(allowed)
        return PolicyState(
            policy=self.policy.name, mode=listed.mode, active=active, running=["madre", *awake], expected=list(ALWAYS)
        )


def _moved(driven: Driven, before: str, begun: float, error: str | None = None) -> Moved:
    elapsed = round((time.monotonic() - begun) * 1000, 1)
    return Moved.model_validate(
        {"service": driven.name, "from": before, "to": driven.power.state, "elapsed_ms": elapsed, "error": error}
    )
