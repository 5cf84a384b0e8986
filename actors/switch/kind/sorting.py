"""What switch does with a sorted message: show it, or hand it back to whoever asked for the sorting."""

from __future__ import annotations

import time

from actors.switch.choosing.board import Board
from actors.switch.kind.kinds import Sorted, Sorter
from schemas.switch import Chat, KindScore, ModelReply, Route, Routed, Turn


async def routed(request: Route, sorter: Sorter, board: Board) -> Routed:
    """What the message is about, and who would be asked if it is for a model. Raises Failure `not_found`."""
    found = await sorter.sort(request.text)
    asked = Chat(
        messages=[Turn(role="user", content=request.text)], model=request.model, session_id=request.session_id, trim=True
    )
    scores = sorted(found.scores.items(), key=lambda pair: -pair[1])
    return Routed(
        kind=found.kind,
        how=found.how,
        kinds=[KindScore(kind=kind, score=score) for kind, score in scores],
        language=found.language or "",
        candidates=board.candidates(asked),
        cpu_ms=round(found.cpu_ms, 2),
        note=found.note,
    )


async def elsewhere(request: Chat, sorter: Sorter) -> ModelReply | None:
    """The reply that says whose message this is; None when it is for a model."""
    begun = time.perf_counter()
    text = last_words(request)
    found = await sorter.sort(text) if text else None
    if found is None or found.kind == "chat":
        return None
    took = (time.perf_counter() - begun) * 1000
    return ModelReply(text="", model="", provider="", latency_ms=round(took, 1), reason=reason(found), kind=found.kind)


def reason(found: Sorted) -> str:
    """In one sentence."""
    told = f"sorted as {found.kind} ({found.scores[found.kind]:.0%}) by its {found.how}"
    return f"{told}; {found.note}" if found.note else told


def last_words(request: Chat) -> str:
    """What the user said last; empty when something else came after it, as the result of a tool."""
    last = request.messages[-1]
    if last.role != "user" or last.content is None:
        return ""
    if isinstance(last.content, str):
        return last.content.strip()
    return " ".join(str(part.get("text", "")) for part in last.content if part.get("type") == "text").strip()
