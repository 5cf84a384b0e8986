"""`python -m gateway.torture`: the figures of this machine as a table; `make bench` runs it."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from gateway.cli.screen import Screen
from gateway.torture.bench import bench


def main() -> int:
    screen = Screen()
    with tempfile.TemporaryDirectory(prefix="vx11-bench-") as folder:
        figures = asyncio.run(bench(Path(folder) / "home"))
    rows = [
        (f.what, f"{f.number:,}", f"{f.p50_ms:.1f} ms", f"{f.p99_ms:.1f} ms", f"{f.per_s:,.0f} /s" if f.per_s else "")
        for f in figures
    ]
    screen.table(("an answer", ">times", ">median", ">99 of 100", ">in all"), rows)
    load = os.getloadavg()[0]
    screen.line(f"{os.cpu_count()} cores, load {load:.1f} (1 min); one actor, typed client, everything on this machine")
    return 0


if __name__ == "__main__":
    sys.exit(main())
