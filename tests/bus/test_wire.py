"""The wire on a real server: order, barrier, leaving, reconnecting, refusing."""

from __future__ import annotations

import asyncio
import time

import pytest

from bus import link
from bus import wire as seam
from bus.nats_server import embedded
from bus.wire import Wire, status_of
from schemas.errors import Failure
from tests.bus.shop import until
from tests.bus.wires import answered, count_into, freeze, opened, thaw

ROUNDS = 1_000
ROUNDS_S = 3.0


@pytest.fixture
async def wire(nats_server):
    async with opened(nats_server, "madre") as wire:
        yield wire


@pytest.fixture
async def other(nats_server):
    async with opened(nats_server, "madre") as other:
        yield other


async def test_what_is_asked_after_a_barrier_is_never_lost(wire, other):
    """Subscribe, barrier, say so: a request on another connection finds us, every time."""
    unheard, rounds, end = [], 0, time.monotonic() + ROUNDS_S
    while rounds < ROUNDS and time.monotonic() < end:
        rounds += 1
        mine = await wire.hear(f"vx11.shop.{rounds}", lambda msg: wire.send(msg.reply, b"here"))
        await wire.barrier()
        if (await answered(other, f"vx11.shop.{rounds}")).data != b"here":
            unheard.append(rounds)
        await wire.leave(mine)
    assert unheard == []
    assert rounds > 200


async def test_everything_that_was_sent_before_the_barrier_has_been_taken_from_every_subscription(wire, other):
    got: list[str] = []
    for name in ("a", "b", "c"):
        await wire.hear(f"vx11.shop.{name}", lambda msg: got.append(msg.subject[-1]))
    await wire.barrier()
    sent = ["a", "b", "c", "b", "a", "c"] * 200
    for name in sent:
        other.send(f"vx11.shop.{name}")
    await other.barrier()
    await wire.barrier()
    assert got == sent


async def test_leaving_hands_over_all_that_was_routed(nats_server, other):
    """Two members of a queue group, one of which comes and goes under load: each message is handled by one of them."""
    mine: list[bytes] = []
    theirs: list[bytes] = []
    async with opened(nats_server, "madre") as goes, opened(nats_server, "madre") as stays:
        await stays.hear("vx11.shop.sell", count_into(theirs), queue="shop")
        await stays.barrier()
        sending = asyncio.create_task(_send_for_ever(other, "vx11.shop.sell"))
        for _ in range(60):
            subscription = await goes.hear("vx11.shop.sell", count_into(mine), queue="shop")
            await goes.barrier()
            had = len(mine)
            await until(lambda: len(mine) > had + 20)  # noqa: B023 - awaited here
            await goes.leave(subscription)
            left_with = len(mine)
            await goes.barrier()
            assert len(mine) == left_with, "something came after leaving"
        sending.cancel()
        sent = await asyncio.gather(sending, return_exceptions=True)
        await other.barrier()
        await stays.barrier()
    assert len(mine) + len(theirs) == sending.sent, f"{sent}: some were routed to nobody"
    assert sorted(map(int, mine + theirs)) == list(range(sending.sent))


async def _send_for_ever(wire: Wire, subject: str) -> None:
    me = asyncio.current_task()
    me.sent = 0
    while True:
        for _ in range(50):
            wire.send(subject, str(me.sent).encode())
            me.sent += 1
        await asyncio.sleep(0)


async def test_leaving_twice_is_leaving_once(wire):
    mine = await wire.hear("vx11.shop.sell", print)
    await wire.leave(mine)
    await wire.leave(mine)
    assert mine.sid not in wire._subs


