"""`python -m bus`: the supervisor alone, with the services that VX11_SERVICES names (all when it names none)."""

from __future__ import annotations

import logging
import os
import sys

from bus.settings import Settings
from bus.supervisor import SERVICES, Supervisor, start_logging
from schemas.errors import CODES, Failure


def main() -> int:
    start_logging()
    settings = Settings.read(os.environ)
    names = tuple(name for name in settings.get("VX11_SERVICES", ",".join(SERVICES)).split(",") if name)
    supervisor = Supervisor(settings, names)
    try:
        supervisor.start()
        supervisor.watch()
    except Failure as failure:
        logging.getLogger("vx11").error("%s", failure)
        return CODES[failure.code].exit
    finally:
        supervisor.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
