"""The OpenAI dialect: the document that asks, and what the documents of the answer say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from actors.switch.asking.failure import ProviderFailed, of_status, quoted
from actors.switch.asking.stitch import Stitch
from schemas.switch import Chat, Turn

DONE = "[DONE]"
NAME_MAX_CHARS = 200
"""A model's name or a finish reason; what is longer is none."""
MODELS_MAX = 1_000
TOO_LONG_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
TOO_LONG_FORM = re.compile(r"context (length|window|size)|(prompt|input|conversation) is too long|too many tokens", re.IGNORECASE)
"""OpenAI, vLLM, llama.cpp, Ollama, Anthropic and Mistral, in their words."""
PASSED_ON = (
    "temperature",
    "max_tokens",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
)
"""What the caller may choose and the provider is to heed; the names are OpenAI's."""


@dataclass(frozen=True)
class Piece:
    """What a document of an answer said, or several in a row; empty where it said nothing. `tool_calls`: deltas."""

    text: str = ""
    reasoning: str = ""
    finish_reason: str = ""
    model: str = ""
    usage: dict[str, int] | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()

    @property
    def says(self) -> bool:
        return bool(self.text or self.reasoning or self.tool_calls)

    def then(self, other: Piece) -> Piece | None:
        """Both as one; None when that would change the order of thoughts, text and tool calls."""
        if (self.text and other.reasoning) or (self.tool_calls and (other.text or other.reasoning)):
            return None
        return Piece(
            self.text + other.text,
            self.reasoning + other.reasoning,
            other.finish_reason or self.finish_reason,
            other.model or self.model,
            other.usage or self.usage,
            self.tool_calls + other.tool_calls,
        )


def question(request: Chat, model: str, *, ask_usage: bool) -> dict[str, Any]:
    """The body of a request for a streamed answer. What the caller left open is left out."""
    asked: dict[str, Any] = {"model": model, "messages": [_turn(turn) for turn in request.messages], "stream": True}
    if ask_usage:
        asked["stream_options"] = {"include_usage": True}
    chosen = ((name, getattr(request, name)) for name in PASSED_ON)
    return asked | {name: value for name, value in chosen if value is not None}


def _turn(turn: Turn) -> dict[str, Any]:
    """A turn that only calls tools has `content: null`, which strict servers want to see."""
    told = turn.model_dump(exclude_none=True)
    return {**told, "content": None} if turn.tool_calls and turn.content is None else told


class Reader:
    """Reads the documents of one answer, in their order."""

    def __init__(self) -> None:
        self._text = Stitch()
        self._thoughts = Stitch()

    def read(self, text: str, part: Literal["delta", "message"] = "delta") -> Piece:
        """Read a chunk of a stream (`delta`) or a whole answer (`message`).

        Raises ProviderFailed when it is no JSON, has another shape, or is an error document.
        """
        document = _document(text)
        if document.get("error"):
            raise _complaint(document)
        choices = document.get("choices")
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise ProviderFailed("it sent a document without choices")
        usage, model = _usage(document.get("usage")), _name(document.get("model"))
        if not choices:
            return Piece(model=model, usage=usage)
        said = choices[0].get(part) or {}
        if not isinstance(said, dict):
            raise ProviderFailed(f"it sent a {part} that is no object")
        content = self._text.join(_text(said, "content"))
        thoughts = self._thoughts.join(_text(said, "reasoning_content") or _text(said, "reasoning"))
        return Piece(content, thoughts, _name(choices[0].get("finish_reason")), model, usage, _calls(said))

    def end(self) -> None:
        """The answer has ended. Raises ProviderFailed when half a character still waits for its other half."""
        self._text.end()
        self._thoughts.end()


def _complaint(document: Mapping[str, Any]) -> ProviderFailed:
    """An error document where an answer should be. Its code, where it is a status, tells whose fault it is."""
    reason, told = "it answered with an error document", complaint(document)
    code = document["error"].get("code") if isinstance(document["error"], dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    blame = of_status(400 if told.too_long else status).blame
    return ProviderFailed(reason, blame=blame, said=quoted(told.words), too_long=told.too_long)


@dataclass(frozen=True)
class Complaint:
    """What an error document says. `too_long`: of the conversation, that it does not fit into the model's window."""

    words: str = ""
    too_long: bool = False


def complaint(document: Mapping[str, Any]) -> Complaint:
    """Reads an error document; several shapes are in use."""
    error = document.get("error", document.get("detail", document.get("message", "")))
    known = error if isinstance(error, dict) else document
    words = error.get("message", "") if isinstance(error, dict) else error
    words = words if isinstance(words, str) else ""
    too_long = not TOO_LONG_CODES.isdisjoint(str(known.get(name)) for name in ("code", "type"))
    return Complaint(words, too_long or TOO_LONG_FORM.search(words) is not None)


def complaint_of(body: bytes) -> Complaint:
    """What an error's body says; nothing when it is no JSON document."""
    try:
        return complaint(_document(body.decode("utf-8", "replace")))
    except ProviderFailed:
        return Complaint()


def model_names(text: str) -> list[str]:
    """The ids of a model list. Raises ProviderFailed when it is none."""
    listed = _document(text).get("data")
    if not isinstance(listed, list):
        raise ProviderFailed("it sent a model list without data")
    names = [_name(entry.get("id")) for entry in listed[:MODELS_MAX] if isinstance(entry, dict)]
    return [name for name in names if name]


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ProviderFailed("it sent something that is no JSON") from None
    if not isinstance(document, dict):
        raise ProviderFailed("it sent JSON that is no object")
    return document


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    if value is not None and not isinstance(value, str):
        raise ProviderFailed(f"it sent a {name} that is no text")
    return value or ""


def _calls(said: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    calls = said.get("tool_calls") or []
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise ProviderFailed("it sent tool_calls that are no list of objects")
    return tuple(calls)


def _name(value: object) -> str:
    fits = isinstance(value, str) and len(value) <= NAME_MAX_CHARS and value.isprintable()
    return str(value) if fits else ""


def _usage(value: object) -> dict[str, int] | None:
    if not isinstance(value, dict):
        return None
    counted = {str(name): n for name, n in value.items() if isinstance(n, int) and not isinstance(n, bool)}
    return counted or None
