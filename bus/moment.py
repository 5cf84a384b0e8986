"""Moments as they are written everywhere: RFC 3339, UTC, milliseconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

EPOCH = datetime.fromtimestamp(0, UTC)


def rfc3339(seconds: float, timespec: str = "milliseconds") -> str:
    """Seconds since the epoch as `2026-01-02T03:04:05.678Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def rfc3339_now() -> str:
    """This moment."""
    return rfc3339(time.time())


def microseconds(moment: str) -> int:
    """RFC 3339 as microseconds since the epoch. Raises ValueError."""
    read = datetime.fromisoformat(moment)
    return (read - EPOCH) // timedelta(microseconds=1)
