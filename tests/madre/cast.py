"""Who acts in the small world around the power machine: madre's driver, instances, hosts and requests, as plain values.

They follow what `actors/madre/machine.py`, `bus/instance.py`, `bus/responder.py` and `bus/asking.py` do, step by step, in
one thread and without a clock of their own. What they send goes into `out`, in order; the server takes it from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.madre import effects as do
from actors.madre.effects import Effect, Held
from actors.madre.hold import Hold
from actors.madre.power import Power
from schemas.power import ActorRecord

HELD_S = 4.5
NAME = "echo"


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
    again: bool = False
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
        self.power = Power(NAME, epoch=epoch, revision=revision)
        self.storing: Any = None
        self.turns: tuple[Any, ...] = ()
        self.sub = ""
        """The stand-in's subscription: empty, `sub` or `leaving`."""
        self.stale = False
        self.late = False
        self.left: tuple[Any, ...] = ()
        """Requests that were taken after she had stepped down."""
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
                self.say("fwd", run, held.n, int(held.verb), held.again, self.name)
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
                self.move(lambda g=generation: self.power.proven(g, NOW))  # type: ignore[misc]
                continue
            self.barrier()

    def echoed(self, now: float) -> None:
        self.token = 0
        (kind, generation), self.turns = self.turns[0], self.turns[1:]
        if kind == "close":
            self.sub = ""
        if not self.stale:
            self.move(lambda: self.power.proven(generation, now))
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
        for held in [*self.power.held, *self.power.forwarded.values()]:
            self.say("req", int(held.verb), held.again or bool(held.sent_at))
        for r, again in self.left:
            self.say("req", r, again)
        self.power.held, self.power.forwarded, self.left = Hold(), {}, ()
        self.die(keep=True)

    # -- what she hears -----------------------------------------------------------------------------------------------

    def hear(self, message: Any, asks: list[Ask], now: float) -> None:
        kind, *told = message
        power = self.power
        if kind == "echo":
            if told[0] == self.token:
                self.echoed(now)
        elif kind == "req":
            r, again, nested, allowed = told
            if self.stale:
                self.left = (*self.left, (r, again))
                return
            held = Held(str(r), f"r{r}", b"", {}, now + HELD_S, now, f"r{r}", asks[r].idempotent, again, nested)
            self.move(lambda: power.knock(held, now, allowed=allowed))
        elif self.stale:
            return
        elif kind == "ack":
            self.move(lambda: power.acked(told[0], now))
        elif kind == "active":
            self._heard_active(*told, now)
        elif kind == "slept":
            self.move(lambda: power.slept(told[0], now))
        elif kind == "exited":
            self.move(lambda: power.exited(*told[:2], now, clean=told[2]))
        elif kind == "reconnected":
            self.move(lambda: power.reconnected(now))
        elif kind == "registered":
            self.move(power.ask_host)

    def _heard_active(self, id_: str, run: str, revision: int, epoch: int, stay: int, host: str, now: float) -> None:
        def move() -> list[Effect]:
            done = self.power.active(id_, run, now, revision=revision, epoch=epoch, stay=stay)
            if done:
                self.power.host = host
            return done

        self.move(move)


