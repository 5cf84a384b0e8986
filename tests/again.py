"""A second run of the few tests that failed: what fails twice fails, what does not is named and does not hold anybody up.

Thousands of tests with real processes meet moments that no machine shows again. One that fails alone, too, is a fault; one
that passes is a race, of the test or of what it tests, and is to be found by its name.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FAILED = Path(".pytest_cache/v/cache/lastfailed")
MOST = 3
"""Files: a fixture that fails once fails all tests of its file. With more something is wrong that no second look mends."""


def main() -> int:
    failed = sorted(json.loads(FAILED.read_text())) if FAILED.exists() else []
    if not 0 < len({test.partition("::")[0] for test in failed}) <= MOST:
        return 1
    print(f"\nonce more, alone: {', '.join(failed)}\n", flush=True)
    ended = subprocess.run([sys.executable, "-m", "pytest", *failed], check=False).returncode
    if not ended:
        print(f"\nUNSTEADY, failed once and passed alone: {', '.join(failed)}")
    return ended


if __name__ == "__main__":
    sys.exit(main())
