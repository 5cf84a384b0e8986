"""The power machine of one actor: what happened and when goes in, what is to be done comes out. No await, no clock.

The rules and the counterexample that each one answers are those of the model-checked protocol; the numbers in comments
are its rules. One method is one move; while a `Swap` or `Read` is under way its driver makes no other move.
"""

from __future__ import annotations

from actors.madre.effects import (
    Activate,
    Answer,
    AskHost,
    Beat,
    Bury,
    Close,
    Effect,
    Forward,
    Held,
    Open,
    Order,
    Read,
    StepDown,
    Swap,
    Tell,
)
from actors.madre.hold import Hold
from schemas.power import ActorRecord, State

REPEAT_S = 0.25
"""An order that is not answered is given again."""
GIVE_UP_S = 10.0
"""A wake that nobody has claimed by then has failed."""
LOOK_S = 1.0
"""How long a wake or an adoption goes on unheard before the record and the host are asked."""
BURIAL_S = 0.05
"""The report of an exit may overtake the instance's last answers."""
BEATS_MISSED_S = 6.5
"""Three heartbeats of 2 s and a little: the instance is taken for frozen."""
BACKOFF_FIRST_S = 1.0
BACKOFF_MOST_S = 60.0
CRASHES_FREE = 2
"""So many crashes in a row, without one answered request between them, are answered by waking again at once."""
KILLS_MOST = 2


