"""The small world around the real power machine, with faults, and with what must hold always.

Two ways to run it: without a clock, where any timer may fire at any moment, and with one (`advance`).
"""

from __future__ import annotations

from random import Random

from actors.madre.effects import Beat
from actors.madre.power import GIVE_UP_S
from tests.madre.cast import Madre
from tests.madre.motion import Motion, Step
from tests.madre.network import Config, Violation
from tests.madre.processes import Instance

UNWAKING = frozenset({"giveup", "gate", "expire"})
"""After these a request may be answered with a refusal."""
CALM_S = 300.0
"""Backoffs last a minute at most; everything else is quiet within a few seconds."""
SWEEP_S = 0.05
BEAT_S = 2.0


class World(Motion):
    """`left`: how often each fault may still strike."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.left = dict(config.budget)
        self.wish = ""
        """The state that the operator's last word should have led to, as long as no fault has struck."""
        self.beat_at = self.now
        self._do_madre()
        asks, self.asks = self.asks, []
        self._settle()
        if config.awake:
            power = self.madres[0].power
            self.madres[0].move(lambda: power.wake(self.now, "test"))
            self._settle()
        self.asks = asks

    def _settle(self) -> None:
        while steps := self.steps(timers=False):
            self.do(steps[0])

    def copy(self) -> World:
        new: World = super().copy()
        new.left = dict(self.left)
        return new

    def do(self, step: Step) -> None:
        """One of `steps` or `faults`. Raises Violation."""
        verb, *rest = step
        fault = verb[0] == "!"
        if fault:
            self.left[verb[1:]] -= 1
            self.struck |= {verb[1:]}
        getattr(self, f"_do_{verb.lstrip('!')}")(*rest)
        if self.config.eager:
            self.serve_all()
        self._check(fault=fault)

    # -- faults, and what operators do --------------------------------------------------------------------------------

    def faults(self) -> list[Step]:
        found: list[Step] = []
        for madre in self.madres:
            if madre.alive and not madre.frozen and not madre.stale:
                found += self._faults_of_madre(madre)
        for i in self.instances:
            if i.alive:
                found += [("!crash", i.name, keep) for keep in ((True, False) if i.out else (True,))]
                found.append(("!thaw" if i.frozen else "!freeze", i.name))
        if not self.losing:
            found.append(("!lose",))
        found += [("!restart", keep) for keep in (True, False)]
        found += [("!hostcrash", host.name) for host in self.hosts]
        if self.allowed:
            found.append(("!gate",))
        return [step for step in found if self.left.get(step[0][1:])]

    def _faults_of_madre(self, madre: Madre) -> list[Step]:
        name, power = madre.name, madre.power
        found: list[Step] = [("!mcrash", name, keep) for keep in ((True, False) if madre.out else (True,))]
        if self.madres[-1] is madre:
            found.append(("!stop", name))
        if madre.storing:
            return found
        if power.state == "active":
            found += [("!sleep", name), ("!replace", name)]
        if power.state not in ("active", "handover"):
            found.append(("!wake", name))
        if power.state == "waking":
            found.append(("!giveup", name))
        found += [("!expire", name, held.n) for held in power.held]
        return found

    def _do_sleep(self, name: str) -> None:
        self.wish = "dormant"
        self.part(name).move(lambda: self.part(name).power.sleep("idle"))

    def _do_replace(self, name: str) -> None:
        """Its code has changed: no call-back, and its successor is woken by whoever waits."""
        self.wish = ""
        self.part(name).move(lambda: self.part(name).power.sleep("changed", recall=False))

    def _do_wake(self, name: str) -> None:
        self.wish = "active"
        self.part(name).move(lambda: self.part(name).power.wake(self.now, "asked"))

    def _do_giveup(self, name: str) -> None:
        self._do_timer(name, "limit")

    def _do_expire(self, name: str, n: int) -> None:
        madre = self.part(name)
        for held in madre.power.held:
            if held.n == n:
                held.expires = self.now
        madre.move(lambda: madre.power.tick(self.now))

    def _do_gate(self) -> None:
        self.allowed = False

    def _do_crash(self, name: str, keep: bool) -> None:
        self.end(self.part(name), keep=keep)

    def _do_freeze(self, name: str) -> None:
        self.part(name).frozen = True

    def _do_thaw(self, name: str) -> None:
        self.part(name).frozen = False
        self.part(name).late = True

    def _do_mcrash(self, name: str, keep: bool) -> None:
        self.part(name).die(keep=keep)
        self.part(name).storing = None

    def _do_stop(self, name: str) -> None:
        """SIGSTOP, and somebody starts another one in her place."""
        self.part(name).frozen = True
        self._do_madre()

    def _do_lose(self) -> None:
        self.losing = True

    def _do_hostcrash(self, name: str) -> None:
        """With its instances: they die with their parent, and nobody tells."""
        for i in self.instances:
            if i.alive and i.host == name:
                self.end(i, told=False)
        host = self.part(name)
        host.known, host.out, host.registering = {}, (), True

    def _do_restart(self, keep: bool) -> None:
        """The server ends and starts; `keep`: what it had sent has reached its clients."""
        self.shared, self.private = (), ()
        for part in self.parts:
            part.out = ()
            part.inn = part.inn if keep else ()
            part.connected = part.name[0] == "H"
        self.callers_connected = False

    # -- time ---------------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """The clock goes on while every message waits; those who beat, beat."""
        end = self.now + seconds
        self.struck |= {"giveup"} if seconds >= GIVE_UP_S else set()
        while self.now < end:
            self.now += SWEEP_S
            if self.now >= self.beat_at:
                self.beat_at = self.now + BEAT_S
                self._beat_all()
            for madre in self.madres:
                if madre.alive and not (madre.frozen or madre.stale or madre.storing):
                    madre.now = self.now
                    madre.move(lambda p=madre.power: p.tick(self.now))  # type: ignore[misc]

    def _beat_all(self) -> None:
        for madre in self.madres:
            if madre.alive and madre.connected and not madre.frozen and (run := self._beating(madre)):
                madre.power.beaten(Beat(run.name, answered=int(run.answered)), self.now)

    def calm(self, random: Random) -> None:
        """No more faults: the system alone must get quiet. Raises Violation when it does not."""
        end = self.now + CALM_S
        while why := self.unrest():
            if self.now > end:
                raise Violation(f"NEVER QUIET: {why}")
            asked: set[Step] = set()
            while steps := [step for step in self.steps(timers=False) if step[:2] not in asked]:
                step = random.choice(steps)
                if step[0] in ("send", "resend"):
                    asked.add(step[:2])
                self.do(step)
            self.advance(SWEEP_S)
        self.check_end()

    # -- what must hold always ----------------------------------------------------------------------------------------

    def _check(self, *, fault: bool) -> None:
        present = [i.name for i in self.instances if i.alive and i.phase not in ("born", "closing", "gone")]
        if len(present) > 1:
            raise Violation(f"TWO INSTANCES: {present}")
        for ask in self.asks:
            if ask.handled > 1 and not (ask.idempotent and self.harmed):
                raise Violation(f"HANDLED TWICE: r{ask.r}")
            if ask.answered > 1 and not self.harmed:
                raise Violation(f"ANSWERED TWICE: r{ask.r}")
            if ask.status != "out" or ask.marked or self._somewhere(ask.r):
                continue
            if not fault and not self.harmed and ask.r not in self.excused:
                raise Violation(f"LOST: r{ask.r}")
            if ask.stock:
                if not fault and ask.r not in self.excused and not any(ask.r in m.lost for m in self.madres):
                    raise Violation(f"LOST: r{ask.r}, a stock client's, by none of the faults")
                ask.settle("lost")

    def _somewhere(self, r: int) -> bool:
        """A copy of the request, or its answer, still exists."""
        for part in self.parts:
            for m in part.out:
                if (m[0] in ("req", "answer") and m[1] == r) or (m[0] == "fwd" and m[3] == r):
                    return True
            for m in part.inn:
                if (m[0] == "req" and m[1] == r) or (m[0] == "fwd" and m[2] == r):
                    return True
        if any(r in i.work or r in i.doubts for i in self.instances):
            return True
        held = [h.verb for m in self.madres if m.alive for h in (*m.power.held, *m.power.forwarded)]
        return str(r) in held or any(str(r) == left.verb for m in self.madres for left in m.left)

    def unrest(self) -> str:
        """Why the world is not quiet and right, or nothing."""
        if waiting := [f"r{a.r}" for a in self.asks if a.status != "done" and not self.is_nested(a.r)]:
            return f"unsettled: {waiting}"
        for part in self.parts:
            asleep = part.frozen and isinstance(part, Instance) and part.phase == "born"
            if part.alive and not asleep and (part.out or part.inn or part.token or not part.connected or part.frozen):
                return f"{part.name} is busy"
        serving = [i for i in self.instances if i.alive and i.phase != "born"]
        if restless := [f"{i.name} is {i.phase}" for i in serving if i.phase != "idle"]:
            return restless[0]
        living = [m for m in self.madres if m.alive]
        if len(living) != 1 or any(h.registering for h in self.hosts) or not self.callers_connected:
            return f"{len(living)} madres"
        return self._disagreement(living[0], [i.name for i in serving])

    def _disagreement(self, madre: Madre, serving: list[str]) -> str:
        power, record = madre.power, self.record
        if power.held or power.forwarded or madre.storing or madre.turns:
            return f"{madre.name} has something in hand"
        if power.state == "active":
            agrees = [power.run] == serving == list(self.shared) == list(self.private) == [record.owner]
        elif power.state in ("dormant", "failed"):
            agrees = not serving and self.shared == (madre.name,) and not record.owner and not self.private
        else:
            return f"{madre.name} is {power.state}/{power.phase}"
        if not agrees:
            return f"{power.state}, run {power.run!r}, but {serving=} shared={self.shared} private={self.private} {record}"
        if power.revision != record.revision:
            return f"revision {power.revision} is not {record.revision}"
        return ""

    def check_end(self) -> None:
        """What must hold once the world is quiet."""
        power = next(m.power for m in self.madres if m.alive)
        refused = self.harmed or self.struck & UNWAKING
        for ask in self.asks:
            if not refused and not self.is_nested(ask.r) and ask.outcome != "ok":
                raise Violation(f"REFUSED: r{ask.r} ended {ask.outcome}, and no fault explains it")
            if ask.outcome == "ok" and not ask.handled:
                raise Violation(f"INVENTED: r{ask.r}")
        if not refused and self.wish == "active" and power.state != "active":
            raise Violation(f"FORGOTTEN: the operator woke it, and it is {power.state}")
