"""What torture writes down: each request, each execution, each fault, in the words of the clock on the wall."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

OK = "ok"
SILENCE = "no answer"
KINDS = ("plain", "once", "again", "stream")
"""plain: a stock client, no header. once: `bus.request` of a class that is not idempotent. again: of one that is.
stream: `bus.stream`."""
HASTY = "hasty"
"""As `once`, given up after a moment: whatever became of it, it must not be begun later. Asked only when there are faults."""
HTTP = "http"
"""As `once`, through the gateway; asked only when the gateway is a victim."""

PROBE = "-1"
"""Number of the requests that only ask whether the system is itself again."""


@dataclass(slots=True)
class Asked:
    """One request. `outcome`: `ok`, an error code, or `no answer`; empty while it is open. Times: seconds since the epoch."""

    n: int
    kind: str
    sent: float
    outcome: str = ""
    ended: float = 0.0
    answers: int = 0
    held_ms: int = 0
    """How long the stand-in had it in hand, as the answer says; 0: it went straight to the instance."""

    @property
    def took_ms(self) -> float:
        return (self.ended - self.sent) * 1000


@dataclass(slots=True)
class Execution:
    """A handler was begun: for which request, by which instance, when, and until when it was allowed to (0: for ever)."""

    n: int
    instance: str
    at: float
    deadline: float


@dataclass
class Struck:
    """One fault: `until` the system was itself again. `recovered_s` is None when that took too long."""

    what: str
    victim: str
    moment: str
    """The power event that it was timed by; `any` when it was not."""
    at: float
    until: float = 0.0
    answered_s: float | None = None
    """Until the next request was answered."""
    recovered_s: float | None = None
    """Until also madre answered and a whole sleep and wake was done."""

    def met(self, asked: Asked) -> bool:
        """Whether the request was under way while the fault lasted."""
        return asked.sent <= self.until and self.at <= asked.ended


def write_requests(path: Path, asked: Iterable[Asked]) -> None:
    """One JSON document a line, for whoever has to find out why."""
    with path.open("w") as out:
        out.writelines(json.dumps(asdict(entry)) + "\n" for entry in asked)


def read_executions(path: Path) -> list[Execution]:
    """The sink's lines. A last line that was cut by a kill is not counted."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        parts = line.split()
        if len(parts) == 4 and parts[0] != PROBE:
            found.append(Execution(int(parts[0]), parts[1], float(parts[2]), float(parts[3])))
    return found
