"""Who acts in the small world around the power machine: requests, and madre's driver with the real machine in it.

It follows what `actors/madre/machine.py` and `standin.py` do, step by step, in one thread and without a clock of its own.
What is sent goes into `out`, in order; the server takes it from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.madre import effects as do
from actors.madre.effects import Effect, Held
from actors.madre.forwards import Forwards
from actors.madre.hold import Hold
from actors.madre.power import Power
from schemas.power import ActorRecord

HELD_S = 1e6
"""Requests here have all the time: what would only be ended by its deadline is a request that was forgotten."""
NAME = "echo"
NOW = 1_000.0


class Part:
    """Something with a connection. `out`: not yet taken by the server; `inn`: sent by the server, not yet read.

    Every field is a value that is replaced and never changed, so that a copy is cheap.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.out: tuple[Any, ...] = ()
        self.inn: tuple[Any, ...] = ()
        self.alive = self.connected = True
        self.frozen = False
        self.token = 0
        """The barrier whose echo is waited for."""
        self.tokens = 0

    def copy(self) -> Any:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def say(self, *message: Any) -> None:
        self.out = (*self.out, message)

    def barrier(self) -> None:
        self.tokens += 1
        self.token = self.tokens
        self.say("echo", self.token)

    def die(self, *, keep: bool) -> None:
        """The process is gone; `keep`: what it had written reaches the server all the same."""
        self.alive = self.frozen = False
        self.token = 0
        self.inn = ()
        self.out = (*(self.out if keep else ()), ("fin",)) if self.connected else ()


@dataclass
class Ask:
    """One request and its caller. `stock`: the caller asks once and knows nothing of VX11."""

    r: int
    idempotent: bool = False
    stock: bool = False
    owner: str = ""
    """The instance whose handler asks, or empty."""
    status: str = "new"
    sent: int = 0
    """When it was first sent; moments are counted."""
    again: str = ""
    """`1`: an instance may have begun it; `held`: only madre was lost meanwhile."""
    marked: bool = False
    """It will be asked again: an instance died, a new madre came, the connection was lost."""
    crashes: int = 0
    outcome: str = ""
    handled: int = 0
    answered: int = 0

    def copy(self) -> Ask:
        new = object.__new__(Ask)
        new.__dict__.update(self.__dict__)
        return new

    def settle(self, outcome: str) -> None:
        if self.status != "done":
            self.status, self.outcome, self.marked = "done", outcome, False