@pytest.mark.parametrize("when", ["before the server dies", "while it is dead"])
async def test_who_leaves_is_not_subscribed_again_after_a_reconnect(tmp_path, when):
    """Everything that is still known is subscribed again: a request would reach somebody who has left."""
    with embedded(tmp_path) as server:
        async with opened(server, "madre") as goes, opened(server, "madre") as asks:
            mine = await goes.hear("vx11.shop.sell", lambda msg: goes.send(msg.reply, b"zombie"), queue="shop")
            await goes.barrier()
            if when == "before the server dies":
                freeze(server.process.pid)  # it takes no UNSUB, it sends no echo
                leaving = asyncio.create_task(goes.leave(mine))
                await until(lambda: mine.sid in goes._leaving)
                server.kill()
                await until(lambda: not goes.is_connected and mine.sid not in goes._subs)
            else:
                server.kill()
                await until(lambda: not goes.is_connected)
                leaving = asyncio.create_task(goes.leave(mine))
                await asyncio.sleep(0)
            server.start()
            await leaving
            await until(lambda: asks.is_connected)
            assert status_of(await answered(asks, "vx11.shop.sell")) == "503"


async def test_leaving_waits_as_long_as_the_server_takes(tmp_path, monkeypatch):
    """A server that stands still longer than one barrier's patience has routed who knows what: none of it is dropped."""
    monkeypatch.setattr(seam, "BARRIER_S", 0.1)
    got: list[bytes] = []
    with embedded(tmp_path) as server:
        async with opened(server, "madre") as goes, opened(server, "madre") as asks:
            mine = await goes.hear("vx11.shop.sell", count_into(got), queue="shop")
            await goes.barrier()
            freeze(server.process.pid)
            asks.send("vx11.shop.sell", b"1")
            leaving = asyncio.create_task(goes.leave(mine))
            begun = time.monotonic()
            await until(lambda: leaving.done() or time.monotonic() > begun + 0.4)
            gave_up = leaving.done()
            thaw(server.process.pid)
            await leaving
            await asks.barrier()
            last = await answered(asks, "vx11.shop.sell")
    assert not gave_up
    assert got == [b"1"] or status_of(last) == "503"


async def test_without_a_server_leaving_does_not_wait_for_one(tmp_path, monkeypatch):
    """Else nothing could be stopped that has lost its server."""
    monkeypatch.setattr(seam, "BARRIER_S", 0.1)
    with embedded(tmp_path) as server:
        async with opened(server, "madre") as goes, opened(server, "madre") as asks:
            mine = await goes.hear("vx11.shop.sell", lambda msg: goes.send(msg.reply, b"zombie"))
            await goes.barrier()
            server.kill()
            await until(lambda: not goes.is_connected)
            await asyncio.wait_for(goes.leave(mine), 2.0)
            server.start()
            await until(lambda: goes.is_connected and asks.is_connected)
            await goes.barrier(5.0)
            assert status_of(await answered(asks, "vx11.shop.sell")) == "503"


async def test_a_barrier_outlives_the_server(tmp_path):
    with embedded(tmp_path) as server:
        async with opened(server, "madre") as wire:
            freeze(server.process.pid)
            barrier = asyncio.create_task(wire.barrier())
            await until(lambda: wire._barriers)
            server.kill()
            server.start()
            await barrier


async def test_a_subscription_made_without_a_server_is_there_after_the_reconnect(tmp_path):
    with embedded(tmp_path) as server:
        async with opened(server, "madre") as wire, opened(server, "madre") as asks:
            server.kill()
            await until(lambda: not wire.is_connected)
            await wire.hear("vx11.shop.sell", lambda msg: wire.send(msg.reply, b"here"))
            server.start()
            await wire.barrier()
            await until(lambda: asks.is_connected)
            assert (await answered(asks, "vx11.shop.sell")).data == b"here"


async def test_a_barrier_without_an_echo_says_so(tmp_path):
    with embedded(tmp_path) as server:
        async with opened(server, "madre") as wire:
            freeze(server.process.pid)
            with pytest.raises(Failure, match="no echo") as failed:
                await wire.barrier(0.05)
            thaw(server.process.pid)
            await wire.barrier()
    assert failed.value.code == "timeout"


async def test_a_handler_that_raises_takes_nothing_with_it(wire, other, caplog):
    """Not its subscription, not the connection, not the next message."""
    got: list[bytes] = []

    def heard(msg) -> None:
        if msg.data == b"bad":
            raise ValueError("a bug")
        got.append(msg.data)

    await wire.hear("vx11.shop.sell", heard)
    await wire.barrier()
    for data in (b"1", b"bad", b"2"):
        other.send("vx11.shop.sell", data)
    await until(lambda: got == [b"1", b"2"])
    assert wire.is_connected
    assert "the handler of vx11.shop.sell raised" in caplog.text


