"""Percentiles, medians of rounds, and ratios with the noise that stands beside them."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least `part` (0 to 1) of all do not exceed. Raises ValueError when there are none."""
    if not values:
        raise ValueError("no values, no percentile")
    return sorted(values)[max(0, math.ceil(len(values) * part) - 1)]


class Rounds:
    """What was measured: for each configuration and quantity one value a round, in the order of the rounds."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, config: str, **quantities: float) -> None:
        for quantity, value in quantities.items():
            self.values[config, quantity].append(value)

    def median(self, config: str, quantity: str) -> float:
        return statistics.median(self.values[config, quantity])

    def ratios(self, quantity: str, ours: str, baseline: str) -> list[float]:
        """One a round: what was measured a moment apart is compared, so that a slow minute strikes both."""
        return [a / b for a, b in zip(self.values[ours, quantity], self.values[baseline, quantity], strict=True)]

    def ratio(self, quantity: str, ours: str, baseline: str) -> float:
        return statistics.median(self.ratios(quantity, ours, baseline))

    def spread(self, quantity: str, one: str, again: str) -> tuple[float, float]:
        """Lowest and highest ratio of a configuration to itself: a difference within it is noise."""
        ratios = self.ratios(quantity, again, one)
        return min(ratios), max(ratios)