class Madre(Part):
    """The driver of one power machine: its stand-in's turns, its store operations, its last will."""

    def __init__(self, name: str, epoch: int, revision: int) -> None:
        super().__init__(name)
        self.epoch = epoch
        self.power = Power(NAME, epoch=epoch, revision=revision)
        self.storing: Any = None
        self.turns: tuple[Any, ...] = ()
        self.sub = ""
        """The stand-in's subscription: empty, `sub`, or `leaving`."""
        self.stale = False
        self.late = False
        self.now = NOW
        self.announced = 0
        """The moment at which she said that she has come: what was sent before is asked again."""
        self.left: tuple[Held, ...] = ()
        """Requests that were taken after she had stepped down."""
        self.lost: tuple[int, ...] = ()
        self.buried = 0

    def copy(self) -> Madre:
        new: Madre = super().copy()
        new.power = copied(self.power)
        return new

    def move(self, move: Callable[[], list[Effect]]) -> None:
        for effect in move():
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case do.Forward(held, run):
                self.say("fwd", run, held.n, int(held.verb), held.headers["again"], self.name)
            case do.Answer(held, code):
                self.say("answer", int(held.verb), code)
            case do.Open(generation):
                self.turns = (*self.turns, ("open", generation))
                self.turn()
            case do.Close(generation):
                self.turns = (*self.turns, ("close", generation))
                self.turn()
            case do.Activate(id_, revision, epoch):
                self.say("activate", id_, revision, epoch)
            case do.Order(verb, run, _, epoch, stay):
                self.say("order", verb, run, epoch, stay)
            case do.Swap(purpose, changes):
                assert self.storing is None, "a second store operation while the first is under way"
                self.storing = ("swap", purpose, self.power.revision, self._written(changes))
            case do.Read():
                assert self.storing is None, "a second store operation while the first is under way"
                self.storing = ("look",)
            case do.AskHost(run, id_, host, _, _, kill):
                self.say("askhost", run, id_, host, kill)
            case do.Bury():
                self.buried += 1
            case do.StepDown():
                self.step_down()

    def _written(self, changes: Any) -> dict[str, Any]:
        power = self.power
        made = {"state": power.state, "epoch": power.epoch, "owner": power.run}
        made |= {"instance": power.id if power.run else "", "host": power.host if power.run else ""}
        return {**made, **{k: v for k, v in changes.items() if k in made}}

    # -- the stand-in -------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Begin the next turn of the stand-in, one after the other."""
        while self.turns and not self.token:
            kind, generation = self.turns[0]
            if kind == "open" and not self.sub:
                self.sub = "sub"
                self.say("sub", "shared")
            elif kind == "close" and self.sub == "sub":
                self.sub = "leaving"
                self.say("unsub", "shared")
            elif kind == "close":
                self.turns = self.turns[1:]
                self.move(lambda g=generation: self.power.proven(g, self.now))  # type: ignore[misc]
                continue
            self.barrier()

    def echoed(self) -> None:
        self.token = 0
        (kind, generation), self.turns = self.turns[0], self.turns[1:]
        if kind == "close":
            self.sub = ""
        if not self.stale:
            self.move(lambda: self.power.proven(generation, self.now))
            self.turn()
        elif self.turns:
            self.turn()
        elif kind == "close":
            self._give_back()
        else:
            self.turns = (("close", 0),)
            self.turn()

    def step_down(self) -> None:
        self.stale, self.storing = True, None
        if not self.turns:
            if self.sub:
                self.turns = (("close", 0),)
                self.turn()
            else:
                self._give_back()

    def _give_back(self) -> None:
        """Say again what is held, then end. Without a connection it ends with her."""
        for held in [*self.power.held, *self.power.forwarded]:
            self.say("req", int(held.verb), "1" if held.sent_at or held.headers["sent"] else held.headers["again"])
        for held in self.left:
            self.say("req", int(held.verb), "1" if held.headers["sent"] else held.headers["again"])
        self.lost = () if self.connected else tuple(m[1] for m in self.out if m[0] == "req")
        self.power.held, self.power.forwarded, self.left = Hold(), Forwards(), ()
        self.die(keep=True)

    # -- what she hears -----------------------------------------------------------------------------------------------

    def hear(self, message: Any, asks: list[Ask]) -> None:
        kind, *told = message
        power, now = self.power, self.now
        if kind == "echo":
            if told[0] == self.token:
                self.echoed()
        elif kind == "req":
            held = self._held(asks[told[0]], *told[1:3])
            if self.stale:
                self.left = (*self.left, held)
            else:
                self.move(lambda: power.knock(held, now, allowed=told[3]))
        elif self.stale:
            return
        elif kind == "ack":
            self.move(lambda: power.acked(told[0], now))
        elif kind == "active":
            self._heard_active(*told)
        elif kind == "slept":
            self.move(lambda: power.slept(told[0], now))
        elif kind == "exited":
            self.move(lambda: power.exited(*told[:2], now, clean=told[2]))
        elif kind == "reconnected":
            self.move(lambda: power.reconnected(now))
        elif kind == "registered":
            self.move(power.ask_host)

    def _held(self, ask: Ask, again: str, nested: bool) -> Held:
        """A request that was sent before she came is marked: its caller may have asked again."""
        if not again and not ask.stock and ask.sent <= self.announced:
            again = "held"
        headers = {"again": again, "sent": "" if ask.stock else "1"}
        id_ = f"r{ask.r}"
        return Held(str(ask.r), id_, b"", headers, self.now + HELD_S, self.now, id_, ask.idempotent, bool(again), nested)

    def _heard_active(self, id_: str, run: str, revision: int, epoch: int, stay: int, host: str) -> None:
        def move() -> list[Effect]:
            done = self.power.active(id_, run, self.now, revision=revision, epoch=epoch, stay=stay)
            if done:
                self.power.host = host
            return done

        self.move(move)


def copied(power: Power) -> Power:
    new = Power.__new__(Power)
    new.__dict__.update(power.__dict__)
    new.held = Hold()
    for held in power.held:
        new.held.add(_held(held))
    new.forwarded = Forwards()
    for held in power.forwarded:
        new.forwarded.add(_held(held), held.sent_at)
    return new


def _held(h: Held) -> Held:
    return Held(
        h.verb, h.reply, h.body, h.headers, h.expires, h.arrived, h.request_id,
        h.idempotent, h.again, h.nested, h.kills, h.sent_at, h.n,
    )  # fmt: skip


def record_of(written: dict[str, Any]) -> ActorRecord:
    return ActorRecord.model_construct(actor=NAME, **written)