RAW = {
    "a subject that is no text": b"PUB vx11.shop.\xff 1\r\nx\r\n",
    "a subject with what only Python calls a space": b"PUB vx11.shop.a\x0b99\x0bb 1\r\nx\r\n",
    "headers that are none": b"HPUB vx11.shop.a 12 13\r\nNATS/1.0\r\n\xff\x00x\r\n",
    "headers without a beginning": b"HPUB vx11.shop.a 4 5\r\nabcdx\r\n",
}


@pytest.mark.parametrize("command", RAW.values(), ids=RAW)
async def test_what_no_client_would_send_is_in_nobodys_way(wire, other, command):
    """A stranger may send any bytes that the server lets through; the next message is heard, at once."""
    got: list[bytes] = []
    await wire.hear("vx11.shop.>", count_into(got))
    await wire.barrier()
    other.write(command)
    other.send("vx11.shop.sell", b"next")
    await until(lambda: got[-1:] == [b"next"], 2.0)
    assert wire.reconnects == 0


async def test_without_buffer_and_server_sending_fails_at_once(tmp_path):
    """Also a message without a body: what is asked while there is no server must not run after its caller has gone."""
    with embedded(tmp_path) as server:
        async with opened(server, "gateway", buffered=False) as wire:
            server.kill()
            await until(lambda: not wire.is_connected)
            for body in (b"", b"x", b"x" * 1000):
                with pytest.raises(Failure) as failed:
                    wire.send("vx11.shop.sell", body)
                assert failed.value.code == "unavailable"
            assert wire._pending == []


