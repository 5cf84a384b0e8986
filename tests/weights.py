"""The real small model for tests: fetched once as a user fetches it, and kept beside the environment that runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bus.loading import TREE

NAME = "smollm2"
PULL_S = 300.0


def smollm2() -> Path:
    """The file, whole: `pull` looks at its hash each time. Raises RuntimeError with what `vx11 models pull` said."""
    with tempfile.TemporaryDirectory(prefix="vx11-home-") as home:
        environ = {**os.environ, "VX11_HOME": home, "VX11_MODELS_DIR": str(_kept()), "VX11_DISK_RESERVE_MB": "0"}
        words = [sys.executable, "-m", "gateway.cli", "models", "pull", NAME]
        ran = subprocess.run(words, cwd=TREE, env=environ, capture_output=True, text=True, timeout=PULL_S, check=False)
    if ran.returncode:
        raise RuntimeError(f"no model to test with: {ran.stderr}")
    return _kept() / f"{NAME}.gguf"


def _kept() -> Path:
    """In the environment's own folder, so that `make clean` takes it away, too."""
    folder = Path(sys.prefix) / "share" / "vx11-models"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
