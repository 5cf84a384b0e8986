"""`python -m actors NAME`: the plain launcher's process. Reads its start order, one line of JSON, and lives as that instance."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from bus import chaos
from bus.instance import live
from bus.loading import load_actor, roots_of
from bus.redaction import know_settings
from bus.settings import Settings
from bus.start import Start
from bus.supervisor import start_logging

USAGE = 64
"""sysexits.h EX_USAGE."""


def main() -> int:
    start_logging()
    if len(sys.argv) != 2 or sys.stdin.isatty():
        sys.stderr.write(
            "python -m actors NAME is what a host runs to start an actor, with the start order on its standard input.\n"
            "To wake an actor yourself:  vx11 wake NAME\n"
        )
        return USAGE
    settings = Settings.read(os.environ)
    know_settings(settings.variables)
    chaos.arm(settings)
    start = Start(**json.loads(sys.stdin.readline()))
    return asyncio.run(
        live(lambda: load_actor(sys.argv[1], roots_of(settings), settings), start, settings.get("VX11_NATS_URL"), settings)
    )


if __name__ == "__main__":
    sys.exit(main())
