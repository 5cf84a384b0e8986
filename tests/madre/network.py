"""The network of the small world: the server with its queue group, the hosts behind it, and the callers."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from tests.madre.cast import NOW, Ask, Madre, Part
from tests.madre.processes import Host, Instance

HARMFUL = frozenset({"crash", "mcrash", "restart", "stop", "hostcrash", "freeze", "kill"})
"""Faults that destroy what a process or a connection holds."""

LOSSY = frozenset({"activate", "order", "fwd", "ack", "active", "slept", "exited", "askhost"})
"""What may be lost on the way without harm: all of it is said again, or asked for."""


class Violation(AssertionError):
    """Something happened that never may."""


class TooMany(Exception):
    """More processes than this world has room for: what would follow is not explored."""


@dataclass(frozen=True)
class Config:
    """`long`: requests whose handler takes a while; `nested`: (r0, r1), the handler of r0 asks r1; `budget`: fault to times.

    `eager`: the server takes what is said at once. Messages still wait to be read, so that orders and answers cross; it
    spares nine states in ten, at the price of crashes with unsent bytes.
    """

    asks: int = 2
    long: frozenset[int] = frozenset()
    nested: tuple[int, int] | None = None
    idempotent: frozenset[int] = frozenset()
    stock: frozenset[int] = frozenset()
    hosts: int = 1
    instances: int = 3
    awake: bool = False
    eager: bool = True
    budget: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Stored:
    """The record as the store has it, and its revision."""

    revision: int = 0
    epoch: int = 0
    owner: str = ""
    instance: str = ""
    host: str = ""
    state: str = "dormant"
    vacated: int = 0
    """The moment at which the last owner was gone."""


class Network:
    """Takes what the parts say, in the order of each connection, and gives it to whom it is for."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.now = NOW
        self.moments = 0
        """Counts what is compared by time across processes."""
        self.shared: tuple[str, ...] = ()
        """Members of the actor's queue group at the server."""
        self.private: tuple[str, ...] = ()
        self.record = Stored()
        self.madres: list[Madre] = []
        self.instances: list[Instance] = []
        self.hosts = [Host(f"H{i}") for i in range(config.hosts)]
        self.asks = [Ask(r, r in config.idempotent, r in config.stock) for r in range(config.asks)]
        self.callers_connected = True
        self.allowed = True
        self.losing = False
        """The next message that may be lost is."""
        self.struck: frozenset[str] = frozenset()
        self.excused: frozenset[int] = frozenset()
        """Requests that were with a process or a connection that a fault has ended."""

    def copy(self) -> Any:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.madres = [m.copy() for m in self.madres]
        new.instances = [i.copy() for i in self.instances]
        new.hosts = [h.copy() for h in self.hosts]
        new.asks = [a.copy() for a in self.asks]
        return new

    @property
    def harmed(self) -> bool:
        return bool(self.struck & HARMFUL)

    def part(self, name: str) -> Any:
        return {"M": self.madres, "P": self.instances, "H": self.hosts}[name[0]][int(name[1:])]

    @property
    def parts(self) -> list[Part]:
        return [*self.madres, *self.instances, *self.hosts]

    def is_nested(self, r: int) -> bool:
        return bool(self.config.nested) and r == self.config.nested[1]

    # -- the server ---------------------------------------------------------------------------------------------------

    def takers(self, part: Part) -> tuple[str, ...]:
        """Whom the next message of this connection may go to, one of them; nobody while it must wait.

        The kernel closes a dead process's connection before its parent hears of the death.
        """
        if not part.out or not part.connected:
            return ()
        kind = part.out[0][0]
        if kind == "exited" and self.part(part.out[0][2]).out:
            return ()
        if kind == "activate":
            return tuple(host.name for host in self.hosts)
        return (self.shared if kind == "req" else ()) or ("",)

    def serve(self, name: str, taker: str) -> None:  # noqa: PLR0912 - one case a kind of message
        part = self.part(name)
        (kind, *told), part.out = part.out[0], part.out[1:]
        if self.losing and kind in LOSSY:
            self.losing = False
            return
        match kind:
            case "sub" | "unsub":
                self._subscribe(kind, told[0], name)
            case "echo":
                self._give(name, ("echo", *told))
            case "req":
                self.route(*told, taker, asker=self.asks[told[0]] if self.asks[told[0]].owner == name else None)
            case "fwd":
                if told[0] in self.private:
                    self._give(told[0], ("fwd", *told[1:]), told[2])
                elif not part.alive:
                    self.excused |= {told[2]}  # silent, and whoever would repeat it is dead
            case "order":
                if told[1] in self.private:
                    self._give(told[1], ("order", told[0], *told[2:]))
            case "ack":
                self._give(told[0], ("ack", told[1]))
            case "answer":
                self._answered(*told)
            case "activate":
                self._activate(self.part(taker), *told)
            case "askhost":
                self._ask_host(*told)
            case "started":
                self._mark("held", before=told[0])
            case "fin":
                self.shared = tuple(x for x in self.shared if x != name)
                self.private = tuple(x for x in self.private if x != name)
                part.connected = False
            case _:
                self._publish((kind, *told))

    def serve_all(self) -> None:
        """Take whatever is said, up to where it matters what comes in between: an echo, or a choice of takers."""
        again = True
        while again:
            again = False
            for part in self.parts:
                while len(takers := self.takers(part)) == 1 and (part.out[0][0] != "echo" or not part.alive):
                    self.serve(part.name, takers[0])
                    again = True

    def route(self, r: int, again: str, taker: str, *, asker: Ask | None) -> None:
        """To one member of the queue group; without one only an asker with a connection of his own is told."""
        if taker:
            taken = ("req", r, again, self.is_nested(r), self.allowed) if taker[0] == "M" else ("req", r, again)
            self._give(taker, taken, r)
        elif not self.harmed:
            raise Violation(f"NO RESPONDERS: nobody is subscribed for r{r}, and no fault explains it")
        elif asker and asker.status == "out":
            asker.status = "nobody"
            if asker.stock:
                asker.settle("nobody")
        else:
            self.excused |= {r}

    def _give(self, name: str, message: Any, r: int = -1) -> None:
        part = self.part(name)
        if part.alive and part.connected:
            part.inn = (*part.inn, message)
        elif r >= 0:
            self.excused |= {r}

    def _publish(self, message: Any) -> None:
        """An event: to every madre, and an exit also to the callers."""
        for madre in self.madres:
            if madre.alive and not (madre.frozen and message in madre.inn):
                self._give(madre.name, message)
        if message[0] == "exited" and not message[3]:
            self._mark("1", crash=True)

    def _subscribe(self, kind: str, subject: str, name: str) -> None:
        members = set(getattr(self, subject))
        changed = members | {name} if kind == "sub" else members - {name}
        setattr(self, subject, tuple(sorted(changed)))

    # -- callers ------------------------------------------------------------------------------------------------------

    def _answered(self, r: int, code: str) -> None:
        ask = self.asks[r]
        ask.answered += 1
        if self.callers_connected or ask.owner:
            ask.settle(code)
        else:
            self.excused |= {r}

    def _mark(self, again: str, *, crash: bool = False, before: int = sys.maxsize) -> None:
        """An instance died, a new madre came, the server was away: whoever has sent something and waits asks again."""
        for ask in self.asks:
            if ask.status == "out" and not ask.stock and ask.sent <= before:
                ask.crashes += crash
                ask.again, ask.marked = "1" if ask.again == "1" else again, True
                if ask.crashes >= 2:
                    ask.settle("crashed")

    # -- hosts --------------------------------------------------------------------------------------------------------

    def _activate(self, host: Host, id_: str, revision: int, epoch: int) -> None:
        """A known id is not started again: what became of it is told."""
        if run := host.known.get(id_):
            if not self.part(run).alive:
                host.tell(self.part(run), clean=self.part(run).clean)
            return
        if len(self.instances) >= self.config.instances:
            raise TooMany
        born = Instance(f"P{len(self.instances)}", id_, revision, epoch, host.name)
        self.instances.append(born)
        host.known = {**host.known, id_: born.name}

    def _ask_host(self, run: str, id_: str, name: str, kill: bool) -> None:
        """What became of a run? Only a death is told; `kill` makes it one."""
        for host in self.hosts:
            if name not in ("", host.name):
                continue
            instance = self.part(run)
            if run in host.known.values():
                if instance.alive and kill:
                    self.struck |= {"kill"}
                    self.end(instance)
                elif not instance.alive:
                    host.tell(instance, clean=instance.clean)
            elif not instance.alive:
                host.say("exited", id_, run, False)

    def end(self, instance: Instance, *, clean: bool = False, keep: bool = True, told: bool = True) -> None:
        """The process ends; its parent sees it, and says so if it lives itself."""
        for ask in self.asks:
            if ask.owner == instance.name:
                ask.settle("its caller died")
        self.excused |= {m[1] if m[0] == "req" else m[2] for m in instance.inn if m[0] in ("req", "fwd")} | set(instance.work)
        instance.die(keep=keep)
        instance.phase, instance.clean, instance.work, instance.known, instance.doubts = "gone", clean, (), {}, ()
        instance.private = instance.shared = False
        if told:
            self.part(instance.host).tell(instance, clean=clean)
