"""Fitting a conversation into a model's window: how many tokens it takes, and what is left out when that is too many.

The whole history stays with operator_backend; what is left out here is only not said to this model this time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from schemas.errors import Failure
from schemas.switch import Chat, Turn

TURN_TOKENS = 8
"""What frames a turn: its role, and the marks around it."""
PART_TOKENS = 1_500
"""An image or another part that is no text; providers count some 85 to 1,500."""
ANSWER_TOKENS = 1_024
"""Kept for the answer when nobody said how long it may become."""
ANSWER_SHARE = 4
"""But never more than this part of the window."""
INSTRUCTIONS = ("system", "developer")


def tokens(turns: Sequence[Turn], factor: float) -> int:
    """At most about how many tokens the turns take. `factor`: tokens a byte."""
    return sum(_turn_tokens(turn, factor) for turn in turns)


def size(request: Chat) -> int | None:
    """The bytes of text in a request; None when there is more than text in it, which nobody can measure."""
    parts = [part for turn in request.messages if isinstance(turn.content, list) for part in turn.content]
    if any(_text_of(part) is None for part in parts):
        return None
    return sum(_turn_bytes(turn) for turn in request.messages) + _document_bytes(request.tools)


def question(request: Chat) -> str:
    """The text of the last thing that the user said."""
    said = next((turn.content for turn in reversed(request.messages) if turn.role == "user"), "") or ""
    return said if isinstance(said, str) else " ".join(filter(None, map(_text_of, said)))


def kept_for_answer(context: int, wanted: int | None = None) -> int:
    """Tokens of the window that a conversation leaves free. `wanted`: by the caller."""
    return min(wanted or ANSWER_TOKENS, context // ANSWER_SHARE)


def room(request: Chat, context: int, factor: float) -> int:
    """How many tokens of turns fit: the window without the answer, the tools and the form of the answer."""
    answer = kept_for_answer(context, request.max_tokens)
    beside = _document_bytes(request.tools) + _document_bytes(request.response_format)
    return max(0, context - answer - round(beside * factor))


def fits(request: Chat, context: int | None, factor: float) -> bool:
    """Whether all turns fit."""
    return context is None or tokens(request.messages, factor) <= room(request, context, factor)


def least(request: Chat, factor: float) -> int:
    """The tokens that are left when everything is left out that may be."""
    head, groups = _grouped(request.messages)
    last = groups[-1] if groups else []
    return tokens([request.messages[n] for n in (*head, *last)], factor)


def trimmed(request: Chat, context: int | None, factor: float) -> list[Turn]:
    """The turns that fit: all instructions, and the newest others, whole and in their order.

    A call of a tool is never parted from its results, and what is left begins with a user, as many models insist on.
    Raises Failure `too_large` when the instructions and the last turn alone do not fit.
    """
    if context is None or fits(request, context, factor):
        return request.messages
    left = room(request, context, factor)
    if least(request, factor) > left:
        raise too_large(least(request, factor), left)
    head, groups = _grouped(request.messages)
    turns = request.messages
    left -= tokens([turns[n] for n in head], factor)
    kept: list[list[int]] = []
    for group in reversed(groups):
        left -= tokens([turns[n] for n in group], factor)
        if left < 0:
            break
        kept.insert(0, group)
    while len(kept) > 1 and turns[kept[0][0]].role != "user":
        del kept[0]
    return [turns[n] for n in sorted([*head, *(n for group in kept for n in group)])]


def too_large(long: int, left: int) -> Failure:
    """The answer to a conversation of `long` tokens where `left` fit."""
    told = f"this takes about {long} tokens, and {left} fit beside the answer; shorten it, or ask a model with a larger window"
    return Failure("too_large", told, tokens=long, fits=left)


def _grouped(turns: Sequence[Turn]) -> tuple[list[int], list[list[int]]]:
    """Where the instructions stand, and the other turns in groups that stay together: a call of tools with its results."""
    head: list[int] = []
    groups: list[list[int]] = []
    for n, turn in enumerate(turns):
        if turn.role in INSTRUCTIONS:
            head.append(n)
        elif turn.role == "tool" and groups:
            groups[-1].append(n)
        else:
            groups.append([n])
    return head, groups


def _turn_tokens(turn: Turn, factor: float) -> int:
    return TURN_TOKENS + round(_turn_bytes(turn) * factor) + PART_TOKENS * _other_parts(turn)


def _turn_bytes(turn: Turn) -> int:
    texts = [turn.content] if isinstance(turn.content, str) else [_text_of(part) or "" for part in turn.content or ()]
    named = [name for name in (turn.name, turn.tool_call_id) if name]
    return sum(len(text.encode("utf-8", "replace")) for text in (*texts, *named)) + _document_bytes(turn.tool_calls)


def _other_parts(turn: Turn) -> int:
    return sum(_text_of(part) is None for part in turn.content) if isinstance(turn.content, list) else 0


def _text_of(part: Mapping[str, Any]) -> str | None:
    """The text of a part; None of an image and its like."""
    text = part.get("text", part.get("refusal"))
    return text if isinstance(text, str) else None


def _document_bytes(document: object) -> int:
    return len(json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")) if document else 0