class Power:
    """State of one actor. Everything is kept in plain fields so that a test can copy and compare it."""

    def __init__(self, name: str, *, epoch: int = 0, revision: int = 0) -> None:
        self.name = name
        self.state: State = "dormant"
        self.epoch = epoch
        self.revision = revision
        self.id = ""
        self.run = ""
        self.host, self.pid, self.born = "", 0, 0.0
        self.stay = 0
        self.phase = ""
        """Inside draining: opening, drain, staying. Inside adopting: opening, staying, burying."""
        self.recall = True
        """A request that arrives while draining calls the instance back; not when it is to be replaced."""
        self.clean = True
        self.wanted = False
        self.reason = "not started yet"
        self.held = Hold()
        self.forwarded: dict[int, Held] = {}
        self.standing = False
        self.opened = False
        """The stand-in's subscription is proven."""
        self.lapsed = False
        """The process of this activation died before it had claimed."""
        self.generation = 0
        self.counter = 0
        self.wakes = 0
        self.last_wake_ms: float | None = None
        self.asked_at = 0.0
        self.repeat_at = 0.0
        self.limit_at = 0.0
        """When waking is given up, a burial is due, or the backoff ends."""
        self.look_at = 0.0
        self.last_beat = 0.0
        self.beat = Beat("")
        self.crashes = 0

    @property
    def quiet(self) -> bool:
        """Nothing is pending: no clock needs to look at this actor."""
        return self.state == "dormant" and not self.held and not self.forwarded

    # -- requests ---------------------------------------------------------------------------------------------------

    def knock(self, held: Held, now: float, *, allowed: bool = True) -> list[Effect]:
        """A request reached the stand-in."""
        self.counter += 1
        held.n = self.counter
        if self.state in ("handover", "active"):
            return [self._forward(held, now)]
        if not allowed and self.state != "adopting":
            return [Answer(held, "off_by_policy", self.reason_denied()), Tell("denied", self.reason_denied())]
        if self.state == "failed":
            return [Answer(held, "unavailable", f"{self.name} cannot be woken: {self.reason}", max(0.0, self.limit_at - now))]
        if not self.held.add(held):
            return [Answer(held, "busy", f"{len(self.held)} requests already wait for {self.name} to wake", 1.0)]
        if self.state == "dormant":
            return self._wake(now, f"a request for {held.verb}")
        if self.state == "draining" and self.phase == "drain" and (self.recall or held.nested):
            return self._call_back(now)
        return []

    def reason_denied(self) -> str:
        return f"{self.name} may not wake now: its gate or the policy forbids it"

    def acked(self, n: int, now: float) -> list[Effect]:
        """The instance has taken a forwarded request; a drain that waited for the last one goes on."""
        self.forwarded.pop(n, None)
        waits = self.state == "draining" and self.phase == "opening" and not self.recall and not self.forwarded
        return self._drain(now) if waits and self.opened else []

    # -- what instances and hosts say --------------------------------------------------------------------------------

    def active(self, id_: str, run: str, now: float, *, revision: int = 0, epoch: int = 0, stay: int = 0) -> list[Effect]:
        """An instance says that it is subscribed and proven. Several may have started; the claim let one of them speak."""
        first = self.state == "waking" and not self.run and id_ == self.id
        newest = run == self.run and stay == self.stay and epoch == self.epoch and self.phase == "staying"
        if not first and not (newest and self.state in ("adopting", "draining")):
            return []
        self.run = run
        self.revision = max(self.revision, revision)
        if first:
            self.wakes += 1
            self.last_wake_ms = round((now - self.asked_at) * 1000, 2)
        self.last_beat = now
        return self._hand_over(now)

    def slept(self, run: str, now: float) -> list[Effect]:
        """The instance has left by itself with empty hands."""
        if not run or run != self.run or self.state in ("dormant", "failed") or self.phase == "burying":
            return []
        self.clean = True
        opened = self._open() if not self.standing else []
        return [*opened, *self._bury(now, 0.0)]

    def exited(self, id_: str, run: str, now: float, reason: str = "") -> list[Effect]:
        """The parent of the process says that it is gone."""
        if self.run and run == self.run and self.phase != "burying" and self.state not in ("dormant", "failed"):
            self.clean = False
            self.reason = reason or "its process ended"
            opened = self._open() if not self.standing else []  # at once: every moment without it is "no responders"
            return [*opened, *self._bury(now, BURIAL_S)]
        if self.state == "waking" and not self.run and id_ == self.id:
            self.reason = reason or "its process ended before it was awake"
            self.lapsed = True
            return [Read()]  # it may have claimed, or lost the claim to another
        return []

    def beaten(self, beat: Beat, now: float) -> None:
        """A heartbeat."""
        if beat.run == self.run:
            self.beat = beat
            self.last_beat = now
            if beat.answered:
                self.crashes = 0

    # -- what was wanted is done -------------------------------------------------------------------------------------

    def proven(self, generation: int, now: float) -> list[Effect]:
        """The server has taken the stand-in's subscription, or its end."""
        if generation != self.generation:
            return []
        if self.state == "handover":
            self.state = "active"
            self.reason = "awake"
            return [self._record("active", state="active")]
        self.opened = True
        if self.state == "draining" and self.phase == "opening":
            return self._drain(now)
        if self.state == "adopting" and self.phase == "opening":
            return self._ask_to_stay(now)
        return []

    def swapped(self, purpose: str, revision: int | None, now: float) -> list[Effect]:
        """The compare-and-set is done; None: somebody else has changed the record."""
        if revision is None:
            return [Read()]
        self.revision = revision
        if purpose == "release":
            return self._released(now)
        if purpose == "void":
            return self._voided(now)
        return []

    def read(self, record: ActorRecord | None, revision: int, now: float) -> list[Effect]:
        """The record as it stands: a claim that was not heard of, a new madre, or nothing new."""
        if record and record.epoch > self.epoch:
            return [StepDown(record.epoch)]
        self.revision = revision
        owner = record.owner if record else ""
        if self.phase == "burying":
            return [self._release()]
        if self.state == "waking" and not self.run:
            if owner and record:
                return self._adopt(record, now)
            over = self.lapsed or now >= self.limit_at
            return [self._record("void", owner="", state="waking")] if over else []
        if self.state in ("handover", "active", "draining", "adopting") and owner != self.run:
            return self._bury(now, 0.0)
        return []

    # -- orders of the operator --------------------------------------------------------------------------------------

    def wake(self, now: float, reason: str) -> list[Effect]:
        if self.state in ("dormant", "failed"):
            return self._wake(now, reason)
        if self.state == "draining" and self.recall:
            if self.phase == "opening":
                return self._hand_over(now)
            return self._call_back(now) if self.phase == "drain" else []
        self.wanted = self.wanted or self.state in ("draining", "adopting")
        return []

    def sleep(self, reason: str, *, recall: bool = True) -> list[Effect]:
        """Begin to drain; only an active instance can. `recall=False`: requests wait for its successor."""
        if self.state != "active":
            return []
        self.state, self.phase, self.recall, self.reason = "draining", "opening", recall, reason
        return self._open()

    # -- time --------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Effect]:
        """Repeat what is unanswered, give up what has lasted too long, answer what is too old."""
        done = self._expire(now)
        if self.state == "waking":
            return done + self._tick_waking(now)
        if self.state == "failed" and now >= self.limit_at:
            self.state, self.reason = "dormant", "asleep after a failure"
        if self.phase == "burying":
            return done + ([self._release()] if now >= self.limit_at else [])
        if self.state in ("handover", "active", "draining"):
            done += [self._forward(held, now) for held in list(self.forwarded.values()) if now - held.sent_at >= REPEAT_S]
            if now - self.last_beat > BEATS_MISSED_S:
                return done + self._frozen(now)
        if self.phase in ("drain", "staying") and now >= self.repeat_at:
            self.repeat_at = now + REPEAT_S
            done.append(self._order("drain" if self.phase == "drain" else "stay"))
        if self.phase in ("drain", "staying", "opening") and self.state in ("adopting", "draining") and now >= self.look_at:
            self.look_at = now + LOOK_S
            done.append(self._ask_host(kill=self.state == "adopting" and now - self.last_beat > BEATS_MISSED_S))
        return done

    def reconnected(self, now: float) -> list[Effect]:
        """The server was away: what was awake must prove itself again, what was asked must be asked again (8)."""
        if self.phase == "burying":
            return self._open()
        if self.state in ("active", "handover", "draining", "adopting"):
            self.state, self.phase = "adopting", "opening"
            self.last_beat, self.look_at = now, now + LOOK_S
            return self._open()
        if self.state == "waking":
            self.look_at = now
            return self._open()
        return []

    def adopt(self, record: ActorRecord, revision: int, now: float) -> list[Effect]:
        """A new madre takes the actor over; the epoch has been raised by her already."""
        self.epoch, self.revision = record.epoch, revision
        self.wakes, self.last_wake_ms = record.wakes, record.last_wake_ms
        if record.owner:
            return self._adopt(record, now)
        self.state, self.phase = "dormant", ""
        self.reason = record.reason or "asleep"
        return self._open()

    def late(self, now: float) -> list[Effect]:
        """The loop stood still: nobody's silence counts, and another madre may have taken over (8)."""
        self.last_beat = now
        return [] if self.quiet else [Read()]

    def ask_host(self) -> list[Effect]:
        """A host was started anew: an instance of its last life may be gone."""
        return [self._ask_host()] if self.run else []

    # -- moves -------------------------------------------------------------------------------------------------------

    def _wake(self, now: float, reason: str) -> list[Effect]:
        self.counter += 1
        self.state, self.phase, self.run, self.wanted, self.lapsed = "waking", "", "", False, False
        self.id = f"{self.name}-{self.epoch}-{self.counter}"
        self.reason = reason
        self.asked_at, self.repeat_at, self.limit_at, self.look_at = now, now + REPEAT_S, now + GIVE_UP_S, now + LOOK_S
        opened = [] if self.standing else self._open()
        return [*opened, Activate(self.id, self.revision, self.epoch, reason)]

    def _tick_waking(self, now: float) -> list[Effect]:
        if now >= self.limit_at or now >= self.look_at:
            self.look_at = now + LOOK_S
            return [Read()]  # claimed, and `active` was lost; or nobody can
        if now >= self.repeat_at:
            self.repeat_at = now + REPEAT_S
            return [Activate(self.id, self.revision, self.epoch, self.reason)]
        return []

    def _voided(self, now: float) -> list[Effect]:
        """The activation can no longer be claimed (2)."""
        if self.lapsed:
            self.crashes += 1
            if self.crashes <= CRASHES_FREE and (self.held or self.wanted):
                return self._wake(now, "again: " + self.reason)
            return self._fail(now)
        self.reason = f"nobody started it within {GIVE_UP_S:g} s"
        return self._fail(now)

    def _fail(self, now: float) -> list[Effect]:
        self.crashes += 1
        pause = min(BACKOFF_FIRST_S * 2.0 ** max(0, self.crashes - CRASHES_FREE), BACKOFF_MOST_S)
        self.state, self.phase, self.run, self.id, self.wanted = "failed", "", "", "", False
        self.limit_at = now + pause
        told = f"{self.name} cannot be woken: {self.reason}"
        answers: list[Effect] = [Answer(held, "unavailable", told, pause) for held in self.held.take_all()]
        return [*answers, Tell("failed", self.reason, pause), self._record("failed", state="failed", owner="")]

    def _hand_over(self, now: float) -> list[Effect]:
        self.state, self.phase, self.recall, self.wanted = "handover", "", True, False
        forwards: list[Effect] = [self._forward(held, now) for held in self.held.take_all()]
        self.standing = False
        self.generation += 1
        return [*forwards, Close(self.generation)]

    def _drain(self, now: float) -> list[Effect]:
        if self.forwarded and not self.recall:
            return []  # they are repeated; the last acknowledgement brings it back here
        if self.recall and (self.held or self.forwarded):
            return self._hand_over(now)
        self.phase, self.repeat_at, self.look_at = "drain", now + REPEAT_S, now + LOOK_S
        return [self._order("drain"), Tell("draining", self.reason)]

    def _call_back(self, now: float) -> list[Effect]:
        self.stay += 1
        self.phase, self.repeat_at = "staying", now + REPEAT_S
        return [self._order("stay")]

    def _ask_to_stay(self, now: float) -> list[Effect]:
        self.look_at = now + LOOK_S
        return [*self._call_back(now), self._ask_host()]

    def _adopt(self, record: ActorRecord, now: float) -> list[Effect]:
        """The record has an owner that this madre has not heard: exactly waking with a known owner (8)."""
        self.state, self.phase = "adopting", "opening"
        self.id, self.run = record.instance, record.owner
        self.host, self.pid, self.born = record.host, record.pid, record.born
        self.last_beat, self.look_at, self.reason = now, now + LOOK_S, "found awake"
        return self._open()

    def _frozen(self, now: float) -> list[Effect]:
        self.state, self.phase, self.reason = "adopting", "opening", "no heartbeat"
        self.look_at = now + LOOK_S
        return [*self._open(), self._ask_host(kill=True)]

    def _bury(self, now: float, after: float) -> list[Effect]:
        self.state, self.phase, self.limit_at = "adopting", "burying", now + after
        return [] if after else [self._release()]

    def _release(self) -> Swap:
        state = "dormant"
        return self._record("release", owner="", instance="", host="", pid=0, state=state)

    def _released(self, now: float) -> list[Effect]:
        """Nobody owns the actor any more: settle what the instance had, then sleep or wake the next one (5, 7)."""
        done: list[Effect] = []
        for held in self.forwarded.values():
            done += self._unforward(held)
        self.forwarded.clear()
        self.crashes = 0 if self.clean else self.crashes + 1
        clean, self.clean = self.clean, True
        self.state, self.phase, self.run, self.id, self.recall = "dormant", "", "", "", True
        self.beat = Beat("")
        if not clean and self.crashes > CRASHES_FREE:
            self.crashes -= 1  # `_fail` counts it
            return done + self._fail(now)
        self.reason = "asleep" if clean else f"asleep: {self.reason}"
        if self.held or self.wanted:
            return done + self._wake(now, "requests wait" if self.held else "asked to wake")
        return done

    def _unforward(self, held: Held) -> list[Effect]:
        if self.clean:
            self.held.add(held)
            return []
        held.kills += 1
        if held.kills >= KILLS_MOST:
            return [
                Bury(held),
                Answer(held, "crashed", f"{held.kills} instances of {self.name} died with this request"),
            ]
        if held.idempotent:
            self.held.add(held)
            return []
        self.held.drop_copies(held)
        return [Answer(held, "crashed", f"the instance of {self.name} died; it may have begun this request")]

    # -- small parts -------------------------------------------------------------------------------------------------

    def _expire(self, now: float) -> list[Effect]:
        told = f"{self.name} is still waking: {self.reason}"
        return [Answer(held, "waking", told, 1.0) for held in self.held.take_expired(now)]

    def _forward(self, held: Held, now: float) -> Forward:
        held.sent_at = now
        self.forwarded[held.n] = held
        return Forward(held, self.run)

    def _open(self) -> list[Effect]:
        self.standing, self.opened = True, False
        self.generation += 1
        return [Open(self.generation)]

    def _order(self, verb: str) -> Order:
        return Order(verb, self.run, self.id, self.epoch, self.stay)

    def _ask_host(self, *, kill: bool = False) -> AskHost:
        return AskHost(self.run, self.id, self.host, self.pid, self.born, kill)

    def _record(self, purpose: str, **changes: object) -> Swap:
        return Swap(purpose, changes)