class Instance(Part):
    """One process of the actor, from its fork to its exit. `phase`:

    `born` before the claim; `proving` its first barrier; `idle` waits for orders; `returning` has been called back;
    `leaving` the shared subject; `finishing` its work; `left`: leaves the private subject; `closing` its resources.
    """

    def __init__(self, name: str, id_: str, revision: int, epoch: int, host: int) -> None:
        super().__init__(name)
        self.id, self.revision, self.epoch, self.host = id_, revision, epoch, host
        self.phase = "born"
        self.stay = self.asked = 0
        """The newest number of a `stay`, and that which is being answered."""
        self.want = "serve"
        self.orders = self.shared = self.private = False
        self.work: tuple[int, ...] = ()
        """Requests whose handler runs."""
        self.known: dict[int, str] = {}
        """The reply cache: `runs`, or the code that was answered."""
        self.answered = False

    def claimed(self, revision: int) -> None:
        self.revision = revision
        self.private = self.shared = True
        self.say("sub", "private")
        self.say("sub", "shared")
        self.phase = "proving"
        self.barrier()

    def hear(self, message: Any, asks: list[Ask], long: frozenset[int]) -> None:
        kind, *told = message
        if kind == "echo":
            if told[0] == self.token:
                self._echoed()
        elif kind == "order":
            self._ordered(*told)
        elif kind == "fwd":
            n, r, again, madre = told
            self.say("ack", madre, n)
            self._handle(asks[r], again, long)
        elif kind == "req":
            self._handle(asks[told[0]], told[1], long)

    def _handle(self, ask: Ask, again: bool, long: frozenset[int]) -> None:
        r = ask.r
        if code := self.known.get(r):
            if code != "runs":
                self.say("answer", r, code)
        elif again and not ask.idempotent:
            self._answer(r, "crashed")
        else:
            ask.handled += 1
            if r in long:
                self.work = (*self.work, r)
                self.known = {**self.known, r: "runs"}
            else:
                self._answer(r, "ok")

    def finish(self, r: int) -> None:
        self.work = tuple(x for x in self.work if x != r)
        self._answer(r, "ok")
        self._go_on()

    def _answer(self, r: int, code: str) -> None:
        self.answered = True
        self.known = {**self.known, r: code}
        self.say("answer", r, code)

    def _ordered(self, verb: str, epoch: int, stay: int) -> None:
        if epoch < self.epoch:
            return
        self.epoch = epoch
        if verb == "drain":
            self.want = "leave"
        else:
            self.stay, self.want = stay, "stay"
        self.orders = True
        self._go_on()

    def _echoed(self) -> None:
        self.token = 0
        if self.phase == "proving" or (self.phase == "returning" and self.asked == self.stay):
            self._say_active()
        if self.phase in ("proving", "returning"):
            self.phase = "idle"
        elif self.phase == "leaving":
            self.phase = "finishing"
        elif self.phase == "left":
            self.phase = "closing"
        self._go_on()

    def _go_on(self) -> None:
        """Where the coroutine would go on by itself."""
        if self.phase == "finishing":
            if self.want != "leave":
                self.phase = "idle"
            elif self.work:
                self.orders = False
            else:
                self.phase, self.private = "left", False
                self.say("unsub", "private")
                self.barrier()
        if self.phase == "idle" and self.orders:
            self.orders = False
            if self.want == "stay":
                self._return()
            elif self.want == "leave":
                self._leave()

    def _return(self) -> None:
        self.want, self.asked, self.phase = "serve", self.stay, "returning"
        if not self.shared:
            self.shared = True
            self.say("sub", "shared")
        self.barrier()

    def _leave(self) -> None:
        if self.shared:
            self.shared, self.phase = False, "leaving"
            self.say("unsub", "shared")
            self.barrier()
        else:
            self.phase = "finishing"
            self._go_on()

    def _say_active(self) -> None:
        self.say("active", self.id, self.name, self.revision, self.epoch, self.stay, f"H{self.host}")


class Host(Part):
    """Starts processes and tells what became of them. `known`: activation id to run."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.known: dict[str, str] = {}
        self.registering = False
        """Started anew: it has yet to tell madre what it can start."""

    def tell(self, instance: Instance, *, clean: bool = False) -> None:
        self.say("exited", instance.id, instance.name, clean)


def copied(power: Power) -> Power:
    new = Power.__new__(Power)
    new.__dict__.update(power.__dict__)
    new.held = Hold()
    for held in power.held:
        new.held.add(_held(held))
    new.forwarded = {n: _held(held) for n, held in power.forwarded.items()}
    return new


def _held(h: Held) -> Held:
    return Held(
        h.verb, h.reply, h.body, h.headers, h.expires, h.arrived, h.request_id,
        h.idempotent, h.again, h.nested, h.kills, h.sent_at, h.n,
    )  # fmt: skip


def record_of(written: dict[str, Any]) -> ActorRecord:
    return ActorRecord.model_construct(actor=NAME, **written)


NOW = 1_000.0
