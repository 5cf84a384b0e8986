"""Counts per verb, as the NATS services protocol (ADR-32) wants them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class VerbStats:
    requests: int = 0
    errors: int = 0
    seconds: float = 0.0
    last_error: str = ""


@dataclass(slots=True)
class Stats:
    verbs: dict[str, VerbStats] = field(default_factory=dict)

    def count(self, verb: str, seconds: float, error: str) -> None:
        """One answered request that took `seconds`; `error` is its code, or empty."""
        entry = self.verbs.setdefault(verb, VerbStats())
        entry.requests += 1
        entry.seconds += seconds
        if error:
            entry.errors += 1
            entry.last_error = error
