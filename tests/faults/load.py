"""A small load in every class of the promise, and the promise of each class held against what became of it."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from bus.asking import failure_of
from bus.client import Bus
from bus.wire import Msg, Wire, status_of
from gateway.torture.system import System
from schemas.errors import Failure

WRITE, REWRITE, NOTED = "vx11.ledger.write", "vx11.ledger.rewrite", "vx11.events.ledger.noted"
KINDS = ("plain", "once", "again", "hasty", "event")
"""plain: a stock client without a header. once, again: our client, of a class that may not or may be executed twice.
hasty: as once, given up soon. event: durable, acknowledged when it is stored."""
LINGER_S = 0.4
"""When all others have their answer and the system is itself again, a stock client whose answer may have died with its holder
waits so long more."""
TYPED_S = 20.0
HASTY_S = 0.3
NOBODY_AGAIN_S = 0.01
BEGUN_S = 0.02
"""Between the look at the deadline and the effect a busy machine may do something else."""
CLOCK_S = 0.002
SILENCE = "no answer"
OK = "ok"

GIVEN_UP = frozenset({"timeout", "unavailable", "waking"})
ALLOWED = {
    "plain": frozenset({OK, SILENCE, "crashed", *GIVEN_UP}),
    "once": frozenset({OK, "crashed"}),
    "again": frozenset({OK}),
    "hasty": frozenset({OK, "crashed", *GIVEN_UP}),
    "event": frozenset({OK}),
}
"""What may become of each when a process is killed. plain: only the killed one knew its inbox."""
UNHARMED = {kind: frozenset({OK}) for kind in KINDS} | {"hasty": frozenset({OK, *GIVEN_UP})}
"""What may become of each when nothing is killed."""


@dataclass(slots=True)
class Asked:
    n: int
    kind: str
    outcome: str = ""
    answers: int = 0
    text: str = ""


@dataclass(slots=True)
class Effect:
    n: int
    instance: str
    at: float
    deadline: float


@dataclass
class Load:
    """Asks `rate` times a second, in a seeded order of kinds. `first`: number of the first request."""

    bus: Bus
    plain: Wire
    chance: random.Random
    first: int
    rate: float = 150.0
    linger_s: float = TYPED_S
    asked: list[Asked] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; returns when everything has been answered or given up."""
        open_: list[asyncio.Task[Asked]] = []
        while not stop.is_set():
            kind, seconds = self.chance.choice(KINDS), self.chance.choice((0.0, 0.0, 0.0, 0.02))
            open_.append(self.begin(kind, seconds))
            await asyncio.sleep(self.chance.expovariate(self.rate))
        await self.end(open_)

    async def end(self, open_: list[asyncio.Task[Asked]]) -> None:
        """Wait for the typed ones, which all end; then a moment for the plain ones, which may have died with their holder."""
        await asyncio.wait([task for task in open_ if task.get_name() != "plain"])
        _, late = await asyncio.wait(open_, timeout=self.linger_s)
        for task in late:
            task.cancel()
        await asyncio.wait(open_)
        for entry in self.asked:
            entry.outcome = entry.outcome or SILENCE

    def begin(self, kind: str, seconds: float = 0.0) -> asyncio.Task[Asked]:
        return asyncio.create_task(self.ask(kind, seconds), name=kind)

    async def ask(self, kind: str, seconds: float = 0.0) -> Asked:
        entry = Asked(self.first + len(self.asked), kind)
        self.asked.append(entry)
        body = {"n": entry.n} if kind == "event" else {"n": entry.n, "seconds": seconds}
        sent = json.dumps(body).encode()
        try:
            if kind == "plain":
                await self._ask_plain(sent, entry)
            elif kind == "event":
                await self.bus.publish_raw(NOTED, sent)
                entry.outcome = OK
            else:
                patience = HASTY_S if kind == "hasty" else TYPED_S
                subject = REWRITE if kind == "again" else WRITE
                await self.bus.ask(subject, sent, timeout=patience, idempotent=kind == "again")
                entry.outcome = OK
        except Failure as failure:
            entry.outcome, entry.text = failure.code, failure.message
        return entry

    async def _ask_plain(self, body: bytes, entry: Asked) -> None:
        """What any client does that asks again when nobody listens."""
        done = asyncio.Event()

        def send() -> None:
            try:
                self.plain.send(WRITE, body, reply=reply)
            except Failure as failure:
                entry.text = failure.message  # no server just now: it stays unanswered, and is counted so

        def heard(msg: Msg) -> None:
            if status_of(msg) == "503":
                asyncio.get_running_loop().call_later(NOBODY_AGAIN_S, send)
                return
            failure = failure_of(msg.headers or {}, msg.data)
            entry.answers += 1
            entry.outcome = entry.outcome or (failure.code if failure else OK)
            done.set()

        _, reply = self.plain.await_answer(heard)
        send()
        await done.wait()

    @property
    def told(self) -> str:
        """The counts of each outcome, for whoever reads a failure."""
        return str({kind: dict(Counter(a.outcome for a in self.asked if a.kind == kind)) for kind in KINDS})


