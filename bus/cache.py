"""The cache: short-lived values and chat sessions in Redis, with a bound on what a dead Redis costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from bus.circuit import Circuit
from bus.lean import absent
from schemas.errors import Failure

with absent("opentelemetry", "cryptography"):  # for metrics of its own, 3 MB, and for certificates of clients
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.client import Pipeline
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.exceptions import OutOfMemoryError, ReadOnlyError
    from redis.exceptions import TimeoutError as RedisTimeoutError
    from redis.maint_notifications import MaintNotificationsConfig

PREFIX = "vx11:"
"""Of every key, added here."""
TIMEOUT_S = 0.5
"""For a connection and for an answer; a loopback Redis needs under a millisecond."""
CALL_S = 0.6
"""For one call with its retry: a dead Redis adds no more to a request, and only to the first."""
OPEN_S = 2.0
"""After a failed call all calls fail at once for this long; then one is let through to look."""
CONNECTIONS = 16


class Cache:
    """Values are strings, `ttl` is in seconds.

    Every method raises Failure("unavailable") when Redis is away and Failure("storage_full") when it takes no more.
    What may be done twice is tried twice; `put_new`, `take`, `push` and batches are not.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._circuit = Circuit(OPEN_S)

    async def ping(self) -> float:
        """Milliseconds until Redis answered."""
        begun = time.perf_counter()
        await self._do("PING")
        return (time.perf_counter() - begun) * 1e3

    async def get(self, key: str) -> str | None:
        value: str | None = await self._do("GET", key)
        return value

    async def put(self, key: str, value: str, *, ttl: float | None = None) -> None:
        await self._do("SET", key, value, *_expiry(ttl))

    async def put_new(self, key: str, value: str, *, ttl: float | None = None) -> bool:
        """Put unless the key is there; whether it was put."""
        return bool(await self._do("SET", key, value, *_expiry(ttl), "NX", tries=1))

    async def take(self, key: str) -> str | None:
        """Get and delete in one step: of two takers only one gets it."""
        value: str | None = await self._do("GETDEL", key, tries=1)
        return value

    async def delete(self, *keys: str) -> int:
        """How many of the keys were there."""
        return int(await self._do("DEL", keys[0], *(PREFIX + key for key in keys[1:])))

    async def fields(self, key: str) -> dict[str, str]:
        """All fields of a hash; empty when the key is not there."""
        return dict(await self._do("HGETALL", key))

    async def put_fields(self, key: str, fields: Mapping[str, str]) -> None:
        await self._do("HSET", key, *_flat(fields))

    async def push(self, key: str, *values: str) -> int:
        """Add at the end of a list; its new length."""
        return int(await self._do("RPUSH", key, *values, tries=1))

    async def range(self, key: str, start: int = 0, stop: int = -1) -> list[str]:
        """The values of a list from `start` to `stop`, both included, negative counted from the end."""
        return list(await self._do("LRANGE", key, start, stop))

    async def length(self, key: str) -> int:
        return int(await self._do("LLEN", key))

    async def rank(self, key: str, member: str, score: float) -> None:
        """Put `member` into a sorted set, or move it."""
        await self._do("ZADD", key, score, member)

    async def unrank(self, key: str, member: str) -> None:
        await self._do("ZREM", key, member)

    async def highest(self, key: str, offset: int, limit: int) -> list[str]:
        """Members of a sorted set from the highest score down."""
        return list(await self._do("ZREVRANGE", key, offset, offset + limit - 1))

    async def ranked(self, key: str) -> int:
        """How many members a sorted set has."""
        return int(await self._do("ZCARD", key))

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[Batch]:
        """Write what was collected when the block ends, as one transaction; nothing when it raises."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            yield Batch(pipeline)
            await self._guarded(pipeline.execute, tries=1)

    async def _do(self, command: str, key: str = "", *rest: str | float, tries: int = 2) -> Any:
        words = (PREFIX + key, *rest) if key else ()

        def send() -> Awaitable[Any]:
            answer: Awaitable[Any] = self._redis.execute_command(command, *words)  # type: ignore[no-untyped-call]
            return answer

        return await self._guarded(send, tries=tries)

    async def _guarded(self, call: Callable[[], Awaitable[Any]], *, tries: int) -> Any:
        if left := self._circuit.wait():
            raise Failure("unavailable", "the cache does not answer", retry_after=round(left, 1))
        with self._circuit.trying() as attempt:
            try:
                async with asyncio.timeout(CALL_S):
                    result = await _tried(call, tries)
            except (RedisConnectionError, RedisTimeoutError, TimeoutError, ReadOnlyError) as error:
                attempt.failed()
                reason = f"the cache does not answer: {type(error).__name__}"
                raise Failure("unavailable", reason, retry_after=OPEN_S) from error
            except OutOfMemoryError as error:
                raise Failure("storage_full", "the cache is full") from error
            attempt.succeeded()
            return result


class Batch:
    """Writes that are all done or none. Nothing is sent before the block of `Cache.batch` ends."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def put(self, key: str, value: str, *, ttl: float | None = None) -> None:
        self._add("SET", key, value, *_expiry(ttl))

    def put_fields(self, key: str, fields: Mapping[str, str]) -> None:
        self._add("HSET", key, *_flat(fields))

    def push(self, key: str, *values: str) -> None:
        self._add("RPUSH", key, *values)

    def rank(self, key: str, member: str, score: float) -> None:
        self._add("ZADD", key, score, member)

    def unrank(self, key: str, member: str) -> None:
        self._add("ZREM", key, member)

    def delete(self, *keys: str) -> None:
        for key in keys:
            self._add("DEL", key)

    def _add(self, command: str, key: str, *rest: str | float) -> None:
        self._pipeline.execute_command(command, PREFIX + key, *rest)


@asynccontextmanager
async def open_cache(url: str) -> AsyncIterator[Cache]:
    """A cache on the server at `url`; nothing is connected before the first call, so a dead server is no error here."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=TIMEOUT_S,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),  # the default is 10 and would repeat a push; `Cache` repeats what may be
        decode_responses=True,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),  # a cloud feature: one more round trip
    )
    redis = Redis(connection_pool=pool)
    try:
        yield Cache(redis)
    finally:
        await redis.aclose()
        await pool.disconnect()


async def _tried(call: Callable[[], Awaitable[Any]], tries: int) -> Any:
    """Again only after a broken connection, as every pooled one is when the server has restarted; not after silence."""
    for _ in range(tries - 1):
        try:
            return await call()
        except RedisConnectionError:
            continue
    return await call()


def _expiry(ttl: float | None) -> tuple[str | int, ...]:
    return () if ttl is None else ("PX", max(1, round(ttl * 1e3)))


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [word for pair in fields.items() for word in pair]
