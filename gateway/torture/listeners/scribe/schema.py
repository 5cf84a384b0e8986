"""What scribe hears."""

from __future__ import annotations

from typing import ClassVar

from schemas.message import Event


class Said(Event):
    """Something to be written down; wakes the scribe."""

    subject: ClassVar = "vx11.events.torture.said"
    summary: ClassVar = "number {n} was said"
    severity: ClassVar = "debug"

    n: int