async def test_with_a_buffer_what_is_sent_without_a_server_arrives_later_up_to_its_size(tmp_path):
    got: list[bytes] = []
    with embedded(tmp_path) as server:
        async with opened(server, "madre") as wire:
            await wire.hear("vx11.shop.sell", count_into(got))
            server.kill()
            await until(lambda: not wire.is_connected)
            wire.send("vx11.shop.sell", b"later")
            big = b"x" * 1_000_000
            with pytest.raises(Failure, match="no connection"):
                for _ in range(link.PENDING_BYTES // len(big) + 1):
                    wire.send("vx11.shop.drop", big)
            server.start()
            await until(lambda: got == [b"later"])


@pytest.mark.parametrize("bad", ["a\r\nvx11-caller: root", "a\nb", "a\r\n\r\nPUB vx11.madre.wake 2\r\n{}"])
async def test_a_header_value_cannot_say_more_than_itself(wire, other, bad):
    """Tracestate and caller come from strangers."""
    heard = asyncio.get_running_loop().create_future()
    await wire.hear("vx11.shop.sell", heard.set_result)
    await wire.barrier()
    other.send("vx11.shop.sell", b"body", headers={"tracestate": bad})
    msg = await heard
    assert list(msg.headers) == ["tracestate"]
    assert msg.data == b"body"
    assert other.is_connected


@pytest.mark.parametrize("subject", ["", "vx11.shop.sell extra", "vx11.shop\r\nPUB x 0\r\n", "vx11.shop.\t"])
async def test_a_subject_cannot_say_more_than_itself(wire, subject):
    """It may come from a stranger's header or from a URL; what it said to the server would be said by us."""
    with pytest.raises(Failure) as failed:
        wire.send(subject, b"x")
    assert failed.value.code == "invalid"
    await wire.barrier()


@pytest.mark.parametrize(("headers", "overhead"), [(None, 0), ({"a": "b"}, len("NATS/1.0\r\na: b\r\n\r\n"))])
async def test_a_message_that_is_too_large_is_refused_before_the_server_cuts_the_connection(wire, headers, overhead):
    """The server counts the headers, too."""
    room = wire.max_payload - overhead
    with pytest.raises(Failure) as failed:
        wire.send("vx11.shop.sell", b"x" * (room + 1), headers=headers)
    assert failed.value.code == "too_large"
    wire.send("vx11.shop.sell", b"x" * room, headers=headers)
    await wire.barrier()
    assert wire.reconnects == 0


async def test_half_a_surrogate_in_a_header_is_sent_as_a_question_mark(wire, other):
    """A file name that is no UTF-8 is one in Python; a header that cannot be sent would leave somebody without an answer."""
    heard = asyncio.get_running_loop().create_future()
    await wire.hear("vx11.shop.sell", heard.set_result)
    await wire.barrier()
    other.send("vx11.shop.sell", b"x", headers={"a": "caf\udce9.wav"})
    assert (await heard).headers == {"a": "caf?.wav"}


async def test_a_subject_and_reply_that_are_too_long_for_one_line_are_refused(wire, other):
    """The server closes the connection over a control line of 4 KB."""
    heard = asyncio.get_running_loop().create_future()
    await wire.hear("vx11.shop.>", heard.set_result)
    await wire.barrier()
    long = "vx11.shop." + "s" * 1_900
    other.send(long, b"x", reply="_INBOX." + "r" * 1_900)
    assert (await heard).subject == long
    for subject, reply in (("vx11.shop." + "s" * 5_000, ""), ("vx11.shop.sell", "_INBOX." + "€" * 1_400)):
        with pytest.raises(Failure) as failed:
            other.send(subject, reply=reply)
        assert failed.value.code == "too_large"
    await other.barrier()
    assert other.reconnects == 0


async def test_an_answer_that_nothing_waits_for_is_counted(wire, other):
    got: list[bytes] = []
    token, reply = wire.await_answer(count_into(got))
    other.send(reply, b"first")
    await until(lambda: got == [b"first"])
    wire.forget_answer(token)
    other.send(reply, b"second")
    await until(lambda: wire.strays == 1)
    assert got == [b"first"]


async def test_what_is_sent_now_leaves_in_this_turn_behind_all_that_was_sent_before(wire, other):
    got: list[bytes] = []
    await other.hear("vx11.shop.sell", count_into(got))
    await other.barrier()
    wire.send("vx11.shop.sell", b"1")
    assert wire.unsent == 1
    wire.send("vx11.shop.sell", b"2", now=True)
    assert wire.unsent == 0
    wire.send("vx11.shop.sell", b"3")
    await until(lambda: got == [b"1", b"2", b"3"])


@pytest.mark.parametrize("now", [True, False])
async def test_while_the_system_takes_no_more_nothing_is_handed_to_it(wire, other, now):
    """It counts as unsent, by which a stream knows that its reader is too slow."""
    got: list[bytes] = []
    await other.hear("vx11.shop.sell", count_into(got))
    await other.barrier()
    wire.flush_held(held=True)
    wire.send("vx11.shop.sell", b"1", now=now)
    await asyncio.sleep(0.05)
    assert wire.unsent == 1
    wire.flush_held(held=False)
    await until(lambda: got == [b"1"])


async def test_nobody_there_is_told_by_the_server(wire):
    assert status_of(await answered(wire, "vx11.nobody.home")) == "503"


@pytest.mark.parametrize(("body", "headers"), [(b"", None), (b"", {"a": "b"}), (b"x", {"Status": "503"})])
async def test_an_answer_is_no_status(wire, other, body, headers):
    await other.hear("vx11.shop.sell", lambda msg: other.send(msg.reply, body, headers=headers))
    await other.barrier()
    assert status_of(await answered(wire, "vx11.shop.sell")) == ""


async def test_who_subscribed_as_the_line_broke_and_left_without_one_is_not_there_after_the_reconnect(tmp_path, monkeypatch):
    """Its SUB had waited to be sent: requests were routed to somebody who had gone."""
    monkeypatch.setattr(seam, "BARRIER_S", 0.05)
    with embedded(tmp_path) as server:
        async with opened(server, "madre", reconnect_s=0.3) as wire, opened(server, "madre") as other:
            server.kill()
            wire._line.transport.abort()
            mine = await wire.hear("vx11.shop.sell", print, queue="shop")
            await until(lambda: not wire.is_connected)
            await wire.leave(mine)
            server.start()
            await wire.barrier()
            await other.barrier()
            assert status_of(await answered(other, "vx11.shop.sell")) == "503"
