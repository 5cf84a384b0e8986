"""A connection is used for the next question, too; one that its server has just closed is no failure of the provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from actors.switch.asking import endpoint as door
from actors.switch.asking.endpoint import Endpoint, opened
from actors.switch.asking.failure import ProviderFailed
from actors.switch.configured.providers import Provider
from tests.switch.asking import SHORT, stream
from tests.switch.scripted import Exchange, Script, _request, says


@dataclass
class Keeping:
    """A server that answers one request after the other on a connection. `asked`: the connection of each, by its number."""

    url: str = ""
    asked: list[int] = field(default_factory=list)


@asynccontextmanager
async def keeping(act: Callable[[int, int, Exchange], Awaitable[None]]) -> AsyncIterator[Keeping]:
    """`act` is given the number of the connection, that of the request on it, and the request."""
    server, writers = Keeping(), []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        connection, count = len(writers), 0
        try:
            while True:
                asked = await _request(reader)
                server.asked.append(connection)
                await act(connection, count, Exchange(asked, reader, writer))
                count += 1
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        yield server
        for writer in writers:
            writer.transport.abort()


async def text(endpoint: Endpoint, url: str) -> str:
    async with aclosing(stream(endpoint, Provider("test", url, "m"))) as told:
        return "".join([piece.text async for piece in told])


def always(script: Script) -> Callable[[int, int, Exchange], Awaitable[None]]:
    return lambda _connection, _count, exchange: script(exchange)


async def test_the_next_question_goes_over_the_same_connection() -> None:
    """A handshake with a far server takes longer than its first word."""
    async with keeping(always(says("Hi"))) as server, opened() as endpoint:
        assert [await text(endpoint, server.url) for _ in range(3)] == ["Hi"] * 3
    assert server.asked == [1, 1, 1]


async def test_two_at_once_do_not_share_one() -> None:
    async with keeping(always(says("a", "b"))) as server, opened() as endpoint:
        assert await asyncio.gather(*(text(endpoint, server.url) for _ in range(4))) == ["ab"] * 4
    assert sorted(server.asked) == [1, 2, 3, 4]


async def test_a_kept_connection_that_ends_at_the_next_question_is_replaced() -> None:
    async def once(_connection: int, count: int, exchange: Exchange) -> None:
        if count:
            exchange.cut()
        else:
            await says("Hi")(exchange)

    async with keeping(once) as server, opened() as endpoint:
        assert [await text(endpoint, server.url) for _ in range(3)] == ["Hi"] * 3
    assert server.asked[:3] == [1, 1, 2]


async def test_a_question_that_may_have_been_begun_is_not_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who had closed the connection says so at once; one that breaks off later has perhaps made an answer, to be paid."""
    monkeypatch.setattr(door, "STALE_S", 0.05)

    async def works_then_dies(_connection: int, count: int, exchange: Exchange) -> None:
        if count:
            await asyncio.sleep(0.3)
            exchange.cut()
        else:
            await says("Hi")(exchange)

    async with keeping(works_then_dies) as server, opened() as endpoint:
        assert await text(endpoint, server.url) == "Hi"
        with pytest.raises(ProviderFailed, match="the connection was cut"):
            await text(endpoint, server.url)
    assert server.asked == [1, 1]


async def test_a_new_connection_that_is_cut_is_a_failure_and_is_not_asked_twice() -> None:
    async def cuts(_connection: int, _count: int, exchange: Exchange) -> None:
        exchange.cut()

    async with keeping(cuts) as server, opened() as endpoint:
        with pytest.raises(ProviderFailed, match="the connection was cut"):
            await text(endpoint, server.url)
    assert server.asked == [1]


async def test_an_answer_that_was_left_in_its_middle_ends_its_connection() -> None:
    """Only so does the provider stop; and what it still says belongs to nobody."""

    async def slow(_connection: int, _count: int, exchange: Exchange) -> None:
        await exchange.head()
        await exchange.say("begun")
        await exchange.hold()

    async with keeping(slow) as server, opened(SHORT) as endpoint:
        for _ in range(2):
            async with aclosing(stream(endpoint, Provider("test", server.url, "m"))) as told:
                assert (await anext(told)).text == "begun"
    assert server.asked == [1, 2]
