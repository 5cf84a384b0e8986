"""One answer in the making: frames of switch in, OpenAI's documents out."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from pydantic_core import from_json

from bus import call as calls
from gateway.http.parts import Answered

FINISHES = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
"""What a client may be told; its classes know no other."""
tight = json.JSONEncoder(separators=(",", ":")).encode
"""Made once; ASCII alone, for some clients take U+2028 for the end of a line."""
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")

Document = dict[str, Any]


class Telling:
    """`model`: who speaks now, which is told in every chunk; until somebody speaks it is what was asked for."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.provider = ""
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._begun = False
        self._reasoning: list[str] = []

    def take(self, frame: Answered) -> tuple[Document, bool]:
        """A frame as a document, and whether it is the last one: the whole reply."""
        said: Document = from_json(frame.body)
        last = calls.END in frame.headers or calls.SEQ not in frame.headers
        speaker = said if last else said.get("speaker")
        if speaker:
            self.model, self.provider = speaker["model"] or self.model, speaker["provider"]
        if not last:
            self._reasoning.append(said.get("reasoning", ""))
        return said, last

    def chunk(self, said: Document) -> bytes:
        """A piece of the answer."""
        delta: Document = {}
        if not self._begun:
            self._begun = True
            delta = {"role": "assistant", "content": ""}
        if text := said.get("text"):
            delta["content"] = text
        if reasoning := said.get("reasoning"):
            delta["reasoning_content"] = reasoning
        if tool_calls := said.get("tool_calls"):
            delta["tool_calls"] = tool_calls
        speaker = said.get("speaker")
        about: Document = {"vx11": {"speaker": speaker}} if speaker else {}
        return self._document([_choice(delta)], **about)

    def end(self, reply: Document) -> list[bytes]:
        """What is still to be said of a whole reply: all of it when nothing was streamed, then how it ended."""
        first: list[bytes] = []
        if not self._begun:
            numbered = [{"index": number, **one} for number, one in enumerate(reply.get("tool_calls") or ())]
            first = [self.chunk({"text": reply["text"], "tool_calls": numbered})]
        return [*first, self._document([_choice({}, _finish(reply))], vx11=_about(reply))]

    def usage(self, reply: Document) -> bytes:
        """The chunk without a choice that only counts."""
        return self._document([], usage=_usage(reply))

    def whole(self, reply: Document) -> bytes:
        message: Document = {"role": "assistant", "content": reply["text"], "refusal": None}
        if reasoning := "".join(self._reasoning):
            message["reasoning_content"] = reasoning
        if tool_calls := reply.get("tool_calls"):
            message |= {"content": reply["text"] or None, "tool_calls": tool_calls}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(reply)}
        more = {"usage": _usage(reply), "vx11": _about(reply)}
        return self._document([choice], kind="chat.completion", **more)

    def _document(self, choices: list[Document], *, kind: str = "chat.completion.chunk", **more: Any) -> bytes:
        head = {"id": self._id, "object": kind, "created": self._created, "model": self.model}
        return tight({**head, "choices": choices, **more}).encode()


def _choice(delta: Document, finish: str | None = None) -> Document:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _finish(reply: Document) -> str:
    told = str(reply.get("finish_reason") or "")
    if told in FINISHES:
        return told
    return "tool_calls" if reply.get("tool_calls") else "stop"


def _usage(reply: Document) -> Document | None:
    """As the provider counted; None when it did not say."""
    counted: Document | None = reply.get("usage")
    if not counted:
        return None
    prompt, completion = counted.get("prompt_tokens", 0), counted.get("completion_tokens", 0)
    return {**counted, **dict(zip(COUNTS, (prompt, completion, counted.get("total_tokens", prompt + completion)), strict=True))}


def _about(reply: Document) -> Document:
    """Who answered, why this one, and what is to be known of it."""
    return {name: reply.get(name) for name in ("provider", "reason", "note", "speakers")}
