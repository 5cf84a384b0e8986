"""The cache on a real Valkey, and what it costs when that is dead, frozen or full."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import stat
import time

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError

from bus import cache as cache_module
from bus.cache import CALL_S, open_cache
from bus.circuit import Circuit
from bus.redis_server import RedisServer, embedded
from bus.settings import Settings
from schemas.errors import Failure

SLACK_S = 0.4
"""For a busy machine, on top of what the settings allow."""


@pytest.fixture
async def cache(redis_server):
    async with open_cache(redis_server.url) as cache:
        yield cache


@pytest.fixture
def short_rest(monkeypatch):
    monkeypatch.setattr(cache_module, "OPEN_S", 0.2)


async def test_a_value_lives_as_long_as_it_was_given(cache):
    await cache.put("a", "señor", ttl=0.05)
    assert await cache.get("a") == "señor"
    await until(lambda: cache.get("a"), None)


async def test_a_value_without_an_end_stays(cache):
    await cache.put("stays", "1")
    assert await cache.get("stays") == "1"


async def test_a_token_is_taken_by_one_only(cache):
    await cache.put("token", "who", ttl=60)
    taken = await asyncio.gather(*(cache.take("token") for _ in range(10)))
    assert sorted(taken, key=str) == [None] * 9 + ["who"]


async def test_the_first_to_put_a_new_value_wins(cache):
    won = await asyncio.gather(*(cache.put_new("first", str(n), ttl=60) for n in range(10)))
    assert won.count(True) == 1


async def test_a_hash_keeps_what_is_not_named_again(cache):
    await cache.put_fields("h", {"title": "one", "messages": "1"})
    await cache.put_fields("h", {"messages": "2"})
    assert await cache.fields("h") == {"title": "one", "messages": "2"}
    assert await cache.fields("absent") == {}


async def test_a_list_is_read_in_order_and_from_its_end(cache):
    await cache.push("l", "a", "b")
    assert await cache.push("l", "c") == 3
    assert await cache.range("l") == ["a", "b", "c"]
    assert await cache.range("l", -2) == ["b", "c"]
    assert await cache.length("l") == 3


async def test_the_index_lists_the_newest_first(cache):
    for score, member in enumerate(["old", "middle", "new"]):
        await cache.rank("index", member, score)
    await cache.rank("index", "old", 9)
    assert await cache.highest("index", 0, 2) == ["old", "new"]
    await cache.unrank("index", "old")
    assert await cache.highest("index", 1, 5) == ["middle"]
    assert await cache.ranked("index") == 2


async def test_a_batch_is_done_whole(cache):
    async with cache.batch() as batch:
        batch.push("s:lines", "hello")
        batch.put_fields("s", {"title": "t"})
        batch.rank("s:index", "s", 1)
        batch.put("s:note", "n", ttl=60)
        batch.delete("nothing")
        batch.unrank("s:index", "nobody")
    assert (await cache.range("s:lines"), await cache.fields("s")) == (["hello"], {"title": "t"})


async def test_a_batch_that_was_given_up_did_nothing(cache):
    with pytest.raises(KeyError):
        async with cache.batch() as batch:
            batch.put("half", "done")
            raise KeyError
    assert await cache.get("half") is None


async def test_delete_says_how_many_there_were(cache):
    await cache.put("d1", "1")
    await cache.put("d2", "1")
    assert await cache.delete("d1", "d2", "d3") == 2


async def test_every_key_is_ours_by_its_name(redis_server, cache):
    await cache.put("mine", "1", ttl=60)
    async with cache.batch() as batch:
        batch.put("mine:too", "1", ttl=60)
    async with Redis.from_url(redis_server.url, decode_responses=True) as raw:
        keys = await raw.keys("*")
    assert keys
    assert all(key.startswith("vx11:") for key in keys)


async def test_a_dead_redis_costs_its_bound_once_and_then_nothing(tmp_path):
    """What stands in for a cache must not wait for it: the first call finds out, the others know."""
    with embedded(tmp_path) as server:
        async with open_cache(server.url) as cache:
            await cache.put("a", "1")
            server.kill()
            assert await failing(cache) < CALL_S + SLACK_S
            waits = [await failing(cache) for _ in range(1_000)]
    assert sum(waits) < 0.5


async def test_a_frozen_redis_costs_its_bound_once_and_then_nothing(tmp_path):
    """The worst case: the connection stands, nothing comes back."""
    with embedded(tmp_path) as server:
        async with open_cache(server.url) as cache:
            await cache.put("a", "1")
            os.kill(server.process.pid, signal.SIGSTOP)
            together = await asyncio.gather(*(failing(cache) for _ in range(50)))
            waits = [await failing(cache) for _ in range(1_000)]
    assert max(together) < CALL_S + SLACK_S
    assert sum(waits) < 0.5


async def test_the_cache_is_itself_again_when_redis_is_back(tmp_path, short_rest):
    """With what was written before the kill: the log is written out each second."""
    with embedded(tmp_path) as server:
        async with open_cache(server.url) as cache:
            await cache.push("lines", "kept")
            server.stop()
            await failing(cache)
            server.start()
            await until(lambda: lines_of(cache), ["kept"])


async def test_a_restart_between_two_calls_is_not_noticed(tmp_path):
    """Every pooled connection is dead then, and none of them may fail a call."""
    with embedded(tmp_path) as server:
        async with open_cache(server.url) as cache:
            await asyncio.gather(*(cache.put(f"k{n}", "1") for n in range(30)))
            server.stop()
            server.start()
            assert await asyncio.gather(*(cache.get(f"k{n}") for n in range(30))) == ["1"] * 30
            assert await cache.push("lines", "one") == 1


async def test_a_cancelled_call_never_gives_its_answer_to_another(cache):
    """redis-py once did (CVE-2023-28859): one user's session in another's hands."""
    for n in range(20):
        await cache.put(f"mine:{n}", str(n), ttl=60)
    wrong = 0
    generator = random.Random(11)
    for _ in range(100):
        calls = [asyncio.create_task(cache.get(f"mine:{n}")) for n in range(20)]
        await asyncio.sleep(generator.random() * 0.002)
        for call in generator.sample(calls, 10):
            call.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for n, answer in enumerate(answers):
            assert answer == str(n) or isinstance(answer, asyncio.CancelledError)
            wrong += answer != str(n) and not isinstance(answer, asyncio.CancelledError)
    assert wrong == 0


async def test_a_full_redis_says_so_and_stays_readable(tmp_path):
    with embedded(tmp_path) as server:
        async with open_cache(server.url) as cache, Redis.from_url(server.url) as raw:
            await cache.put("a", "1")
            await raw.config_set("maxmemory", "1")
            with pytest.raises(Failure) as failed:
                await cache.put("b", "2")
            assert failed.value.code == "storage_full"
            assert await cache.get("a") == "1"


async def test_a_batch_that_a_full_redis_refuses_is_refused_whole(tmp_path):
    """A delete needs no room: sent one by one, it alone would be done."""
    with embedded(tmp_path) as server:
        async with open_cache(server.url) as cache, Redis.from_url(server.url) as raw:
            await cache.put("a", "1")
            await raw.config_set("maxmemory", "1")
            with pytest.raises(Failure) as failed:
                async with cache.batch() as batch:
                    batch.delete("a")
                    batch.put("b", "2")
            assert failed.value.code == "storage_full"
            assert await cache.get("a") == "1"


async def test_opening_a_cache_without_a_server_is_no_error():
    async with open_cache("redis://127.0.0.1:1/0") as cache:
        assert await failing(cache) < CALL_S + SLACK_S


async def test_a_ping_tells_its_time(cache):
    assert 0 < await cache.ping() < 500


async def test_who_has_no_password_is_refused(redis_server):
    async with Redis(host="127.0.0.1", port=redis_server.port, retry=Retry(NoBackoff(), 0)) as raw:
        with pytest.raises(AuthenticationError):
            await raw.ping()


def test_the_password_is_for_its_owner_only_and_not_on_the_command_line(redis_server):
    path = redis_server.home / "redis" / "password"
    secret = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((path.parent / "redis.conf").stat().st_mode) == 0o600
    assert secret not in " ".join(redis_server.argv)


def test_a_stranger_on_the_port_is_not_taken_for_ours(tmp_path, redis_server):
    other = RedisServer(Settings(tmp_path), redis_server.port)
    with pytest.raises(Failure, match="did not start"):
        other.start()


def test_a_circuit_lets_one_attempt_look_at_a_time():
    now = 0.0
    circuit = Circuit(2.0, clock=lambda: now)
    with circuit.trying() as attempt:
        attempt.failed()
    assert circuit.wait() == 2.0
    now = 2.5
    assert circuit.wait() == 0.0
    with circuit.trying():
        assert circuit.wait() > 0
    assert circuit.wait() == 0.0, "an attempt that was given up says nothing"
    with circuit.trying() as attempt:
        attempt.succeeded()
    assert circuit.wait() == 0.0


async def failing(cache) -> float:
    """Seconds until a call failed, as it must."""
    begun = time.perf_counter()
    with pytest.raises(Failure) as failed:
        await cache.get("a")
    assert failed.value.code == "unavailable"
    assert failed.value.details["retry_after"] > 0
    return time.perf_counter() - begun


async def lines_of(cache):
    try:
        return await cache.range("lines")
    except Failure:
        return "away"


async def until(look, wanted) -> None:
    async with asyncio.timeout(5):
        while await look() != wanted:
            await asyncio.sleep(0.005)
