"""The order to be an instance, from a host to the process that will be one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Start:
    """`record` is that of `revision`, which the claim replaces."""

    actor: str
    id: str
    run: str
    revision: int
    epoch: int
    host: str
    record: Mapping[str, Any]
    card_version: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The conversation that the wake belongs to."""
