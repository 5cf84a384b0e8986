"""What was observed of each model: how often it answers, how soon, and how many tokens its texts take.

Nothing is tried out for the sake of learning: every request has a person behind it, and a model that is never asked
because another is better is no loss. What makes up for it is forgetting: evidence loses half its weight in two days,
so that a provider that was bad last week stands where a new one does. Time is passed in, in seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

HALF_LIFE_S = 2 * 86_400.0
"""Until an observation weighs half; after a week it weighs a tenth."""
FADE = 0.97
"""What an older answer weighs beside the next one: about thirty answers are remembered at most."""
PRIOR_WEIGHT = 16.0
"""Answers it takes to be believed as much as the assumption. A single bad minute is the circuit's business."""
PRIOR_SUCCESS = 0.95
PRIOR_FIRST_S = 1.0
FIRST_MAX_S = 120.0
"""A slower first word is noted as this."""

FACTOR_START = 0.4
"""Tokens a byte of text, before anything is known: English has 0.25, other languages and code up to this."""
FACTOR_MIN = 0.15
FACTOR_MAX = 1.0
"""No tokeniser in use takes more than a token for a byte."""
FACTOR_MARGIN = 1.1
"""The next text may be denser than those seen."""
FACTOR_EASE = 0.1
"""A denser text than expected counts at once, a thinner one by a tenth: too many tokens are an error, too few are not."""
FACTOR_BYTES_MIN = 400
"""In a shorter conversation the tokens of its frame weigh more than those of its text."""


@dataclass(frozen=True)
class Observed:
    """What one model has shown. The sums are weighted, `seen_at` is when they were last right."""

    weight: float = 0.0
    good: float = 0.0
    first_weight: float = 0.0
    first_sum: float = 0.0
    factor: float = FACTOR_START
    """Tokens a byte, on the safe side."""
    seen_at: float = 0.0

    @property
    def known(self) -> bool:
        """Whether there is evidence of weight; else what is said of it is the assumption."""
        return self.weight >= 0.5

    @property
    def success(self) -> float:
        """The chance that it answers."""
        return (self.good + PRIOR_SUCCESS * PRIOR_WEIGHT) / (self.weight + PRIOR_WEIGHT)

    @property
    def first_s(self) -> float:
        """Seconds to its first word."""
        return (self.first_sum + PRIOR_FIRST_S * PRIOR_WEIGHT) / (self.first_weight + PRIOR_WEIGHT)

    def faded(self, now: float) -> Observed:
        """What it is worth now. A clock that went back fades nothing."""
        kept = 0.5 ** (max(0.0, now - self.seen_at) / HALF_LIFE_S)
        return _scaled(self, kept, max(now, self.seen_at))

    def answered(self, now: float, first_s: float | None) -> Observed:
        """It answered, whole. `first_s`: to its first word, None when nobody took the time."""
        older = _scaled(self.faded(now), FADE, now)
        more = replace(older, weight=older.weight + 1, good=older.good + 1)
        if first_s is None:
            return more
        first = min(max(0.0, first_s), FIRST_MAX_S)
        return replace(more, first_weight=more.first_weight + 1, first_sum=more.first_sum + first)

    def failed(self, now: float) -> Observed:
        """It did not answer, or not whole, and that was its own fault."""
        older = _scaled(self.faded(now), FADE, now)
        return replace(older, weight=older.weight + 1)

    def counted(self, size: int, tokens: int) -> Observed:
        """A provider counted `tokens` in a conversation of `size` bytes."""
        if size < FACTOR_BYTES_MIN or tokens < 1:
            return self
        seen = min(max(tokens / size * FACTOR_MARGIN, FACTOR_MIN), FACTOR_MAX)
        eased = self.factor + (seen - self.factor) * FACTOR_EASE
        return replace(self, factor=max(seen, eased))

    def bounded(self) -> Observed:
        """Within what the methods above can have made."""
        most = 1 / (1 - FADE)
        weight, first_weight = min(self.weight, most), min(self.first_weight, most)
        return replace(
            self,
            weight=weight,
            good=min(self.good, weight),
            first_weight=first_weight,
            first_sum=min(self.first_sum, first_weight * FIRST_MAX_S),
            factor=min(max(self.factor, FACTOR_MIN), FACTOR_MAX),
        )

    def document(self) -> dict[str, float]:
        return asdict(self)


NOTHING = Observed()


def read(document: Any) -> Observed:
    """What `document` has made; nothing is known of what cannot be read, as it is of another version."""
    names = [field.name for field in fields(Observed)]
    if not isinstance(document, Mapping) or not all(_sound(document.get(name)) for name in names):
        return NOTHING
    return Observed(**{name: float(document[name]) for name in names}).bounded()


def _scaled(observed: Observed, kept: float, now: float) -> Observed:
    return replace(
        observed,
        weight=observed.weight * kept,
        good=observed.good * kept,
        first_weight=observed.first_weight * kept,
        first_sum=observed.first_sum * kept,
        seen_at=now,
    )


def _sound(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12
