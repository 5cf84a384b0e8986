"""Chat sessions on a real Valkey: what is kept, what gives way, and that nothing else does."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from actors.operator_backend import sessions as sessions_module
from actors.operator_backend.sessions import (
    CUT,
    LINE_CHARS,
    SESSION_BYTES,
    SESSION_LINES,
    SESSIONS_MOST,
    TITLE_CHARS,
    Sessions,
)
from bus.cache import Cache, open_cache
from bus.moment import rfc3339
from bus.redis_server import RedisServer
from schemas.errors import Failure
from schemas.operator_backend import SessionLine


@pytest.fixture
async def cache(redis_server: RedisServer) -> AsyncIterator[Cache]:
    """Empty again after each test, by what the sessions themselves offer: a key that they forget shows here."""
    async with open_cache(redis_server.url) as cache:
        yield cache
        left = Sessions(cache)
        for summary in await left.summaries(0, SESSIONS_MOST):
            await left.delete(summary.session_id)
        assert await cache._redis.dbsize() == 0


@pytest.fixture
def sessions(cache: Cache) -> Sessions:
    return Sessions(cache)


def line(text: str, *, at: float = 0.0, role: str = "user", message_id: str = "m") -> SessionLine:
    made = {"message_id": message_id, "role": role, "text": text, "at": rfc3339(at or time.time())}
    return SessionLine.model_validate(made)


async def test_what_was_said_is_read_back_in_order(sessions: Sessions) -> None:
    for text in ("one", "two", "three"):
        await sessions.add("s", line(text), begin=True)
    assert [said.text for said in (await sessions.get("s")).lines] == ["one", "two", "three"]
    assert [said.text for said in await sessions.latest("s", 2)] == ["two", "three"]


async def test_the_title_is_the_first_thing_said(sessions: Sessions) -> None:
    await sessions.add("s", line("  What is\nthe weather? " + "x" * 100), begin=True)
    await sessions.add("s", line("something else"), begin=True)
    title = (await sessions.get("s")).title
    assert title.startswith("What is the weather? xxx")
    assert len(title) == TITLE_CHARS


async def test_sessions_are_listed_by_their_newest_line(sessions: Sessions) -> None:
    for at, name in enumerate(["a", "b", "c", "a"], start=1):
        await sessions.add(name, line(name, at=at), begin=True)
    listed = await sessions.summaries(0, 10)
    assert [(s.session_id, s.messages, s.updated_at) for s in listed] == [
        ("a", 2, "1970-01-01T00:00:04.000Z"),
        ("c", 1, "1970-01-01T00:00:03.000Z"),
        ("b", 1, "1970-01-01T00:00:02.000Z"),
    ]
    assert [s.session_id for s in await sessions.summaries(1, 1)] == ["c"]
    assert await sessions.count() == 3


async def test_a_session_can_be_named(sessions: Sessions) -> None:
    await sessions.add("s", line("one"), begin=True)
    assert (await sessions.rename("s", "Mine")).title == "Mine"
    await sessions.add("s", line("two"), begin=True)
    assert (await sessions.get("s")).title == "Mine"


async def test_a_deleted_session_is_gone_whole(sessions: Sessions, cache: Cache) -> None:
    """It is personal data: nothing of it may stay behind."""
    await sessions.add("s", line("one"), begin=True)
    await sessions.delete("s")
    assert await cache._redis.dbsize() == 0


async def test_the_answer_to_a_deleted_session_does_not_bring_it_back(sessions: Sessions) -> None:
    await sessions.add("s", line("one"), begin=True)
    await sessions.delete("s")
    assert not await sessions.add("s", line("answer", role="assistant"), begin=False)
    assert await sessions.count() == 0


async def test_what_is_not_there_is_not_found(sessions: Sessions) -> None:
    for asked in (sessions.get("no"), sessions.rename("no", "x"), sessions.delete("no")):
        with pytest.raises(Failure) as caught:
            await asked
        assert caught.value.code == "not_found"


async def test_a_session_has_no_expiry(sessions: Sessions, cache: Cache) -> None:
    """User data does not vanish because nobody looked at it."""
    await sessions.add("s", line("one"), begin=True)
    keys = [key async for key in cache._redis.scan_iter()]
    assert keys
    assert [await cache._redis.ttl(key) for key in keys] == [-1] * len(keys)
    assert all(key.startswith("vx11:") for key in keys)


async def test_of_too_many_lines_the_oldest_give_way(sessions: Sessions, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "SESSION_LINES", 10)
    for number in range(25):
        await sessions.add("s", line(str(number)), begin=True)
        assert len((await sessions.get("s")).lines) <= 10
    kept = [said.text for said in (await sessions.get("s")).lines]
    assert kept == [str(n) for n in range(25)][-len(kept) :]
    assert len(kept) >= 8
    assert (await sessions.summaries(0, 1))[0].messages == len(kept)


async def test_of_too_many_bytes_the_oldest_give_way(sessions: Sessions, cache: Cache) -> None:
    """Bytes as they are stored: an emoji has four."""
    for number in range(12):
        await sessions.add("s", line(f"{number} " + "\N{ANT}" * 9_000), begin=True)
        stored = await cache.range("chat:s:lines")
        assert sum(len(text.encode()) for text in stored) <= SESSION_BYTES
    assert (await sessions.latest("s", 1))[0].text.startswith("11 ")
    assert len(stored) >= 4


async def test_a_line_that_is_too_long_is_kept_cut_and_says_so(sessions: Sessions) -> None:
    await sessions.add("s", line("x" * (LINE_CHARS + 1)), begin=True)
    assert (await sessions.latest("s", 1))[0].text == "x" * LINE_CHARS + CUT


async def test_of_too_many_sessions_the_longest_silent_without_a_name_gives_way(cache: Cache) -> None:
    """Naming a session is how a person says that it matters."""
    sessions = Sessions(cache, most=3)
    for at, name in enumerate(["named", "old", "newer"], start=1):
        await sessions.add(name, line(name, at=at), begin=True)
    await sessions.rename("named", "Keep this")
    await sessions.add("newest", line("newest", at=9), begin=True)
    assert [s.session_id for s in await sessions.summaries(0, 9)] == ["newest", "newer", "named"]


async def test_of_named_sessions_only_the_oldest_gives_way_and_never_the_newest(cache: Cache) -> None:
    sessions = Sessions(cache, most=2)
    for at, name in enumerate(["a", "b"], start=1):
        await sessions.add(name, line(name, at=at), begin=True)
        await sessions.rename(name, name)
    await sessions.add("c", line("c", at=3), begin=True)
    assert [s.session_id for s in await sessions.summaries(0, 9)] == ["c", "b"]


async def test_a_line_that_cannot_be_read_does_not_hide_the_others(sessions: Sessions, cache: Cache) -> None:
    """As after going back to an older VX11."""
    await sessions.add("s", line("one"), begin=True)
    await cache.push("chat:s:lines", '{"from": "the future"}')
    assert [said.text for said in (await sessions.get("s")).lines] == ["one"]


async def test_without_a_configured_redis_sessions_are_unavailable() -> None:
    with pytest.raises(Failure) as caught:
        await Sessions(None).summaries(0, 1)
    assert caught.value.code == "unavailable"


def test_all_sessions_at_their_bounds_fit_into_the_bundled_server() -> None:
    """256 MB, a part of which is overhead and other keys."""
    assert SESSIONS_MOST * SESSION_BYTES <= 128_000_000
    assert SESSION_LINES >= 1_000
