"""One message and its answer, with the history before it and after it."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import pairwise

from actors.operator_backend.conversation import Answer, Asks, Patience, Question, converse
from actors.operator_backend.sessions import Sessions
from bus import Call
from bus.call import SCOPES
from bus.moment import rfc3339_now
from schemas.errors import Failure
from schemas.operator_backend import Chat, ChatChunk, ChatReply, SessionLine
from schemas.switch import Turn

TURN_LINES = 40
"""Lines of a session that are looked at for what a model is told of it."""
TURN_CHARS = 24_000
"""Of all turns that a model is told; about 6,000 tokens, what a small local model can hold."""
MADRE = "madre"


class Exchange:
    """Made for one call. `seconds`: until the deadline."""

    def __init__(self, bus: Asks, sessions: Sessions, patience: Patience, call: Call, seconds: float) -> None:
        self._bus = bus
        self._sessions = sessions
        self._patience = patience
        self._call = call
        self._seconds = seconds

    async def answer(self, request: Chat) -> AsyncGenerator[ChatChunk | ChatReply, None]:
        """Chunks as they come, then the reply. Raises Failure when nobody answers; the question is kept even then."""
        begun = time.perf_counter()
        session_id = request.session_id or uuid.uuid4().hex
        lines = await self._remembered(session_id, request.message)
        headers = {SCOPES: self._call.scopes} if self._call.scopes else {}
        left = self._seconds - (time.perf_counter() - begun)
        question = Question(request.message, session_id, turns(lines or []), left, headers)
        async with aclosing(converse(self._bus, question, self._patience)) as parts:
            async for part in parts:
                if isinstance(part, ChatChunk):
                    yield part
                    continue
                message_id = uuid.uuid4().hex
                stored = lines is not None and await self._store(session_id, message_id, part)
                took = (time.perf_counter() - begun) * 1000
                yield self._reply(session_id, message_id, part, took, stored=stored)

    async def _remembered(self, session_id: str, message: str) -> list[SessionLine] | None:
        """The lines before `message`, which is added to them; None when there is no history to be had."""
        said = SessionLine(message_id=uuid.uuid4().hex, role="user", text=message, at=rfc3339_now())
        try:
            lines = await self._sessions.latest(session_id, TURN_LINES)
            await self._sessions.add(session_id, said, begin=True)
        except Failure:
            return None  # the reply says so: `history` is "unavailable"
        return lines

    async def _store(self, session_id: str, message_id: str, answer: Answer) -> bool:
        """Whether the answer is kept: not when Redis went away, nor when the session was deleted meanwhile."""
        line = SessionLine(
            message_id=message_id,
            role="assistant",
            text=answer.text,
            at=rfc3339_now(),
            provider=answer.provider,
            model=answer.model,
        )
        try:
            return await self._sessions.add(session_id, line, begin=False)
        except Failure:
            return False

    def _reply(self, session_id: str, message_id: str, answer: Answer, took_ms: float, *, stored: bool) -> ChatReply:
        degraded = bool(answer.reason)
        return ChatReply(
            response=answer.text,
            model_used=answer.model,
            model=answer.model,
            provider=answer.provider,
            latency_ms=round(took_ms, 1),
            correlation_id=self._call.correlation_id,
            session_id=session_id,
            message_id=message_id,
            status="degraded" if degraded else "ok",
            degraded=degraded,
            fallback_source=MADRE if degraded else None,
            reason=answer.reason or None,
            history="stored" if stored else "unavailable",
        )


def turns(lines: Sequence[SessionLine]) -> list[Turn]:
    """What a model is told of a session: the newest questions that a model answered, with the answers, in order.

    madre's phrases are left out: a model would learn to talk like her, or to pretend that it had done what she did.
    """
    pairs = [
        (asked.text, said.text)
        for asked, said in pairwise(lines)
        if asked.role == "user" and said.role == "assistant" and said.provider != MADRE
    ]
    told: list[Turn] = []
    left = TURN_CHARS
    for question, answer in reversed(pairs):
        left -= len(question) + len(answer)
        if left < 0:
            break
        told[:0] = [Turn(role="user", content=question), Turn(role="assistant", content=answer)]
    return told
