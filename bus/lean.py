"""Imports without what they take along and nobody here uses: each megabyte of it would be in every process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def absent(*names: str) -> Iterator[None]:
    """Let imports inside believe that `names` are not installed; what has been imported already stays."""
    blocked = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(blocked))  # type: ignore[arg-type]  # None is how Python marks a blocked module
    try:
        yield
    finally:
        for name in blocked:
            del sys.modules[name]
