"""What was found: figures with their rounds and the claims that they carry, as a table for people and a document for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.bench.numbers import Rounds

Spread = tuple[float, float]


@dataclass(frozen=True)
class Claim:
    """A ratio or amount that shall be `least` at least or `most` at most; without either it is told only.

    `noise`: the same ratio of the baseline to itself. `gross`: beyond it, the noise allowed for, something is broken, on any
    machine.
    """

    what: str
    value: float
    noise: Spread | None = None
    least: float | None = None
    most: float | None = None
    gross: float | None = None
    unit: str = ""

    @property
    def holds(self) -> bool | None:
        """None where nothing is asked."""
        if self.least is not None:
            return self.value >= self.least
        return None if self.most is None else self.value <= self.most

    @property
    def grossly_broken(self) -> bool:
        if self.gross is None:
            return False
        low, high = self.noise or (1.0, 1.0)
        return self.value < self.gross * min(1, low) if self.least is not None else self.value > self.gross * max(1, high)

    def document(self) -> dict[str, Any]:
        bounds = {"least": self.least, "most": self.most}
        asked = {name: bound for name, bound in bounds.items() if bound is not None}
        return {"what": self.what, "value": self.value, "unit": self.unit, "noise": self.noise, "holds": self.holds, **asked}


@dataclass(frozen=True)
class Figure:
    """`about`: what was measured, in its first line, and how, for the one who reads the table."""

    name: str
    about: str
    rounds: Rounds
    claims: Sequence[Claim] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        measured: dict[str, dict[str, Any]] = {}
        for (config, quantity), values in self.rounds.values.items():
            told = {"median": self.rounds.median(config, quantity), "rounds": values}
            measured.setdefault(config, {})[quantity] = told
        claims = [claim.document() for claim in self.claims]
        return {"figure": self.name, "about": self.about, "measured": measured, "claims": claims}

    def lines(self) -> Iterator[str]:
        title, *about = self.about.splitlines()
        yield f"== {self.name}: {title}"
        yield from about
        quantities = list(dict.fromkeys(quantity for _, quantity in self.rounds.values))
        rows = [["median of rounds", *quantities]]
        for config in dict.fromkeys(config for config, _ in self.rounds.values):
            had = [self.rounds.values.get((config, quantity)) for quantity in quantities]
            cells = [_number(self.rounds.median(config, q)) if h else "" for q, h in zip(quantities, had, strict=True)]
            rows.append([config, *cells])
        yield from _aligned(rows)
        yield ""
        yield from _aligned([["claim", "value", "asked", "A/A", ""], *map(_told, self.claims)])


def machine() -> dict[str, Any]:
    """Where it was measured, and what else went on there."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.release(),
        "load": os.getloadavg()[0],
    }


def _told(claim: Claim) -> list[str]:
    asked = f">= {claim.least:g}" if claim.least is not None else f"<= {_number(claim.most)}" if claim.most is not None else ""
    noise = f"{claim.noise[0]:.2f} to {claim.noise[1]:.2f}" if claim.noise else ""
    verdict = {True: "holds", False: "BROKEN", None: ""}[claim.holds]
    return [claim.what, f"{_number(claim.value)} {claim.unit}".strip(), asked, noise, verdict]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *rest = (cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        yield "  ".join(["", first, *rest]).rstrip()
