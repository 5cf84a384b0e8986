"""What the environment said, read once by a `__main__` or the command line and passed down as a value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PASSED = ("VX11_", "OTEL_", "OPENAI_", "DEEPSEEK_", "OLLAMA_")
"""Prefixes of the variables that reach actors; everything else of the environment stays outside."""


@dataclass(frozen=True)
class Settings:
    """`home`: the data folder. `variables`: the environment's variables that VX11 reads, as they were at start."""

    home: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, environ: Mapping[str, str], *, cwd: Path | None = None) -> Settings:
        """`VX11_HOME`, else the nearest parent folder with `data/run.json`, else `./data`."""
        here = (cwd or Path.cwd()).absolute()
        kept = {k: v for k, v in environ.items() if k.startswith(PASSED)}
        return cls(_home(kept, here), kept)

    def get(self, name: str, default: str = "") -> str:
        return self.variables.get(name) or default

    def number(self, name: str, default: float) -> float:
        """Raises ValueError, with what to write instead, when the variable is no number."""
        text = self.get(name)
        try:
            return float(text) if text else default
        except ValueError:
            raise ValueError(f"{name}={text!r} is no number; write for instance {name}={default:g}") from None

    @property
    def actor_paths(self) -> list[Path]:
        """Folders with actors of the user's own, beside the built-in ones."""
        text = self.get("VX11_ACTORS_PATH")
        return [Path(p).absolute() for p in text.split(os.pathsep) if p] if text else [self.home / "actors"]

    @property
    def run_file(self) -> Path:
        return self.home / "run.json"

    def seed_file(self, user: str) -> Path:
        return self.home / "nats" / f"{user}.nk"


def _home(variables: Mapping[str, str], here: Path) -> Path:
    if variables.get("VX11_HOME"):
        return Path(variables["VX11_HOME"]).absolute()
    for folder in (here, *here.parents):
        if (folder / "data" / "run.json").exists():
            return folder / "data"
    return here / "data"
