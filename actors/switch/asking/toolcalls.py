"""Calls of tools: the deltas of a stream in one form, and the whole calls that they make."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.switch.asking.failure import ProviderFailed
from actors.switch.asking.stitch import Stitch

CALLS_MAX = 128
"""Of one answer, which OpenAI also allows at most."""
NAME_MAX_CHARS = 200
ID_BYTES = 12
"""Of an id for a call that came without one."""


@dataclass
class Call:
    """One call so far."""

    id: str
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    stitch: Stitch = field(default_factory=Stitch)


class Calls:
    """The calls of one answer. `characters`: of all arguments."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self.characters = 0

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, deltas: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The deltas as OpenAI would have sent them: with index, and id and name at the first one of a call.

        Raises ProviderFailed.
        """
        return [self._add(delta) for delta in deltas]

    def whole(self) -> list[dict[str, Any]]:
        """The calls, when the answer has ended. Raises ProviderFailed when one of them is none."""
        for call in self._calls:
            call.stitch.end()
            if not call.name:
                raise ProviderFailed("it called a tool without a name")
        return [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": "".join(call.arguments)}}
            for call in self._calls
        ]

    def _add(self, delta: Mapping[str, Any]) -> dict[str, Any]:
        function = delta.get("function") or {}
        if not isinstance(function, dict):
            raise ProviderFailed("it sent a tool call whose function is no object")
        name, given = function.get("name") or "", delta.get("id") or ""
        if not _is_name(name) or not _is_name(given):
            raise ProviderFailed("it sent a tool call whose name or id is no name")
        index = self._index(delta.get("index"), given, name)
        told: dict[str, Any] = {"index": index}
        if index == len(self._calls):
            self._calls.append(Call(given or f"call_{secrets.token_hex(ID_BYTES)}"))
            told |= {"id": self._calls[index].id, "type": "function"}
        call = self._calls[index]
        arguments = call.stitch.join(_arguments(function.get("arguments")))
        told["function"] = {"arguments": arguments}
        if name and not call.name:
            call.name = told["function"]["name"] = name
        call.arguments.append(arguments)
        self.characters += len(arguments)
        return told

    def _index(self, index: object, given: str, name: str) -> int:
        """Whose delta it is. Some servers send whole calls without an index, or all with the same."""
        new = len(self._calls)
        if isinstance(index, int) and 0 <= index < new and given and name and self._calls[index].id != given:
            index = None
        if not isinstance(index, int):
            known = [n for n, call in enumerate(self._calls) if given and call.id == given]
            index = known[0] if known else new if name or not new else new - 1
        if not 0 <= index <= new or index >= CALLS_MAX:
            raise ProviderFailed("it sent a tool call out of order, or too many")
        return index


def _is_name(text: object) -> bool:
    return isinstance(text, str) and len(text) <= NAME_MAX_CHARS and (not text or text.isprintable())


def _arguments(value: object) -> str:
    """OpenAI sends text; some servers send the object itself."""
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    if value is not None and not isinstance(value, str):
        raise ProviderFailed("it sent the arguments of a tool call as no text")
    return value or ""
