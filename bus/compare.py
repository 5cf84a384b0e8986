"""Two answers, and what differs between them but for what differs each time. Pure."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from schemas.message import HIDDEN, Message

ABSENT = object()
Change = dict[str, Any]
"""`field`, `was`, `is`; without `was` it is new, without `is` it is gone."""


def steady(kind: type[Message], document: Any) -> Any:
    """The document without the fields that its class, or the class of what is in it, calls volatile."""
    try:
        return _steady(kind.model_validate(document), document)
    except ValidationError:  # another class today: what it says of its own fields still holds
        return {k: v for k, v in document.items() if k not in kind.volatile} if isinstance(document, dict) else document


def _steady(value: Any, document: Any) -> Any:
    if isinstance(value, BaseModel) and isinstance(document, dict):
        fields = type(value).model_fields
        names: dict[Any, str] = {field.alias or name: name for name, field in fields.items()}
        skipped: tuple[str, ...] = value.volatile if isinstance(value, Message) else ()
        return {
            key: _steady(getattr(value, str(names.get(key, key)), None), part)
            for key, part in document.items()
            if names.get(key, key) not in skipped
        }
    if isinstance(value, dict) and isinstance(document, dict):
        return {key: _steady(value.get(key), part) for key, part in document.items()}
    if isinstance(value, list | tuple) and isinstance(document, list):
        return [_steady(one, part) for one, part in zip(value, document, strict=True)]
    return document


def changes(was: Any, now: Any, field: str = "") -> list[Change]:
    """Field by field, in the order of the first."""
    if isinstance(was, dict) and isinstance(now, dict):
        found = []
        for key in (*was, *(key for key in now if key not in was)):
            found += changes(was.get(key, ABSENT), now.get(key, ABSENT), f"{field}.{key}" if field else str(key))
        return found
    if isinstance(was, list) and isinstance(now, list) and was and now:
        found = []
        for i in range(max(len(was), len(now))):
            found += changes(was[i] if i < len(was) else ABSENT, now[i] if i < len(now) else ABSENT, f"{field}[{i}]")
        return found
    if type(was) is type(now) and was == now:
        return []
    told = {"was": was, "is": now}
    return [{"field": field, **{name: value for name, value in told.items() if value is not ABSENT}}]


def fits(was: Any, now: Any) -> bool:
    """Whether what is asked now is what was recorded; what was hidden then fits every text."""
    if isinstance(was, dict) and isinstance(now, dict):
        return was.keys() == now.keys() and all(fits(was[key], now[key]) for key in was)
    if isinstance(was, list) and isinstance(now, list):
        return len(was) == len(now) and all(map(fits, was, now))
    return (isinstance(was, str) and isinstance(now, str) and HIDDEN in was) or (type(was) is type(now) and was == now)
