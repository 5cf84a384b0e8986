"""Streamed answers as the client sees them: every piece, in order, then the whole; or a clear error."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest

from bus import call
from bus.nats_server import embedded
from bus.unread import UNREAD_BYTES_MOST, UNREAD_MOST
from schemas.errors import Failure
from tests.bus.counter import PRICE, Counter, Crumb, Price, Slice, client, counter, ignore, ignore_first, told_exit
from tests.bus.shop import until
from tests.bus.wires import opened


@pytest.fixture
async def bus(nats_server):
    async with client(nats_server) as bus:
        yield bus
        assert bus._asked == {}
        assert bus.wire._answers == {}


def piece(shop: Counter, msg, n: int) -> None:
    shop.answer(msg, b'{"n": %d}' % n, vx11_seq=str(n))


def crumbs(*numbers: int):
    """Answers with these pieces and the whole."""

    def act(shop: Counter, msg) -> None:
        for n in numbers:
            piece(shop, msg, n)
        shop.answer(msg, PRICE, vx11_seq=str(len(numbers)), vx11_end="ok")

    return act


async def collected(items, got: list | None = None) -> list:
    got = [] if got is None else got
    async with aclosing(items):
        async for item in items:
            got.append(item)
    return got


async def test_the_pieces_come_in_order_and_the_whole_last(nats_server, bus):
    async with counter(nats_server, crumbs(0, 1, 2)) as shop:
        assert await collected(bus.stream(Slice())) == [Crumb(n=0), Crumb(n=1), Crumb(n=2), Price(euros=2)]
    assert shop.header(call.STREAM) == ["1"]


async def test_an_answer_that_was_not_streamed_is_the_whole(nats_server, bus):
    async with counter(nats_server):
        assert await collected(bus.stream(Slice())) == [Price(euros=2)]


@pytest.mark.parametrize("numbers", [(0, 2), (1,), (0, 0), (0, 1, 3)])
async def test_a_missing_piece_is_crashed_and_no_shorter_answer(nats_server, bus, numbers):
    got: list = []
    async with counter(nats_server, crumbs(*numbers)):
        with pytest.raises(Failure, match="lost pieces") as failed:
            await collected(bus.stream(Slice()), got)
    assert failed.value.code == "crashed"
    assert Price(euros=2) not in got


async def test_an_error_in_the_middle_ends_the_stream_with_it(nats_server, bus):
    def act(shop, msg):
        piece(shop, msg, 0)
        shop.refuse(msg, Failure("busy", "too slow"), vx11_end="error")

    got: list = []
    async with counter(nats_server, act):
        with pytest.raises(Failure, match="too slow") as failed:
            await collected(bus.stream(Slice()), got)
    assert failed.value.code == "busy"
    assert got == [Crumb(n=0)]


async def test_a_stream_whose_instance_dies_in_the_middle_is_crashed_and_not_asked_again(nats_server, bus):
    """Half an answer that begins anew would be two halves."""
    got: list = []
    async with counter(nats_server, lambda shop, msg: piece(shop, msg, 0)) as shop, opened(nats_server, "madre") as host:
        streaming = asyncio.create_task(collected(bus.stream(Slice()), got))
        await until(lambda: got)
        told_exit(host)
        with pytest.raises(Failure, match="cut off after 1") as failed:
            await streaming
    assert failed.value.code == "crashed"
    assert len(shop.got) == 1


async def test_a_stream_that_had_not_begun_is_asked_again(nats_server, bus):
    async with counter(nats_server, ignore_first) as shop, opened(nats_server, "madre") as host:
        streaming = asyncio.create_task(collected(bus.stream(Slice())))
        await until(lambda: shop.got)
        told_exit(host)
        assert await streaming == [Price(euros=2)]
    assert shop.header(call.AGAIN) == [None, "1"]
    assert shop.header(call.STREAM) == ["1", "1"]


@pytest.mark.parametrize(("then", "ends"), [(1, "ok"), (2, "crashed")])
async def test_a_stream_outlives_a_server_if_nothing_was_lost_with_it(tmp_path, then, ends):
    """The repeat asks whether it goes on; what was said while nobody listened is gone, and shows as a gap."""
    got: list = []

    def act(shop, msg):
        if len(shop.got) == 1:
            piece(shop, msg, 0)

    with embedded(tmp_path) as server:
        async with client(server) as bus, counter(server, act) as shop:
            streaming = asyncio.create_task(collected(bus.stream(Slice(), timeout=10), got))
            await until(lambda: got)
            server.kill()
            server.start()
            await until(lambda: len(shop.got) == 2)
            shop.answer(shop.got[0], PRICE, vx11_seq=str(then), vx11_end="ok")
            [outcome] = await asyncio.gather(streaming, return_exceptions=True)
    assert shop.header(call.AGAIN) == [None, "1"]
    assert outcome == [Crumb(n=0), Price(euros=2)] if ends == "ok" else outcome.code == ends


async def test_silence_between_two_pieces_ends_with_the_deadline(nats_server, bus):
    got: list = []
    async with counter(nats_server, lambda shop, msg: piece(shop, msg, 0)):
        begun = time.monotonic()
        with pytest.raises(Failure) as failed:
            await collected(bus.stream(Slice(), timeout=0.2), got)
    assert failed.value.code == "timeout"
    assert got == [Crumb(n=0)]
    assert time.monotonic() - begun < 2


async def test_a_slow_reader_is_not_cut_off(nats_server, bus):
    """The time between two pieces is the reader's own, also beyond the deadline: what has come, has come."""
    got = []
    async with counter(nats_server, crumbs(0, 1)):
        async for item in bus.stream(Slice(), timeout=0.1):
            got.append(item)
            if len(got) == 1:
                await until(lambda: asking_deadline(bus) < time.time())
    assert got == [Crumb(n=0), Crumb(n=1), Price(euros=2)]


