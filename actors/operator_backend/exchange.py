"""One message and its answer, with the history before it and after it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import pairwise

from actors.operator_backend.conversation import MADRE, Answer, Asks, Patience, Question, converse
from actors.operator_backend.sessions import Sessions
from bus import Call
from bus.call import SCOPES
from bus.moment import rfc3339_now
from schemas.errors import Failure
from schemas.language import Language, language_of
from schemas.operator_backend import Chat, ChatChunk, ChatReply, SessionLine
from schemas.switch import Turn

TURNS_MOST = 200
"""Newest lines of a session that switch is told, which leaves out what does not fit into the model's window."""
TURN_BYTES = 400_000
"""Of all of them together, as they travel: a message on the bus has 1 MB."""
HOLDER_CHARS = 128


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
        question = self._question(request, session_id, lines or [], self._seconds - (time.perf_counter() - begun))
        async with aclosing(converse(self._bus, question, self._patience)) as parts:
            async for part in parts:
                if isinstance(part, ChatChunk):
                    yield part
                    continue
                message_id = uuid.uuid4().hex
                stored = lines is not None and await self._store(session_id, message_id, part)
                took = (time.perf_counter() - begun) * 1000
                yield self._reply(session_id, message_id, part, took, stored=stored)

    def _question(self, request: Chat, session_id: str, lines: Sequence[SessionLine], seconds: float) -> Question:
        return Question(
            request.message,
            session_id,
            turns(lines),
            seconds,
            {SCOPES: self._call.scopes} if self._call.scopes else {},
            language=spoken(request.message, lines),
            model=request.model,
            holder=self._call.caller[:HOLDER_CHARS],
            asked=bool(lines and lines[-1].pending),
        )

    async def _remembered(self, session_id: str, message: str) -> list[SessionLine] | None:
        """The lines before `message`, which is added to them; None when there is no history to be had."""
        said = SessionLine(message_id=uuid.uuid4().hex, role="user", text=message, at=rfc3339_now())
        try:
            lines = await self._sessions.latest(session_id, TURNS_MOST)
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
            speakers=answer.speakers,
            reason=answer.reason,
            note=answer.note,
            pending=answer.pending,
        )
        try:
            return await self._sessions.add(session_id, line, begin=False)
        except Failure:
            return False

    def _reply(self, session_id: str, message_id: str, answer: Answer, took_ms: float, *, stored: bool) -> ChatReply:
        degraded = bool(answer.code)
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
            fallback_code=answer.code or None,
            reason=answer.reason or None,
            note=answer.note,
            speakers=answer.speakers,
            pending=answer.pending,
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
    left = TURN_BYTES
    for question, answer in reversed(pairs):
        left -= len(json.dumps([question, answer], ensure_ascii=False).encode())
        if left < 0:
            break
        told[:0] = [Turn(role="user", content=question), Turn(role="assistant", content=answer)]
    return told


def spoken(message: str, lines: Sequence[SessionLine]) -> Language:
    """The language of the message; where nothing tells, that of the newest question before it that does."""
    before = (line.text for line in reversed(lines) if line.role == "user")
    return next(filter(None, map(language_of, (message, *before))), "en")
