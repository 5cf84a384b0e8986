"""The power machine of one actor: what happened and when goes in, what is to be done comes out. No await, no clock.

The rules and the counterexample that each one answers are those of the model-checked protocol; the numbers in comments
are its rules. One method is one move; while a `Swap` or `Read` is under way its driver makes no other move.
"""

from __future__ import annotations

from actors.madre import effects as do
from actors.madre.effects import Beat, Effect, Held
from actors.madre.forwards import Forwards
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
OPENING_S = 60.0
"""An instance that has claimed may be silent for so long more: it opens its resources, a model for instance."""
BACKOFF_FIRST_S = 1.0
BACKOFF_MOST_S = 60.0
BACKOFF_DOUBLINGS_MOST = 6
DENIED_AGAIN_S = 10.0
"""A denial is an event once in so long: a client that insists would fill the log with them."""
CRASHES_FREE = 2
"""So many crashes in a row, without one answered request between them, are answered by waking again at once."""
NOBODY_STARTED, SILENT = "nobody started it", "no heartbeat"

OWNED: tuple[State, ...] = ("adopting", "handover", "active", "draining")


class Power:
    """State of one actor. Everything is kept in plain fields so that a test can copy and compare it."""

    def __init__(self, name: str, *, epoch: int = 0, revision: int = 0) -> None:
        self.name = name
        self.state: State = "dormant"
        self.epoch, self.revision = epoch, revision
        self.id = self.run = ""
        self.host, self.pid, self.born, self.stay = "", 0, 0.0, 0
        self.phase = ""
        """Inside draining: opening, drain, staying. Inside adopting: opening, staying, burying."""
        self.recall = True
        """A request that arrives while draining calls the instance back; not when it is to be replaced."""
        self.clean = True
        """The instance that is being buried has left by itself."""
        self.wanted = False
        """Somebody other than a held request wants the actor awake: an operator, a window, an event."""
        self.reason = "not started yet"
        self.held = Hold()
        self.forwarded = Forwards()
        self.standing = self.opened = False
        """The stand-in has been told to subscribe; and that it has is proven."""
        self.lapsed = self.fresh = False
        """The process of this activation died before it had claimed; no instance of it has been awake yet."""
        self.generation = self.counter = self.wakes = self.crashes = 0
        self.last_wake_ms: float | None = None
        self.asked_at = self.repeat_at = self.look_at = self.last_beat = self.denied_at = 0.0
        self.limit_at = 0.0
        """When waking is given up, a burial is due, or the backoff ends."""
        self.beat = Beat("")

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
        if now >= held.deadline:
            return [do.Answer(held, "timeout", f"the deadline had passed when the request for {self.name} was received")]
        if not allowed and self.state != "adopting":
            return self._deny(held, now)
        if self.state == "failed":
            return [do.Answer(held, "unavailable", f"{self.name} cannot be woken: {self.reason}", max(0.0, self.limit_at - now))]
        if not self.held.add(held):
            return [do.Answer(held, "busy", f"{len(self.held)} requests already wait for {self.name} to wake", 1.0)]
        if self.state == "dormant":
            return self._wake(now, f"a request for {held.verb}")
        if self.state == "draining" and self.phase == "drain" and (self.recall or held.nested):
            return self._call_back(now)
        return []

    def _deny(self, held: Held, now: float) -> list[Effect]:
        answer, told = do.Answer(held, "off_by_policy", self.reason_denied()), now - self.denied_at < DENIED_AGAIN_S
        self.denied_at = self.denied_at if told else now
        return [answer] if told else [answer, do.Tell("denied", self.reason_denied(), held=held)]

    def reason_denied(self) -> str:
        return f"{self.name} may not wake now: its gate or the policy forbids it"

    def acked(self, n: int, now: float) -> list[Effect]:
        """The instance has taken a forwarded request; a drain that waited for the last one goes on."""
        self.forwarded.acked(n)
        waits = self.state == "draining" and self.phase == "opening" and self.opened and not self.forwarded
        return self._drain(now) if waits else []

    # -- what instances and hosts say --------------------------------------------------------------------------------

    def active(self, id_: str, run: str, now: float, *, revision: int = 0, epoch: int = 0, stay: int = 0) -> list[Effect]:
        """An instance says that it is subscribed and proven. Several may have started; the claim let one of them speak."""
        first = self.state == "waking" and id_ == self.id
        newest = run == self.run and stay == self.stay and epoch == self.epoch and self.phase == "staying"
        if not first and not newest:
            return []
        self.run = run
        self.revision = max(self.revision, revision)
        self.last_beat = now
        return self._hand_over(now)

    def slept(self, run: str, now: float) -> list[Effect]:
        """The instance has left by itself with empty hands."""
        return self._bury(now, clean=True) if self._lives(run) else []

    def exited(self, id_: str, run: str, now: float, reason: str = "", *, clean: bool = False) -> list[Effect]:
        """The parent of the process says that it is gone. `clean`: it has left by itself, and `slept` was not heard."""
        if self._lives(run):
            self.reason = self.reason if clean else reason or "its process ended"
            return self._bury(now, clean=clean)
        if self.state == "waking" and id_ == self.id:
            self.reason = reason or "its process ended before it was awake"
            self.lapsed = True
            return [do.Read()]  # it may have claimed, or lost the claim to another
        return []

    def beaten(self, beat: Beat, now: float) -> None:
        """A heartbeat."""
        if beat.run == self.run:
            self.beat = beat
            self.last_beat = max(now, self.last_beat)
            self.crashes = 0 if beat.answered else self.crashes

    # -- what was wanted is done -------------------------------------------------------------------------------------

    def proven(self, generation: int, now: float) -> list[Effect]:
        """The server has taken the stand-in's subscription, or its end."""
        if generation != self.generation:
            return []
        if self.state == "handover":
            self.state = "active"
            self.reason = "awake"
            return [self._record("active")]
        self.opened = True
        if self.phase == "opening":
            return self._drain(now) if self.state == "draining" else self._ask_to_stay(now)
        return []

    def swapped(self, purpose: str, revision: int | None, now: float) -> list[Effect]:
        """The compare-and-set is done; None: somebody else has changed the record."""
        if revision is None:
            return [do.Read()]
        self.revision = revision
        if purpose == "release":
            return self._released(now)
        if purpose == "void":
            return self._voided(now)
        return []

    def read(self, record: ActorRecord | None, revision: int, now: float) -> list[Effect]:
        """The record as it stands: a claim that was not heard of, a new madre, somebody's own hand, or nothing new."""
        if record and record.epoch > self.epoch:
            return [do.StepDown(record.epoch)]
        self.revision = revision
        owner = record.owner if record else ""
        if self.phase == "burying":
            return [self._release()]
        if self.state in OWNED:
            return [] if owner == self.run else [self._record("mend")]
        if owner and record:
            return self._adopt(record, now)
        over = self.state == "waking" and (self.lapsed or now >= self.limit_at)
        return [self._record("void", state="dormant")] if over else []

    # -- orders ------------------------------------------------------------------------------------------------------

    def wake(self, now: float, reason: str) -> list[Effect]:
        """Whoever asks for this without sending a request: an operator, a window, the policy, an event that waits."""
        if self.state in ("handover", "active"):
            return []
        self.wanted = True
        if self.state in ("dormant", "failed"):
            return self._wake(now, reason)
        if self.state == "draining" and self.recall and self.phase != "staying":
            return self._hand_over(now) if self.phase == "opening" else self._call_back(now)
        return []

    def sleep(self, reason: str, *, recall: bool = True) -> list[Effect]:
        """Begin to drain; only an active instance can. `recall=False`: requests wait for its successor."""
        if self.state != "active":
            return []
        self.state, self.phase, self.recall, self.reason = "draining", "opening", recall, reason
        return self._open()

    def note(self) -> list[Effect]:
        """Write the record because something beside the state has changed; never under a claim that is on its way."""
        return [] if self.state == "waking" else [self._record("note")]

    def ask_host(self) -> list[Effect]:
        """A host was started anew: an instance of its last life may be gone."""
        return [self._ask_host()] if self.run else []

    # -- time --------------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> list[Effect]:
        """Answer what is too old to be held. The one move that may be made while the record is written or read."""
        told = f"{self.name} is still waking: {self.reason}"
        return [do.Answer(held, "waking", told, 1.0) for held in self.held.take_expired(now)]

    def tick(self, now: float) -> list[Effect]:
        """Repeat what is unanswered, give up what has lasted too long, answer what is too old."""
        done = self.expire(now)
        if self.state == "waking":
            return done + self._tick_waking(now)
        if self.state == "failed":
            return done + (self._rested() if now >= self.limit_at else [])
        if self.phase == "burying":
            return done + ([self._release()] if now >= self.limit_at else [])
        if self.state in ("handover", "active", "draining"):
            done += [self._forward(held, now) for held in self.forwarded.overdue(now, REPEAT_S)]
            if now - self.last_beat > BEATS_MISSED_S:
                return done + self._frozen(now)
        if self.phase in ("drain", "staying") and now >= self.repeat_at:
            self.repeat_at = now + REPEAT_S
            done.append(self._order("drain" if self.phase == "drain" else "stay"))
        if self.phase and now >= self.look_at:
            self.look_at = now + LOOK_S
            done.append(self._ask_host(kill=self.state == "adopting" and now - self.last_beat > BEATS_MISSED_S))
        return done

    def reconnected(self, now: float) -> list[Effect]:
        """The server was away: what was awake must prove itself again, what was asked must be asked again (8)."""
        if self.state == "waking":
            self.look_at = now
            return self._open()
        if self.state not in OWNED:
            return []
        if self.phase != "burying":
            self.state, self.phase = "adopting", "opening"
            self.last_beat, self.look_at = max(now, self.last_beat), now + LOOK_S
        return self._open()

    def adopt(self, record: ActorRecord, revision: int, now: float) -> list[Effect]:
        """A new madre takes the actor over; the epoch has been raised by her already."""
        self.epoch, self.revision = record.epoch, revision
        self.wakes, self.last_wake_ms = record.wakes, record.last_wake_ms
        if record.owner:
            return self._adopt(record, now)
        self.reason = record.reason or "asleep"
        return self._open()

    def late(self, now: float) -> list[Effect]:
        """The loop stood still: nobody's silence counts, and another madre may have taken over (8)."""
        self.last_beat = max(now, self.last_beat)
        return [] if self.quiet else [do.Read()]

    # -- moves -------------------------------------------------------------------------------------------------------

    def _wake(self, now: float, reason: str) -> list[Effect]:
        self.counter += 1
        self.state, self.phase, self.run, self.lapsed, self.fresh = "waking", "", "", False, True
        self.id = f"{self.name}-{self.epoch}-{self.counter}"
        self.reason = reason
        self.asked_at, self.repeat_at, self.limit_at, self.look_at = now, now + REPEAT_S, now + GIVE_UP_S, now + LOOK_S
        return [do.Activate(self.id, self.revision, self.epoch, reason)]

    def _tick_waking(self, now: float) -> list[Effect]:
        if now >= self.limit_at or now >= self.look_at:
            self.look_at = now + LOOK_S
            return [do.Read()]  # claimed, and `active` was lost; or nobody can
        if now >= self.repeat_at:
            self.repeat_at = now + REPEAT_S
            return [do.Activate(self.id, self.revision, self.epoch, self.reason)]
        return []

    def _voided(self, now: float) -> list[Effect]:
        """The activation can no longer be claimed (2)."""
        self.crashes += 1
        if self.lapsed:
            return self._rest(now)
        self.reason = f"{NOBODY_STARTED} within {GIVE_UP_S:g} s"
        return self._fail(now)

    def _fail(self, now: float) -> list[Effect]:
        doublings = min(max(0, self.crashes - CRASHES_FREE - 1), BACKOFF_DOUBLINGS_MOST)
        pause = min(BACKOFF_FIRST_S * 2**doublings, BACKOFF_MOST_S)
        self.state, self.id, self.wanted, self.limit_at = "failed", "", False, now + pause
        told = f"{self.name} cannot be woken: {self.reason}"
        answers: list[Effect] = [do.Answer(held, "unavailable", told, pause) for held in self.held.take_all()]
        return [*answers, do.Tell("failed", self.reason, pause), self._record("failed")]

    def _rested(self) -> list[Effect]:
        self.state, self.reason = "dormant", f"asleep after a failure: {self.reason}"
        return [self._record("rested")]

    def _hand_over(self, now: float) -> list[Effect]:
        if self.fresh:
            self.wakes += 1
            self.last_wake_ms = round((now - self.asked_at) * 1000, 2)
        self.state, self.phase, self.wanted, self.fresh = "handover", "", False, False
        forwards: list[Effect] = [self._forward(held, now) for held in self.held.take_all()]
        self.standing = self.opened = False
        self.generation += 1
        return [*forwards, do.Close(self.generation)]

    def _drain(self, now: float) -> list[Effect]:
        """The stand-in is proven: send the order, unless somebody needs this instance, or it has yet to take something."""
        if (self.recall and (self.held or self.forwarded)) or any(held.nested for held in self.held):
            return self._hand_over(now)
        if self.forwarded:
            return []  # they are repeated; the last acknowledgement brings it back here
        self.phase, self.repeat_at, self.look_at = "drain", now + REPEAT_S, now + LOOK_S
        return [self._order("drain"), do.Tell("draining", self.reason)]

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
        claimed = record.state == "waking"
        self.reason = "it has claimed and is not yet awake" if claimed else "found awake"
        self.last_beat, self.look_at = now + (OPENING_S if claimed else 0.0), now + LOOK_S
        return self._open()

    def _frozen(self, now: float) -> list[Effect]:
        self.state, self.phase, self.reason = "adopting", "opening", SILENT
        self.look_at = now + LOOK_S
        return [*self._open(), self._ask_host(kill=True)]

    def _lives(self, run: str) -> bool:
        """This run is the owner, and its end has not been heard of yet."""
        return bool(run) and run == self.run and self.state in OWNED and self.phase != "burying"

    def _bury(self, now: float, *, clean: bool) -> list[Effect]:
        """Stand in at once: every moment without it is "no responders"."""
        opened = [] if self.standing else self._open()
        self.clean = clean
        self.state, self.phase, self.limit_at = "adopting", "burying", now + BURIAL_S
        return [*opened, self._release()] if clean else opened

    def _release(self) -> do.Swap:
        return self._record("release", owner="", instance="", host="", pid=0, born=0.0, card_version="", state="dormant")

    def _released(self, now: float) -> list[Effect]:
        """Nobody owns the actor any more: settle what the instance had, then sleep or wake the next one (5, 7)."""
        settled = self.forwarded.settle(self.held, self.name)
        self.crashes = 0 if self.clean else self.crashes + 1
        self.run, self.beat = "", Beat("")
        return settled + self._rest(now)

    def _rest(self, now: float) -> list[Effect]:
        """Nobody has claimed the actor, and nobody can."""
        self.state, self.phase, self.run, self.id = "dormant", "", "", ""
        if self.crashes > CRASHES_FREE:
            return self._fail(now)
        if self.held or self.wanted:
            return self._wake(now, "requests wait" if self.held else "asked to wake")
        self.reason = f"asleep: {self.reason}" if self.crashes else "asleep"
        return []

    # -- small parts -------------------------------------------------------------------------------------------------

    def _forward(self, held: Held, now: float) -> do.Forward:
        self.forwarded.add(held, now)
        return do.Forward(held, self.run)

    def _open(self) -> list[Effect]:
        self.standing, self.opened = True, False
        self.generation += 1
        return [do.Open(self.generation)]

    def _order(self, verb: str) -> do.Order:
        return do.Order(verb, self.run, self.id, self.epoch, self.stay)

    def _ask_host(self, *, kill: bool = False) -> do.AskHost:
        return do.AskHost(self.run, self.id, self.host, self.pid, self.born, kill)

    def _record(self, purpose: str, **changes: object) -> do.Swap:
        return do.Swap(purpose, changes)