def asking_deadline(bus) -> float:
    [(asking, _)] = bus._asked.values()
    return asking.deadline


async def test_nobody_there_is_unavailable(bus):
    with pytest.raises(Failure) as failed:
        await collected(bus.stream(Slice(), timeout=0.2))
    assert failed.value.code == "unavailable"


async def test_a_reader_that_stops_early_leaves_nothing_behind(nats_server, bus):
    async with counter(nats_server, crumbs(0, 1, 2)):
        async with aclosing(bus.stream(Slice())) as items:
            assert await anext(items) == Crumb(n=0)
        assert bus._asked == {}


async def test_a_piece_that_does_not_fit_is_a_failure(nats_server, bus):
    async with counter(nats_server, lambda shop, msg: shop.answer(msg, b'{"x": 1}', vx11_seq="0")):
        with pytest.raises(Failure, match="is no Crumb") as failed:
            await collected(bus.stream(Slice()))
    assert failed.value.code == "internal"


async def test_a_stream_that_nobody_ends_is_told_the_deadline(nats_server, bus):
    async with counter(nats_server, ignore) as shop:
        with pytest.raises(Failure) as failed:
            await collected(bus.stream(Slice(), timeout=0.1))
    assert failed.value.code == "timeout"
    assert shop.header(call.DEADLINE) != [None]


async def test_a_stream_that_comes_in_one_rush_is_read_whole(nats_server, bus):
    """One read of the socket may bring thousands of frames: a reader that is waiting for them is not slow."""
    many = UNREAD_MOST * 4
    async with counter(nats_server, crumbs(*range(many))):
        got = await collected(bus.stream(Slice()))
    assert got == [*(Crumb(n=n) for n in range(many)), Price(euros=2)]


async def test_a_reader_that_is_much_too_slow_gets_what_there_is_and_then_busy(nats_server, bus):
    """What is not read must not fill this process; nothing more is taken for it, and nothing waits for it any more."""
    many = UNREAD_MOST * 4
    got: list = []
    async with counter(nats_server, crumbs(*range(many))):
        with pytest.raises(Failure, match="faster than they were read") as failed:
            async with aclosing(bus.stream(Slice())) as items:
                async for item in items:
                    got.append(item)
                    if len(got) == 1:
                        await until(lambda: not bus._asked)
        assert bus.wire._answers == {}
    assert failed.value.code == "busy"
    assert got == [Crumb(n=n) for n in range(len(got))]
    assert UNREAD_MOST <= len(got) < many


async def test_large_pieces_are_bounded_by_their_bytes(nats_server, bus):
    def act(shop: Counter, msg) -> None:
        for n in range(40):
            shop.answer(msg, b"x" * 900_000, vx11_seq=str(n))

    got = 0
    async with counter(nats_server, act):
        with pytest.raises(Failure) as failed:
            async with aclosing(bus.ask_stream(Slice.subject, b"{}", timeout=10)) as frames:
                async for _ in frames:
                    got += 1
                    if got == 1:
                        await until(lambda: not bus._asked)
    assert failed.value.code == "busy"
    assert UNREAD_BYTES_MOST // 900_000 <= got < 40
