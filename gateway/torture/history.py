"""What torture writes down: each operation before and after, each execution, each fault, in the words of the clock on the wall.

A folder of files with one JSON document a line, each line written at once: a kill -9 of torture itself leaves a history
that can be judged. The checker knows nothing but these files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from schemas.errors import CODES, Failure

OK = "ok"
SILENCE = "no answer"
LOST = "connection lost"
NOBODY = "no responders"
KINDS = ("plain", "once", "again", "stream")
"""plain: a stock client, no header. once: `bus.request` of a class that is not idempotent. again: of one that is.
stream: `bus.stream`. All but the first carry a deadline."""
HASTY = "hasty"
"""As `once`, given up after a moment: whatever became of it, it must not be begun later. Asked only when there are faults."""
HTTP = "http"
"""As `once`, through the gateway; asked only when the gateway is a victim."""
REFUSED = frozenset(code for code, row in CODES.items() if not row.executed) | {NOBODY}
"""Who gets one of these knows that it was not executed; any other error leaves that unknown."""

PROBE = -1
"""Number of the requests and events that only ask whether the system is itself again."""
STORM = 10**9
"""Number of the first request of a storm, beyond those of any load."""
REQUESTS, EVENTS, FAULTS, LOG, RUN = "requests.jsonl", "events.jsonl", "faults.jsonl", "log.jsonl", "run.jsonl"
EXECUTIONS, HANDLED = "executions.jsonl", "handled.jsonl"
"""Written by the actors: the effect sinks."""


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
    actor: str = "echo"
    deadline: float = 0.0
    """That it carried; 0.0: none."""
    of: int | None = None
    """The number that the answer is for."""

    @property
    def took_ms(self) -> float:
        return (self.ended - self.sent) * 1000


@dataclass(slots=True)
class Execution:
    """A handler was begun: for which request, by which instance, when, and until when it was allowed to (0: for ever)."""

    n: int
    instance: str
    at: float
    deadline: float = 0.0
    actor: str = "echo"


@dataclass(slots=True)
class Told:
    """An event that was published. `outcome`: `ok` once the stream has acknowledged it as `seq`, an error code, or empty."""

    n: int
    at: float
    outcome: str = ""
    ended: float = 0.0
    seq: int = 0


@dataclass(slots=True)
class Logged:
    """One message of the event log."""

    seq: int
    subject: str
    at: float
    body: dict[str, Any]


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
    """Until also madre answered, a whole sleep and wake was done, and an event was handled."""

    def met(self, asked: Asked) -> bool:
        """Whether the request was under way while the fault lasted."""
        return asked.sent <= self.until and self.at <= asked.ended


@dataclass
class History:
    """All that the files say. `end`: what was counted at the end; None when torture itself was ended before."""

    asked: list[Asked] = field(default_factory=list)
    executions: list[Execution] = field(default_factory=list)
    struck: list[Struck] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    handled: list[Execution] = field(default_factory=list)
    log: list[Logged] = field(default_factory=list)
    begin: dict[str, Any] = field(default_factory=dict)
    storm: dict[str, Any] | None = None
    end: dict[str, Any] | None = field(default_factory=dict)

    @property
    def last(self) -> float:
        """The last moment that anything is known of."""
        asked = [max(a.sent, a.ended) for a in self.asked]
        return max([*asked, *(e.at for e in self.executions), *(max(t.at, t.ended) for t in self.told)], default=0.0)


class Journal:
    """Appends to one file. What `write` has returned from survives the end of the process, not that of the machine."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._fd)
        self._fd = -1

    def write(self, op: str, **fields: object) -> None:
        """One operation."""
        self.line(op=op, **fields)

    def line(self, **fields: object) -> None:
        """What comes after the end of the block is dropped: a late answer, when nobody counts any more."""
        if self._fd >= 0:
            os.write(self._fd, json.dumps(fields).encode() + b"\n")


def outcome_op(outcome: str) -> str:
    """`ok`; `failed`: surely not executed; `unknown`."""
    return OK if outcome == OK else "failed" if outcome in REFUSED else "unknown"


def read_history(folder: Path) -> History:
    """Raises Failure("not_found") when there is none, and Failure("invalid") when a line of it cannot be read."""
    if not (folder / RUN).exists():
        raise Failure("not_found", f"there is no history of a torture in {folder}")
    begin: dict[str, Any] = {}
    storm = end = None
    for line in lines(folder / RUN):
        match line.pop("op"):
            case "begin":
                begin = line
            case "storm":
                storm = line
            case "end":
                end = line
    executions, handled = read_executions(folder / EXECUTIONS), read_executions(folder / HANDLED)
    log = [Logged(**line) for line in lines(folder / LOG)]
    struck = _read_faults(folder / FAULTS)
    return History(_read_asked(folder), executions, struck, _read_told(folder), handled, log, begin, storm, end)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The documents in a file; none when it is missing. A last line that was cut by a kill is not counted."""
    texts = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, text in enumerate(texts[:-1], 1):
        try:
            yield json.loads(text)
        except ValueError as error:
            raise Failure("invalid", f"line {number} of {path} cannot be read: {error}") from None


def read_executions(path: Path) -> list[Execution]:
    """What a sink has written, without that of probes."""
    return [found for line in lines(path) if (found := Execution(**line)).n != PROBE]


def _read_asked(folder: Path) -> list[Asked]:
    found: dict[int, Asked] = {}
    for line in lines(folder / REQUESTS):
        op, n = line["op"], line["n"]
        if op == "ask":
            found[n] = Asked(n, line["kind"], line["at"], actor=line["actor"], deadline=line["deadline"])
            continue
        asked = found[n]
        asked.answers += line.get("code") != SILENCE
        if op != "another":
            asked.outcome, asked.ended = line["code"], line["at"]
            asked.held_ms, asked.of = line["held_ms"], line["of"]
    return list(found.values())


def _read_told(folder: Path) -> list[Told]:
    found: dict[int, Told] = {}
    for line in lines(folder / EVENTS):
        if line["op"] == "publish":
            found[line["n"]] = Told(line["n"], line["at"])
        else:
            told = found[line["n"]]
            told.outcome, told.ended, told.seq = line["code"], line["at"], line["seq"]
    return list(found.values())


def _read_faults(path: Path) -> list[Struck]:
    """One that was never recovered from lasts until the end."""
    found: dict[int, Struck] = {}
    for line in lines(path):
        op, number = line.pop("op"), line.pop("fault")
        if op == "strike":
            found[number] = Struck(line["what"], line["victim"], line["moment"], line["at"], until=float("inf"))
        elif op == "recovered":
            vars(found[number]).update(line)
        else:
            del found[number]  # its victim had ended by itself
    return list(found.values())
