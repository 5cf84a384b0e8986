"""Durations, ages and sizes, read from what people type and written so that people can read them. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION = re.compile(r"(?:(?:\d+(?:\.\d+)?)[smhd]?)+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


def seconds(text: str) -> float:
    """`90`, `90s`, `30m`, `1h30m`, `2d` in seconds. Raises ValueError, with what to write instead."""
    clean = text.strip().lower().replace(" ", "")
    if not _DURATION.fullmatch(clean):
        raise ValueError(f"{text!r} is no duration; write for instance 90s, 30m, 1h30m or 2d")
    total = sum(float(number) * _UNITS[unit or "s"] for number, unit in _PART.findall(clean))
    if total <= 0:
        raise ValueError(f"{text!r} is no time at all; write for instance 30m")
    return total


def lasting(total: float) -> str:
    """Seconds as the one or two units that matter: `0.4 s`, `42 s`, `4 min`, `1 h 12 min`, `3 d 4 h`."""
    if total < 10:
        return f"{max(total, 0.0):.1f} s"
    if total < 60:
        return f"{total:.0f} s"
    minutes = int(total // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def age(moment: str, now: datetime | None = None) -> str:
    """How long ago an RFC 3339 moment was; empty when it is none."""
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return ""
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return lasting(((now or datetime.now(UTC)) - then).total_seconds())


def size(count: float) -> str:
    """Bytes as `512 B`, `5.2 MB`, `1.4 GB` (powers of 1,000, as disks are sold)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1_000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1_000
    return f"{count:.1f} TB"
