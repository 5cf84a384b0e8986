"""What the power machine is told and what it wants done: plain values, no behaviour."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Held:
    """A request in madre's hands: held for a sleeper, or forwarded and not yet acknowledged.

    Times are seconds since the epoch. `expires`: when madre answers in the actor's place; after `deadline` nobody waits
    any more. `kills`: instances that died with it. `nested`: it comes, through others, from the actor that it is
    addressed to.
    """

    verb: str
    reply: str
    body: bytes
    headers: Mapping[str, str]
    expires: float
    arrived: float
    request_id: str = ""
    idempotent: bool = False
    again: bool = False
    nested: bool = False
    kills: int = 0
    sent_at: float = 0.0
    n: int = 0
    deadline: float = math.inf

    @property
    def size(self) -> int:
        return len(self.body) + sum(len(k) + len(v) for k, v in self.headers.items())

    @property
    def same(self) -> tuple[str, str]:
        """What it shares with its repeats. The stand-in has given an id to those that came without."""
        return self.request_id, self.reply


@dataclass(slots=True, frozen=True)
class Open:
    """Subscribe as the stand-in and prove it; then `proven(generation)`."""

    generation: int


@dataclass(slots=True, frozen=True)
class Close:
    """Leave the shared subject and prove it; then `proven(generation)`."""

    generation: int


@dataclass(slots=True, frozen=True)
class Activate:
    id: str
    revision: int
    epoch: int
    reason: str


@dataclass(slots=True, frozen=True)
class Order:
    """`drain` or `stay` to the run, on its private subject."""

    verb: str
    run: str
    id: str
    epoch: int
    stay: int


@dataclass(slots=True, frozen=True)
class Forward:
    held: Held
    run: str


@dataclass(slots=True, frozen=True)
class Answer:
    """An error answer that madre gives in the actor's place."""

    held: Held
    code: str
    message: str
    retry_after: float = 0.0


@dataclass(slots=True, frozen=True)
class Bury:
    """A request that has killed two instances: to the dead letters."""

    held: Held


@dataclass(slots=True, frozen=True)
class Swap:
    """Replace the record by compare-and-set; then `swapped(purpose, revision or None)` before anything else."""

    purpose: str
    changes: Mapping[str, object]


@dataclass(slots=True, frozen=True)
class Read:
    """Read the record; then `read(record, revision)` before anything else."""


@dataclass(slots=True, frozen=True)
class AskHost:
    """What became of this run? `kill` orders it to be killed first."""

    run: str
    id: str
    host: str
    pid: int
    born: float
    kill: bool = False


@dataclass(slots=True, frozen=True)
class Tell:
    """Publish a power event: `draining`, `failed` or `denied`."""

    fact: str
    reason: str
    retry_after: float = 0.0
    held: Held | None = field(default=None, compare=False)
    """The request that has caused it."""


@dataclass(slots=True, frozen=True)
class StepDown:
    """Another madre has taken over."""

    epoch: int


Effect = Open | Close | Activate | Order | Forward | Answer | Bury | Swap | Read | AskHost | Tell | StepDown


@dataclass(slots=True)
class Beat:
    """A heartbeat: seconds without work, what is in hand, how many requests it has answered."""

    run: str
    idle_s: float = 0.0
    in_flight: int = 0
    answered: int = 0
    card_version: str = ""
