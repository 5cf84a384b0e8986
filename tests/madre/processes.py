"""The processes of the small world: instances as `bus/instance.py` and `bus/responder.py` make them, and their hosts."""

from __future__ import annotations

from typing import Any

from tests.madre.cast import Ask, Part


class Instance(Part):
    """One process of the actor, from its fork to its exit. `phase`:

    `born` before the claim; `proving` its first barrier; `idle` waits for orders; `returning` has been called back;
    `leaving` the shared subject; `finishing` its work; `left`: leaves the private subject; `closing` its resources.
    """

    def __init__(self, name: str, id_: str, revision: int, epoch: int, host: str) -> None:
        super().__init__(name)
        self.id, self.revision, self.epoch, self.host = id_, revision, epoch, host
        self.phase = "born"
        self.stay = self.asked = 0
        """The newest number of a `stay`, and that which is being answered."""
        self.want = "serve"
        self.orders = self.shared = self.private = False
        self.work: tuple[int, ...] = ()
        """Requests whose handler runs."""
        self.known: dict[int, tuple[str, int]] = {}
        """The reply cache: `runs`, or the code that was answered, and over which of its connections."""
        self.doubts: tuple[int, ...] = ()
        """Repeats that wait for their first copy."""
        self.alone_since = self.reconnects = 0
        self.answered = self.clean = False

    def claimed(self, revision: int, alone_since: int) -> None:
        self.revision, self.alone_since = revision, alone_since
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
            self._handle(asks[r], again, long, forwarded=True)
        elif kind == "req":
            self._handle(asks[told[0]], told[1], long)

    def _handle(self, ask: Ask, again: str, long: frozenset[int], *, forwarded: bool = False) -> None:
        """One request, one outcome: a copy joins its first; a repeat whose first is unknown is doubted."""
        r = ask.r
        if r in self.known:
            code, connection = self.known[r]
            late_receipt = forwarded and not again and connection == self.reconnects
            if code != "runs" and not late_receipt:
                self.say("answer", r, code)
        elif again and not ask.idempotent and not (again == "held" and self.alone_since < ask.sent):
            self.doubts = tuple({*self.doubts, r})
        else:
            self.doubts = tuple(x for x in self.doubts if x != r)
            ask.handled += 1
            if r in long:
                self.work = (*self.work, r)
                self.known = {**self.known, r: ("runs", 0)}
            else:
                self._answer(r, "ok")

    def disown(self, r: int) -> None:
        """Its first copy has not come, and is not begun here even if it comes later."""
        self.doubts = tuple(x for x in self.doubts if x != r)
        self._answer(r, "crashed")

    def finish(self, r: int) -> None:
        self.work = tuple(x for x in self.work if x != r)
        self._answer(r, "ok")
        self._go_on()

    def _answer(self, r: int, code: str) -> None:
        self.answered = True
        self.known = {**self.known, r: (code, self.reconnects)}
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
        self.say("active", self.id, self.name, self.revision, self.epoch, self.stay, self.host)


class Host(Part):
    """Starts processes and tells what became of them. `known`: activation id to run."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.known: dict[str, str] = {}
        self.registering = False
        """Started anew: it has yet to tell madre what it can start."""

    def tell(self, instance: Instance, *, clean: bool = False) -> None:
        self.say("exited", instance.id, instance.name, clean)
