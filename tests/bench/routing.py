"""What finding out the kind of a message costs, against its embedding alone."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from tests.bench.numbers import Rounds
from tests.bench.process import program
from tests.bench.report import Claim, Figure

OURS, BARE, AGAIN, LETTERS = "sort()", "e5_embed", "e5_embed again", "n-grams alone"
HOW = {OURS: "sort", BARE: "embed", AGAIN: "embed", LETTERS: "letters"}
MOST, GROSS = 1.15, 2.0
SORTED_S = 300.0
ABOUT = """Finding out what a message is about, against its embedding alone.
The same messages one after the other, in English and Spanish, some 12 tokens each. cpu_ms: processor time of one, in switch and
in the process of the embedding; e5_embed: a loop around the C function, in one process. n-grams need no embedding."""


@dataclass(frozen=True)
class Size:
    messages: int = 300
    rounds: int = 5


def measure(size: Size) -> Figure:
    """Raises RuntimeError when a program fails."""
    rounds = Rounds()
    for _ in range(size.rounds):
        for name in random.sample(list(HOW), len(HOW)):
            with program("sorting", HOW[name], size.messages) as sorting:
                rounds.add(name, **json.loads(sorting.result(SORTED_S)))
    noise = rounds.spread("cpu_ms", BARE, AGAIN)
    return Figure(
        "routing",
        ABOUT,
        rounds,
        [
            Claim("processor time of a decision", rounds.ratio("cpu_ms", OURS, BARE), noise, most=MOST, gross=GROSS),
            Claim("by n-grams alone", rounds.median(LETTERS, "cpu_ms"), most=1.0, gross=10.0, unit="ms"),
        ],
    )
