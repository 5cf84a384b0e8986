"""The door of the `vx11` command."""

from __future__ import annotations

import sys

FAULT = 70
"""Exit code for a fault of the program itself (sysexits.h EX_SOFTWARE)."""


def main() -> None:
    """Run the command line. A traceback is shown only when VX11_DEBUG asks for one."""
    from gateway.cli.app import app

    try:
        app(prog_name="vx11")
    except Exception as error:
        import os

        if os.environ.get("VX11_DEBUG"):
            raise
        sys.stderr.write(f"vx11 itself failed: {type(error).__name__}: {error}\n")
        sys.stderr.write("  next  VX11_DEBUG=1 vx11 ...   shows where\n")
        sys.exit(FAULT)


if __name__ == "__main__":
    main()
