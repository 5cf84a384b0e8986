"""The OpenAI dialect: the document that asks, and what the documents of the answer say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from actors.switch.failure import ProviderFailed, quoted
from schemas.switch import Chat

DONE = "[DONE]"
NAME_MAX_CHARS = 200
"""A model's name or a finish reason; what is longer is none."""
MODELS_MAX = 1_000
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Piece:
    """What one document of an answer said; empty where it said nothing."""

    text: str = ""
    reasoning: str = ""
    finish_reason: str = ""
    model: str = ""
    usage: dict[str, int] | None = None

    @property
    def says(self) -> bool:
        return bool(self.text or self.reasoning)


def question(request: Chat, model: str, *, ask_usage: bool) -> dict[str, Any]:
    """The body of a request for a streamed answer. What the caller left open is left out."""
    asked: dict[str, Any] = {
        "model": model,
        "messages": [turn.model_dump(exclude_none=True) for turn in request.messages],
        "stream": True,
    }
    if ask_usage:
        asked["stream_options"] = {"include_usage": True}
    optional = {"temperature": request.temperature, "max_tokens": request.max_tokens}
    return asked | {name: value for name, value in optional.items() if value is not None}


class Stitch:
    """Joins the halves of a character that was cut in two: JSON escapes it as a pair, one of which may come later."""

    def __init__(self) -> None:
        self._half = ""

    def join(self, text: str) -> str:
        """The text that is whole by now; a half that waits for its other half is kept."""
        text = self._half + text
        self._half = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return _whole(text)

    def rest(self) -> str:
        """What a half is worth whose other half never came."""
        half, self._half = self._half, ""
        return REPLACEMENT if half else ""


class Reader:
    """Reads the documents of one answer, in their order."""

    def __init__(self) -> None:
        self._text = Stitch()
        self._reasoning = Stitch()

    def read(self, text: str, part: Literal["delta", "message"] = "delta") -> Piece:
        """Read a chunk of a stream (`delta`) or a whole answer (`message`).

        Raises ProviderFailed when it is no JSON, has another shape, or is an error document.
        """
        document = _document(text)
        if document.get("error"):
            raise ProviderFailed("it answered with an error document", said=quoted(error_text(document)))
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
        reasoning = self._reasoning.join(_text(said, "reasoning_content") or _text(said, "reasoning"))
        return Piece(content, reasoning, _name(choices[0].get("finish_reason")), model, usage)

    def rest(self) -> Piece:
        """What is left when the answer has ended."""
        return Piece(self._text.rest(), self._reasoning.rest())


def error_text(document: Mapping[str, Any]) -> str:
    """The words of an error document; several shapes are in use."""
    error = document.get("error", document.get("detail", document.get("message", "")))
    if isinstance(error, dict):
        error = error.get("message", "")
    return error if isinstance(error, str) else ""


def error_of(body: bytes) -> str:
    """The words of an error's body; empty when it is no JSON document."""
    try:
        return error_text(_document(body.decode("utf-8", "replace")))
    except ProviderFailed:
        return ""


def model_names(text: str) -> list[str]:
    """The ids of a model list. Raises ProviderFailed when it is none."""
    listed = _document(text).get("data")
    if not isinstance(listed, list):
        raise ProviderFailed("it sent a model list without data")
    names = [_name(entry.get("id")) for entry in listed[:MODELS_MAX] if isinstance(entry, dict)]
    return [name for name in names if name]


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


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


def _name(value: object) -> str:
    fits = isinstance(value, str) and len(value) <= NAME_MAX_CHARS and value.isprintable()
    return str(value) if fits else ""


def _usage(value: object) -> dict[str, int] | None:
    if not isinstance(value, dict):
        return None
    counted = {str(name): n for name, n in value.items() if isinstance(n, int) and not isinstance(n, bool)}
    return counted or None
