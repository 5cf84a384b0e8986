"""The log files of a home, kept short: each at most LOG_BYTES_MOST and a little, and one older one beside it."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

log = logging.getLogger("vx11.logs")

LOG_BYTES_MOST = 10 * 1024 * 1024
KINDS = ("*.log", "*.err")


def keep_short(folder: Path, most: int = LOG_BYTES_MOST) -> None:
    """Begin anew every file that is longer. One process does this: two would copy what the other has just cut."""
    for file in (file for kind in KINDS for file in folder.glob(kind)):
        try:
            if file.stat().st_size > most:
                _cut(file)
        except OSError as error:
            log.warning("%s stays as long as it is: %s", file, error)


def _cut(file: Path) -> None:
    """Copied and cut in place: many processes have it open, and append. What is written between the two is lost."""
    older = file.with_name(f"{file.name}.1")
    try:
        with file.open("rb") as source, os.fdopen(_owned(older), "wb") as copy:
            shutil.copyfileobj(source, copy)
    except OSError as error:  # on a full disk what is in it is worth less than the room
        log.warning("%s is begun anew, without an older one: %s", file, error)
        older.unlink(missing_ok=True)
    os.truncate(file, 0)


def _owned(file: Path) -> int:
    """Emptied or made, for its owner only."""
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
