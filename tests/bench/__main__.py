"""`python -m tests.bench`: every figure of VX11 against its baseline in the same run; `make bench` runs it."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests import weights
from tests.bench import durable, gateway, recording, relaying, replay, rest, routing, sleepers, thinking, wake
from tests.bench.report import Figure, machine

FIGURES: dict[str, Callable[[Path, int], Figure]] = {
    "gateway": lambda home, rounds: gateway.measure(home, gateway.Size(rounds=rounds)),
    "wake": lambda home, rounds: wake.measure(home, wake.Size(rounds=rounds)),
    "sleepers": lambda home, rounds: sleepers.measure(home, sleepers.Size(rounds=2 * rounds)),
    "durable": lambda home, rounds: durable.measure(home, durable.Size(rounds=rounds)),
    "recording": lambda home, rounds: recording.measure(home, recording.Size(rounds=rounds)),
    "replay": lambda home, rounds: replay.measure(home, replay.Size(rounds=rounds)),
    "relaying": lambda home, rounds: relaying.measure(home, relaying.Size(rounds=rounds)),
    "routing": lambda _, rounds: routing.measure(routing.Size(rounds=rounds)),
    "thinking": lambda home, rounds: thinking.measure(home, weights.smollm2(), thinking.Size(rounds=rounds)),
    "rest": lambda home, _: rest.measure(home, rest.Size()),
}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; all when none is named")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (5)")
    parser.add_argument("--json", action="store_true", help="one document, with every round")
    told = parser.parse_args(words)
    if unknown := set(told.figures) - set(FIGURES):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    found = []
    for name in told.figures or FIGURES:
        with tempfile.TemporaryDirectory(prefix="vx11-bench-") as folder:
            figure = FIGURES[name](Path(folder) / "home", told.rounds)
        found.append(figure)
        if not told.json:
            print(*figure.lines(), "", sep="\n", flush=True)
    if told.json:
        print(json.dumps({"machine": machine(), "figures": [figure.document() for figure in found]}, indent=1))
    else:
        print(*(f"{key} {value}" for key, value in machine().items()), sep=", ")
    return int(any(claim.holds is False for figure in found for claim in figure.claims))


if __name__ == "__main__":
    sys.exit(main())