@asynccontextmanager
async def loading(system: System, chance: random.Random, first: int, url: str = "") -> AsyncIterator[Load]:
    """`url`: where the clients connect, if not where the system does."""
    seed = system.seed("client")
    async with Bus.connect(url or system.url, user="client", seed=seed, name="faults", fast=True) as bus:
        plain = Wire()
        await plain.open(url or system.url, user="client", seed=seed, name="faults-plain", reconnect_s=0.05)
        try:
            yield Load(bus, plain, chance, first)
        finally:
            await plain.aclose()


def effects(system: System) -> list[Effect]:
    """Every effect so far, whoever did it. A last line that was cut by a kill does not count."""
    path = system.home / "effects"
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [Effect(int(p[0]), p[1], float(p[2]), float(p[3])) for p in lines if len(p) == 4]


def broken(asked: list[Asked], done: list[Effect], allowed: dict[str, frozenset[str]]) -> list[str]:
    """Sentences about what breaks the promise; none when it held. Events are looked at when their time has come."""
    kinds = {a.n: a.kind for a in asked}
    mine = [effect for effect in done if effect.n in kinds]
    times = Counter(effect.n for effect in mine)
    wrong = [f"{a.kind} {a.n} ended with {a.outcome!r} {a.text}" for a in asked if a.outcome not in allowed[a.kind]]
    wrong += [f"{kinds[n]} {n} was done {often} times" for n, often in times.items() if often > 1 and kinds[n] in ONCE]
    wrong += [
        f"{a.kind} {a.n} was answered and never done" for a in asked if a.outcome == OK and a.n not in times and a.kind != "event"
    ]
    wrong += [f"{kinds[e.n]} {e.n} was done after its deadline" for e in mine if 0 < e.deadline < e.at - BEGUN_S]
    wrong += [f"plain {a.n} has {a.answers} answers" for a in asked if a.answers > 1 and allowed is UNHARMED]
    return wrong + overlaps(mine)


ONCE = frozenset({"plain", "once", "hasty"})


def overlaps(done: list[Effect]) -> list[str]:
    """At most one instance at a time: the effects of one lie before or after all those of another."""
    spans: dict[str, tuple[float, float]] = {}
    for effect in done:
        first, last = spans.get(effect.instance, (effect.at, effect.at))
        spans[effect.instance] = (min(first, effect.at), max(last, effect.at))
    ordered = sorted(spans.values())
    return [
        f"two instances at once: one worked until {end:.3f}, the next from {start:.3f}"
        for (_, end), (start, _) in pairwise(ordered)
        if start < end - CLOCK_S
    ]


def missing(asked: list[Asked], done: list[Effect]) -> list[int]:
    """Events that were acknowledged and have had no effect yet."""
    seen = {effect.n for effect in done}
    return [a.n for a in asked if a.kind == "event" and a.outcome == OK and a.n not in seen]
