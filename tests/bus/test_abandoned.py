"""A streamed answer that nobody reads any more is not made to its end: what it asks of others costs somebody money."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from bus import Bus, call, chunks
from bus.nats_server import embedded
from tests.bus.bakery import Bakery, Slice, serving
from tests.bus.shop import connected, until
from tests.bus.wires import freeze, opened, thaw

WITHIN_S = 1.0
"""Promised: from the moment that the reader leaves until the handler is told. A test allows a busy machine three times that."""
LATEST_S = 3 * WITHIN_S


@pytest.fixture
async def baker(nats_server) -> AsyncIterator[Bakery]:
    async with serving(nats_server) as baker:
        yield baker


class Oven:
    """Says whether the handler of a slice was told to stop; `first`: it waits before its first piece."""

    def __init__(self, baker: Bakery, *, pieces: int) -> None:
        self.told = asyncio.Event()
        self._left = pieces
        baker.oven.act = self

    async def __call__(self, request: object, circumstances: object) -> None:
        self._left -= 1
        if self._left >= 0:
            return
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.told.set()
            raise

    async def stops(self) -> None:
        began = time.monotonic()
        await asyncio.wait_for(self.told.wait(), LATEST_S)
        assert time.monotonic() - began < LATEST_S


@asynccontextmanager
async def reading(bus: Bus) -> AsyncIterator[object]:
    async with aclosing(bus.stream(Slice(n=5))) as pieces:
        yield pieces


@pytest.mark.parametrize("pieces", [0, 1], ids=["before the first piece", "in the middle"])
async def test_a_reader_that_gives_up_stops_the_handler(baker, nats_server, pieces):
    oven = Oven(baker, pieces=pieces)
    async with connected(nats_server, "gateway") as bus:
        task = asyncio.create_task(anext(bus.stream(Slice(n=5)))) if not pieces else None
        if task:
            await until(lambda: baker.oven.done)
            task.cancel()
            await asyncio.wait({task})
        else:
            async with reading(bus) as coming:
                await anext(coming)
        await oven.stops()
        await until(lambda: baker.responder.stats.verbs["slice"].errors == 1)


@pytest.mark.parametrize("pieces", [0, 1], ids=["before the first piece", "in the middle"])
async def test_a_reader_whose_connection_ends_stops_the_handler(baker, nats_server, pieces):
    """Nobody says that a killed process has gone but the server, when it is asked."""
    oven = Oven(baker, pieces=pieces)
    async with connected(nats_server, "gateway") as bus:
        task = asyncio.create_task(anext(bus.stream(Slice(n=5))))
        await until(lambda: len(baker.oven.done) > pieces)
        await bus.wire.close()
        task.cancel()
        await asyncio.wait({task})
        await oven.stops()


async def test_a_stock_reader_that_has_gone_is_noticed_at_the_pieces(baker, nats_server):
    """It would take a message without a number for a piece, so it gets none; a piece asks whether somebody takes it."""

    async def paced(request: object, circumstances: object) -> None:
        await asyncio.sleep(0.01)

    baker.oven.act = paced
    async with opened(nats_server, "client") as stock:
        got = []
        _, reply = stock.await_answer(got.append)
        stock.send("vx11.baker.slice", b'{"n": 100000}', reply=reply, headers={call.STREAM: "1"})
        await until(lambda: len(got) > 3 * chunks.PROBE_S / 0.01)  # longer than it takes to be looked for three times
        assert [msg.headers[call.SEQ] for msg in got] == [str(n) for n in range(len(got))]
        assert len(baker.responder._tasks) == 1
    await until(lambda: not baker.responder._tasks, LATEST_S)
    assert baker.responder.stats.verbs["slice"].errors == 1


async def test_a_stock_reader_of_slow_pieces_is_noticed_as_well(baker, nats_server, monkeypatch):
    """Between two pieces nobody is asked, so that silence then is no sign of a reader."""
    monkeypatch.setattr(chunks, "PROBE_S", 0.02)

    async def slow(request: object, circumstances: object) -> None:
        await asyncio.sleep(5 * chunks.PROBE_S)

    baker.oven.act = slow
    async with opened(nats_server, "client") as stock:
        got = []
        _, reply = stock.await_answer(got.append)
        stock.send("vx11.baker.slice", b'{"n": 60}', reply=reply, headers={call.STREAM: "1"})
        await until(lambda: len(got) > 2)
        assert len(baker.responder._tasks) == 1
    await until(lambda: not baker.responder._tasks, LATEST_S)
    assert baker.responder.stats.verbs["slice"].errors == 1


async def test_a_reader_that_waits_is_not_taken_for_gone(baker, nats_server):
    """Also one that is frozen: it may come back."""
    oven = Oven(baker, pieces=1)
    async with connected(nats_server, "gateway") as bus, reading(bus) as coming:
        await anext(coming)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(oven.told.wait(), 5 * chunks.PROBE_S)
        assert bus.wire.strays == 0


async def test_a_copy_that_waits_for_the_whole_keeps_the_handler_at_work(baker, nats_server):
    baker.oven.act = baker.oven.wait
    head = {"vx11_stream": "1", "vx11_request_id": "r1", "vx11_caller": "ana"}
    copy: list = []
    async with opened(nats_server, "gateway") as first:
        first.send(
            "vx11.baker.slice",
            b'{"n": 1}',
            reply=f"{first.inbox}.gone",
            headers={name.replace("_", "-"): value for name, value in head.items()} | {call.PROBE: "1"},
        )
        await until(lambda: baker.oven.done)
        copy = baker.send("slice", {"n": 1}, **head, vx11_again="1")
        await until(lambda: baker.responder._replies.joined(("ana", "slice", "r1")))
    await asyncio.sleep(4 * chunks.PROBE_S)  # it is looked for some times; nothing else tells that it is left in peace
    baker.oven.gate.set()
    await until(lambda: copy)
    assert call.ERROR not in copy[0].headers


async def test_a_server_that_was_away_is_no_reader_that_has_gone(tmp_path):
    """After a break both sides come back, the reader perhaps a moment later."""
    with embedded(tmp_path) as server:
        async with serving(server) as baker, connected(server, "gateway") as bus:
            oven = Oven(baker, pieces=1)
            async with reading(bus) as coming:
                await anext(coming)
                freeze(server.process.pid)
                await asyncio.sleep(3 * chunks.PROBE_S)
                thaw(server.process.pid)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(oven.told.wait(), 3 * chunks.PROBE_S)
            await oven.stops()
