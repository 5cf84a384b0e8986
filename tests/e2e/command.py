"""The `vx11` command as a person types it, on the system of a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bus.loading import TREE
from tests.e2e.house import House

RUN_S = 60


class Ran(str):
    """What a command printed on stdout. `code`, and what it said on stderr, beside it."""

    __slots__ = ("code", "err")
    code: int
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self)


class Vx11:
    """Knows the home and nothing else: all the rest is in the files there."""

    def __init__(self, home: House | Path, **environ: str) -> None:
        self.home = home.home if isinstance(home, House) else home
        self._more = environ

    @property
    def environ(self) -> Mapping[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("VX11_")}
        made = {
            "VX11_HOME": str(self.home),
            "VX11_TEST_RUN": os.environ["VX11_TEST_RUN"],
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "PYTHONPATH": str(TREE),
            "NO_COLOR": "1",
            "COLUMNS": "160",
        }
        return {**kept, **made, **self._more}

    def run(self, *words: str, stdin: str = "") -> Ran:
        """Whatever its exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "gateway.cli", *words],
            env=self.environ,
            cwd=TREE,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
        ran = Ran(done.stdout)
        ran.code, ran.err = done.returncode, done.stderr
        return ran

    def __call__(self, *words: str) -> Ran:
        ran = self.run(*words)
        assert ran.code == 0, f"vx11 {' '.join(words)} ended with {ran.code}: {ran}{ran.err}"
        return ran
