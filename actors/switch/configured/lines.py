"""Reading the lines of a configuration table: each error says which line is wrong, and what to write instead."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any


class Misconfigured(ValueError):
    """A line that is missing or wrong; the message says which, and what to write."""


def check_known(table: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raises Misconfigured for a line that nobody knows, with the one that was probably meant."""
    names = list(known)
    for line in table:
        if line not in names:
            near = difflib.get_close_matches(line, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
            raise Misconfigured(f"unknown line {line}; {hint}")


def text(table: Mapping[str, Any], name: str, example: str) -> str:
    """A text that must be there. `example`: how it may be written."""
    value = table.get(name)
    if not isinstance(value, str) or not value:
        raise Misconfigured(f"{name} is {'missing' if value is None else 'no text'}; {example}")
    return value


def flag(table: Mapping[str, Any], name: str, default: bool) -> bool:
    value = table.get(name, default)
    if not isinstance(value, bool):
        raise Misconfigured(f"{name} must be true or false")
    return value


def whole(table: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    """A whole number within the bounds; None when the line is missing."""
    value = table.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Misconfigured(f"{name} must be a whole number from {least} to {most}")
    return value


def amount(table: Mapping[str, Any], name: str, default: float, most: float) -> float:
    """A number that is not negative."""
    value = table.get(name, default)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 <= value <= most:
        raise Misconfigured(f"{name} must be a number from 0 to {most:g}")
    return float(value)
