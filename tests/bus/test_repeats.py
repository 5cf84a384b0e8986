"""A repeat whose first copy only madre can have had is executed, as soon as it is certain that nobody else has begun it."""

from __future__ import annotations

import asyncio
import time

import pytest

from bus import call
from bus.call import AGAIN_HELD
from bus.nats_server import embedded
from bus.replies import KEPT_S
from bus.responder import Responder
from bus.wire import Msg
from schemas.errors import Failure
from tests.bus.bakery import code_of, serving
from tests.bus.shop import connected, until
from tests.bus.wires import freeze, opened

BORN = 100.0
"""Seconds ago: when the last owner before this instance was gone."""


def head(ago: float, again: str = AGAIN_HELD) -> dict[str, str]:
    """Headers of a repeat that was first sent `ago` seconds ago."""
    sent = str(int((time.time() - ago) * 1000))
    return {"vx11_request_id": "r1", "vx11_caller": "ana", "vx11_sent": sent, "vx11_again": again}


@pytest.fixture
async def baker(nats_server):
    async with serving(nats_server) as baker:
        baker.responder._alone_since = time.time() - BORN
        yield baker


async def test_what_was_sent_after_all_others_were_gone_is_executed_once(baker):
    """The usual case: a sleeper is asked, madre dies with the request in her hands, her successor wakes it."""
    first, _ = await baker.ask("bake", {"n": 7}, **head(BORN / 2))
    second, _ = await baker.ask("bake", {"n": 7}, **head(BORN / 2))
    assert first == second == {"n": 7}
    assert baker.oven.done == ["Bake"]


@pytest.mark.parametrize(
    ("ago", "again"),
    [(BORN * 2, AGAIN_HELD), (-5.0, AGAIN_HELD), (BORN / 2, "1")],
    ids=["another was still there", "its clock was set back since", "an instance died meanwhile"],
)
async def test_what_somebody_else_may_have_begun_is_not_executed(baker, monkeypatch, ago, again):
    monkeypatch.setattr("bus.responder.FIRST_COPY_S", 0.05)
    document, _ = await baker.ask("bake", **head(ago, again))
    assert document["error"] == "crashed"
    assert baker.oven.done == []


async def test_who_never_learned_since_when_it_is_alone_executes_no_repeat(nats_server):
    """madre herself: her predecessor may have begun it."""
    async with serving(nats_server) as baker:
        assert (await baker.ask("bake", **head(0.1)))[0]["error"] == "crashed"
        assert baker.oven.done == []


async def test_what_may_have_been_forgotten_is_not_executed_again(baker):
    repeat = head(BORN / 2)
    await baker.ask("bake", **repeat)
    baker.responder._replies.trim(time.time() + KEPT_S + 1)
    assert (await baker.ask("bake", **repeat))[0]["error"] == "crashed"
    assert baker.oven.done == ["Bake"]


async def test_a_lost_first_copy_is_not_waited_for(baker):
    begun = time.monotonic()
    await baker.ask("bake", **head(BORN * 2))
    assert time.monotonic() - begun < 0.5


async def test_a_forward_that_is_repeated_because_its_receipt_was_slow_is_answered_once(baker):
    """Also when the first was a stream: it has ended, its pieces are not kept, and it must not run again."""
    receipts: list[bytes] = []
    _, acks = baker.asks.await_answer(lambda msg: receipts.append(msg.data))
    for verb, frames in (("bake", 1), ("slice", 3)):
        forward = {"vx11_request_id": verb, "vx11_caller": "ana", "vx11_forward": f"{acks} 1", "vx11_stream": "1"}
        got = baker.send(verb, {"n": 2}, inbox=verb, **forward)
        await until(lambda: len(got) == frames)  # noqa: B023 - awaited here
        baker.send(verb, {"n": 2}, inbox=verb, **forward)
        await baker.settled()
        assert [code_of(msg) for msg in got] == ["ok"] * frames
    assert len(receipts) == 4
    assert baker.oven.done == ["Bake", "Slice", "Slice"]


async def test_a_forward_that_is_repeated_after_the_connection_broke_is_answered_again(tmp_path):
    """The answer of a stock client, who asks once, may have been lost with the server: madre's repeat brings it."""
    with embedded(tmp_path) as server:
        async with serving(server) as baker:
            forward = {"vx11_request_id": "r1", "vx11_forward": f"{baker.asks.inbox}.none 1"}
            got = baker.send("bake", inbox="mine", **forward)
            await until(lambda: got)
            server.kill()
            server.start()
            await until(lambda: baker.wire.is_connected and baker.asks.is_connected and baker.wire.reconnects)
            await baker.settled()
            baker.send("bake", inbox="mine", **forward)
            await until(lambda: len(got) == 2)
    assert baker.oven.done == ["Bake"]


async def test_a_broken_connection_ends_what_was_asked_of_the_store_at_once(tmp_path):
    """Not after its own time: whoever asks the store again does so as soon as there is one."""
    with embedded(tmp_path) as server:
        async with connected(server, "madre") as bus, opened(server, "madre"):
            freeze(server.process.pid)
            asking = asyncio.create_task(bus.raw("$JS.API.INFO", timeout=30.0))
            await until(lambda: bus._hoping)
            begun = time.monotonic()
            server.kill()
            with pytest.raises(Failure, match="connection") as failed:
                await asking
            assert failed.value.code == "unavailable"
            assert time.monotonic() - begun < 5.0
            assert not bus._hoping
            server.start()
            await until(lambda: bus.connected)


async def test_a_new_madre_says_when_she_came_and_what_was_sent_before_is_asked_again_as_held(nats_server):
    """What was sent later is in her hands already."""
    async with serving(nats_server) as baker, connected(nats_server, "client") as bus:
        marks: list[str | None] = []
        baker.oven.act = baker.oven.wait
        await baker.wire.hear("vx11.baker.*", lambda msg: marks.append(msg.headers.get(call.AGAIN)))
        await baker.wire.barrier()
        asking = [asyncio.create_task(bus.ask("vx11.baker.bake", b"{}", timeout=5.0)) for _ in range(2)]
        await until(lambda: len(marks) == 2)
        baker.asks.send("vx11.events.madre.started", b'{"epoch": 2, "run": "r", "at": %d}' % (time.time() - 60))
        baker.asks.send("vx11.events.madre.started", b'{"epoch": 3, "run": "s", "at": %.6f}' % time.time())
        await until(lambda: len(marks) == 4)
        baker.oven.gate.set()
        await asyncio.gather(*asking)
    assert marks == [None, None, AGAIN_HELD, AGAIN_HELD]
    assert baker.oven.done == ["Bake", "Bake"]


async def test_what_nobody_had_is_sent_again_as_new(nats_server, monkeypatch):
    """No repeat, and with the time of this sending: whoever was awake before that cannot have begun it."""
    async with connected(nats_server, "client") as bus:
        begun = time.time()
        asking = asyncio.create_task(bus.ask("vx11.baker.bake", b"{}", timeout=5.0))
        await until(lambda: [a.nobody for a, _ in bus._asked.values()] > [1])
        heads: list[dict[str, str]] = []
        receive = Responder.receive

        def heard(responder: Responder, msg: Msg) -> None:
            heads.append(msg.headers)
            receive(responder, msg)

        monkeypatch.setattr(Responder, "receive", heard)
        async with serving(nats_server):
            await asking
    assert call.AGAIN not in heads[0]
    assert int(heads[0][call.SENT]) > begun * 1000 + 5
