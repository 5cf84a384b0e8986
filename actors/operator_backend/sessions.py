"""Chat sessions as they are kept in Redis: what was said, under which title, newest session first.

They are user data and have no expiry. Bounded are the lines and bytes of one session, whose oldest lines give way, and
the number of sessions: past it the one longest silent gives way, those with a name of their own at the very last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from pydantic import ValidationError

from schemas.errors import Failure
from schemas.operator_backend import Session, SessionLine, SessionSummary

log = logging.getLogger("vx11.operator_backend")

SESSIONS_MOST = 500
"""With SESSION_BYTES that is 100 MB, under half of what the bundled server may hold."""
SESSION_LINES = 1_000
SESSION_BYTES = 200_000
KEPT = 0.8
"""Of the lines and bytes, when a session is over its bounds: so that not every line rewrites it."""
LINE_CHARS = 40_000
"""Of one line; longer answers are kept cut."""
CUT = "\n… (cut here to be kept)"
TITLE_CHARS = 80

INDEX = "chat:sessions"
"""Sorted set: session id to the time of its last line."""


class Writes(Protocol):
    """Writes that are all done or none."""

    def put_fields(self, key: str, fields: Mapping[str, str]) -> None: ...
    def push(self, key: str, *values: str) -> None: ...
    def rank(self, key: str, member: str, score: float) -> None: ...
    def unrank(self, key: str, member: str) -> None: ...
    def delete(self, *keys: str) -> None: ...


class Store(Protocol):
    """The part of the cache that sessions need. Every method raises Failure("unavailable") when Redis is away."""

    async def fields(self, key: str) -> dict[str, str]: ...
    async def put_fields(self, key: str, fields: Mapping[str, str]) -> None: ...
    async def range(self, key: str, start: int = 0, stop: int = -1) -> list[str]: ...
    async def highest(self, key: str, offset: int, limit: int) -> list[str]: ...
    async def ranked(self, key: str) -> int: ...
    def batch(self) -> AbstractAsyncContextManager[Writes]: ...


class Sessions:
    """All sessions. Every method raises what the store raises; `store` None: no Redis is configured."""

    def __init__(self, store: Store | None, *, most: int = SESSIONS_MOST) -> None:
        self._configured = store
        self._most = most
        self._writing = asyncio.Lock()

    async def latest(self, session_id: str, count: int) -> list[SessionLine]:
        """The newest `count` lines, oldest first; empty for a session that is not there."""
        return _lines(await self._store.range(_lines_key(session_id), -count, -1))

    async def add(self, session_id: str, line: SessionLine, *, begin: bool) -> bool:
        """Add a line. `begin` makes the session when it is not there; without it False is returned then."""
        async with self._writing:
            head = await self._store.fields(_head_key(session_id))
            if not head and not begin:
                return False
            await self._write(session_id, head, _short(line))
            if not head:
                await self._make_room()
            return True

    async def summaries(self, offset: int, limit: int) -> list[SessionSummary]:
        """The session of the newest line first."""
        found = [(name, await self._store.fields(_head_key(name))) for name in await self._store.highest(INDEX, offset, limit)]
        return [_summary(session_id, head) for session_id, head in found if head]

    async def count(self) -> int:
        return await self._store.ranked(INDEX)

    async def get(self, session_id: str) -> Session:
        """Raises Failure("not_found")."""
        head = await self._head(session_id)
        lines = _lines(await self._store.range(_lines_key(session_id)))
        return Session(session_id=session_id, title=head["title"], lines=lines)

    async def rename(self, session_id: str, title: str) -> SessionSummary:
        """Raises Failure("not_found")."""
        async with self._writing:
            named = {**await self._head(session_id), "title": title, "named": "1"}
            await self._store.put_fields(_head_key(session_id), named)
            return _summary(session_id, named)

    async def delete(self, session_id: str) -> None:
        """Raises Failure("not_found")."""
        async with self._writing:
            await self._head(session_id)
            await self._forget(session_id)

    @property
    def _store(self) -> Store:
        if self._configured is None:
            raise Failure("unavailable", "no Redis is configured for chat sessions (VX11_REDIS_URL)")
        return self._configured

    async def _head(self, session_id: str) -> dict[str, str]:
        if head := await self._store.fields(_head_key(session_id)):
            return head
        raise Failure("not_found", f"there is no chat session {session_id}")

    async def _write(self, session_id: str, head: Mapping[str, str], line: SessionLine) -> None:
        text, key = line.model_dump_json(), _lines_key(session_id)
        count, size = int(head.get("lines", 0)) + 1, int(head.get("bytes", 0)) + len(text.encode())
        over = count > SESSION_LINES or size > SESSION_BYTES
        kept = _newest([*await self._store.range(key), text]) if over else []
        if over:
            count, size = len(kept), sum(len(t.encode()) for t in kept)
        written = {"lines": str(count), "bytes": str(size), "updated_at": line.at}
        async with self._store.batch() as batch:
            if over:
                batch.delete(key)
            batch.push(key, *(kept or [text]))
            batch.put_fields(_head_key(session_id), written if head else {**written, "title": _title(line.text)})
            batch.rank(INDEX, session_id, _moment(line.at))

    async def _make_room(self) -> None:
        """Forget sessions until there are no more than the bound allows."""
        while (count := await self._store.ranked(INDEX)) > self._most:
            oldest_first = (await self._store.highest(INDEX, 0, count))[::-1]
            await self._forget(await self._expendable(oldest_first[:-1]))

    async def _expendable(self, oldest_first: Sequence[str]) -> str:
        for session_id in oldest_first:
            if not (await self._store.fields(_head_key(session_id))).get("named"):
                log.info("the chat session %s gives way: there are more than %d", session_id, self._most)
                return session_id
        log.warning("the named chat session %s gives way: there are more than %d", oldest_first[0], self._most)
        return oldest_first[0]

    async def _forget(self, session_id: str) -> None:
        async with self._store.batch() as batch:
            batch.delete(_lines_key(session_id), _head_key(session_id))
            batch.unrank(INDEX, session_id)


def _lines_key(session_id: str) -> str:
    return f"chat:{session_id}:lines"


def _head_key(session_id: str) -> str:
    """Hash: `title`, `named` (by a person), `lines`, `bytes`, `updated_at`."""
    return f"chat:{session_id}:head"


def _lines(texts: Sequence[str]) -> list[SessionLine]:
    return [line for text in texts if (line := _line(text))]


def _line(text: str) -> SessionLine | None:
    """A line of another version of VX11 may not fit: it is left out, not the whole session."""
    try:
        return SessionLine.model_validate_json(text)
    except ValidationError as error:
        log.warning("a chat line cannot be read: %s", error.errors(include_input=False)[0]["msg"])
        return None


def _newest(texts: Sequence[str]) -> list[str]:
    """The newest lines that keep to KEPT of the bounds, at least one; oldest first."""
    kept: list[str] = []
    left = SESSION_BYTES * KEPT
    for text in reversed(texts[-int(SESSION_LINES * KEPT) :]):
        left -= len(text.encode())
        if kept and left < 0:
            break
        kept.append(text)
    return kept[::-1]


def _short(line: SessionLine) -> SessionLine:
    if len(line.text) <= LINE_CHARS:
        return line
    return line.model_copy(update={"text": line.text[:LINE_CHARS] + CUT})


def _title(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= TITLE_CHARS else words[: TITLE_CHARS - 1] + "…"


def _summary(session_id: str, head: Mapping[str, str]) -> SessionSummary:
    return SessionSummary(session_id=session_id, title=head["title"], messages=int(head["lines"]), updated_at=head["updated_at"])


def _moment(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
