"""The typed client on a real server: one answer or one clear error, before the deadline, whatever happens to the other end."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from bus import call
from bus.client import Bus
from bus.nats_server import embedded
from schemas.errors import Failure
from tests.bus.counter import (
    PRICE,
    Ask,
    Look,
    Price,
    client,
    counter,
    ignore,
    ignore_first,
    madre,
    told_exit,
)
from tests.bus.shop import until
from tests.bus.wires import freeze, opened, thaw


@pytest.fixture
async def bus(nats_server):
    async with client(nats_server) as bus:
        yield bus


@pytest.fixture
async def host(nats_server):
    """May say what hosts say."""
    async with opened(nats_server, "madre") as wire:
        yield wire


@pytest.fixture(autouse=True)
def nothing_left(request):
    """A request that has ended is forgotten, however it ended."""
    yield
    bus = request.node.funcargs.get("bus")
    if isinstance(bus, Bus):
        assert bus._asked == {}
        assert bus.wire._answers == {}


async def failed(asking) -> Failure:
    with pytest.raises(Failure) as raised:
        await asking
    return raised.value


async def test_a_request_is_answered_with_its_reply(nats_server, bus):
    async with counter(nats_server) as shop:
        assert await bus.request(Ask(what="cake")) == Price(euros=2)
    [msg] = shop.got
    assert (msg.subject, json.loads(msg.data)) == ("vx11.shop.ask", {"what": "cake"})


async def test_a_request_says_who_asks_when_it_ends_and_what_it_belongs_to(nats_server):
    async with client(nats_server, "actor", actor="baker") as bus, counter(nats_server) as shop:
        before = time.time()
        await bus.request(Ask(), request_id="id-of-mine", timeout=1.5)
    [msg] = shop.got
    assert msg.headers[call.REQUEST_ID] == "id-of-mine"
    assert msg.headers[call.CALLER] == "baker"
    assert msg.headers[call.PATH] == "baker"
    assert call.CORRELATION_FORM.fullmatch(msg.headers[call.CORRELATION])
    assert call.TRACEPARENT_FORM.fullmatch(msg.headers[call.TRACEPARENT])
    assert int(msg.headers[call.DEADLINE]) / 1000 == pytest.approx(before + 1.5, abs=0.2)
    assert call.AGAIN not in msg.headers


async def test_what_is_asked_inside_a_call_carries_it_on(nats_server):
    inside = call.call_from({call.CORRELATION: "conversation-1", call.PATH: "gateway", call.TRACESTATE: "a=b"})
    async with client(nats_server, "actor", actor="baker") as bus, counter(nats_server) as shop:
        call.current.set(inside)
        await bus.request(Ask())
    [msg] = shop.got
    assert msg.headers[call.CORRELATION] == "conversation-1"
    assert msg.headers[call.PATH] == "gateway,baker"
    assert msg.headers[call.TRACESTATE] == "a=b"
    assert msg.headers[call.TRACEPARENT] == inside.traceparent, "the answerer's span is a child of this one"


async def test_a_look_says_that_it_is_one(nats_server, bus):
    async with counter(nats_server) as shop:
        await bus.request(Look())
        await bus.request(Ask())
    assert shop.header(call.PASSIVE) == ["1", None]


@pytest.mark.parametrize("code", ["invalid", "off_by_policy", "busy", "crashed", "internal", "storage_full"])
async def test_an_error_comes_back_as_the_failure_that_it_was(nats_server, bus, code):
    wrong = Failure(code, "no bread today", retry_after=2)
    async with counter(nats_server, lambda shop, msg: shop.refuse(msg, wrong, vx11_wake_ms="12")):
        failure = await failed(bus.request(Ask()))
    assert (failure.code, failure.message) == (code, "no bread today")
    assert failure.details == {"retry_after": 2, "wake_ms": 12, "correlation_id": "c-1234567"}


@pytest.mark.parametrize("body", [b"", b"no json", b"[1]", b'{"some": "thing"}'])
async def test_an_error_of_a_stranger_is_internal_with_his_words(nats_server, bus, body):
    """Any NATS service may answer with the two headers of ADR-32 and a body of its own."""
    head = {"Nats-Service-Error": "out of flour", "Nats-Service-Error-Code": "418"}
    async with counter(nats_server, lambda shop, msg: shop.wire.send(msg.reply, body, headers=head)):
        failure = await failed(bus.request(Ask()))
    assert (failure.code, failure.message) == ("internal", "out of flour")


@pytest.mark.parametrize("body", [b"", b"no json", b'{"euros": "many"}', b'{"euros": 1, "cents": 2}'])
async def test_an_answer_that_does_not_fit_is_a_failure_without_its_content(nats_server, bus, body):
    async with counter(nats_server, lambda shop, msg: shop.answer(msg, body)):
        failure = await failed(bus.request(Ask()))
    assert failure.code == "internal"
    assert "is no Price" in failure.message
    assert "many" not in failure.message


async def test_a_request_that_nobody_hears_is_answered_by_who_comes_a_moment_later(nats_server, bus):
    """As after a crash, until the stand-in is subscribed: surely not executed, so it is asked again plainly."""
    asking = asyncio.create_task(bus.request(Ask()))
    await until(lambda: any(asking_.nobody for asking_, _ in bus._asked.values()))
    async with counter(nats_server) as shop:
        assert await asking == Price(euros=2)
    assert len(shop.got) == 1
    assert shop.header(call.AGAIN) == [None]


async def test_what_nobody_has_is_never_a_repeat(nats_server, bus, host):
    """A new madre and a death concern only what somebody may have begun: a repeat might be refused."""
    asking = asyncio.create_task(bus.request(Ask()))
    await until(lambda: bus._asked)
    host.send("vx11.events.madre.started", b"{}")
    told_exit(host)
    await until(lambda: any(asking_.nobody > 5 for asking_, _ in bus._asked.values()))
    async with counter(nats_server) as shop:
        await asking
    assert shop.header(call.AGAIN) == [None]


async def test_nobody_until_the_deadline_is_unavailable(bus):
    begun = time.monotonic()
    failure = await failed(bus.request(Ask(), timeout=0.3))
    assert failure.code == "unavailable"
    assert 0.25 < time.monotonic() - begun < 2


async def test_an_actor_that_does_not_exist_is_not_found_before_the_deadline(nats_server, bus):
    told = Failure("not_found", "there is no actor 'shop'; there are: baker", known=["baker"])
    async with madre(nats_server, {"shop": told}):
        begun = time.monotonic()
        failure = await failed(bus.request(Ask(), timeout=20))
    assert (failure.code, failure.message, failure.details["known"]) == ("not_found", told.message, ["baker"])
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("told", [None, Failure("unavailable", "I have just started")])
async def test_an_actor_that_may_exist_is_waited_for(nats_server, bus, told):
    async with madre(nats_server, {"shop": told}):
        asking = asyncio.create_task(bus.request(Ask(), timeout=20))
        await until(lambda: any(asking_.nobody > 7 for asking_, _ in bus._asked.values()))
        async with counter(nats_server):
            assert await asking == Price(euros=2)


async def test_silence_ends_with_the_deadline_and_not_later(nats_server, bus):
    async with counter(nats_server, ignore):
        begun = time.monotonic()
        failure = await failed(bus.request(Ask(), timeout=0.2))
    assert failure.code == "timeout"
    assert 0.15 < time.monotonic() - begun < 2


async def test_what_somebody_may_have_is_never_called_unavailable(nats_server, bus):
    """`unavailable` says: surely not executed. Nobody was there at first, then somebody took it."""
    asking = asyncio.create_task(failed(bus.request(Ask(), timeout=0.7)))
    await until(lambda: any(asking_.nobody for asking_, _ in bus._asked.values()))
    async with counter(nats_server, ignore) as shop:
        failure = await asking
    assert len(shop.got) == 1
    assert failure.code == "timeout"


async def test_what_is_asked_inside_a_call_ends_before_its_deadline(nats_server, bus):
    """Else the inner work goes on for a caller that has gone."""
    inside = call.call_from(None)._replace(deadline=time.time() + 0.2)
    async with counter(nats_server, ignore) as shop:
        call.current.set(inside)
        begun = time.monotonic()
        failure = await failed(bus.request(Ask(), timeout=20))
    assert failure.code == "timeout"
    assert time.monotonic() - begun < 5
    assert int(shop.got[0].headers[call.DEADLINE]) == int(inside.deadline * 1000)


async def test_a_shorter_timeout_inside_a_call_stays_short(nats_server, bus):
    call.current.set(call.call_from(None)._replace(deadline=time.time() + 60))
    async with counter(nats_server, ignore):
        begun = time.monotonic()
        assert (await failed(bus.request(Ask(), timeout=0.1))).code == "timeout"
    assert time.monotonic() - begun < 2


async def test_after_a_reconnect_it_is_asked_again_as_a_repeat_with_the_same_id(tmp_path):
    with embedded(tmp_path) as server:
        async with client(server) as bus, counter(server, ignore_first) as shop:
            asking = asyncio.create_task(bus.request(Ask(), timeout=10))
            await until(lambda: shop.got)
            server.kill()
            server.start()
            assert await asking == Price(euros=2)
    first, second = shop.got
    assert shop.header(call.AGAIN) == [None, "1"]
    assert first.headers[call.REQUEST_ID] == second.headers[call.REQUEST_ID]
    assert first.headers[call.DEADLINE] == second.headers[call.DEADLINE]
    assert first.data == second.data


async def test_after_a_death_it_is_asked_again_as_a_repeat(nats_server, bus, host):
    async with counter(nats_server, ignore_first) as shop:
        asking = asyncio.create_task(bus.request(Ask()))
        await until(lambda: shop.got)
        told_exit(host)
        assert await asking == Price(euros=2)
    assert shop.header(call.AGAIN) == [None, "1"]


@pytest.mark.parametrize(("actor", "clean"), [("shop", True), ("baker", False)])
async def test_an_end_that_does_not_concern_it_changes_nothing(nats_server, bus, host, actor, clean):
    """An instance that left with empty hands, or another actor's."""
    async with counter(nats_server, ignore) as shop:
        asking = asyncio.create_task(failed(bus.request(Ask(), timeout=0.4)))
        await until(lambda: shop.got)
        told_exit(host, actor, clean=clean)
        await asking
    assert len(shop.got) == 1


async def test_a_request_that_has_seen_two_instances_die_is_not_given_to_a_third(nats_server, bus, host):
    async with counter(nats_server, ignore) as shop:
        asking = asyncio.create_task(failed(bus.request(Ask())))
        await until(lambda: len(shop.got) == 1)
        told_exit(host, run="run1")
        await until(lambda: len(shop.got) == 2)
        told_exit(host, run="run2")
        failure = await asking
    assert failure.code == "crashed"
    assert len(shop.got) == 2


async def test_one_death_that_is_told_twice_is_one(nats_server, bus, host):
    """Hosts report an exit when it happens and again when madre asks."""
    async with counter(nats_server, ignore) as shop:
        asking = asyncio.create_task(failed(bus.request(Ask(), timeout=0.6)))
        await until(lambda: len(shop.got) == 1)
        told_exit(host, run="run1")
        await until(lambda: len(shop.got) == 2)
        told_exit(host, run="run1")
        failure = await asking
    assert failure.code == "timeout"
    assert len(shop.got) == 2


async def test_an_answer_on_the_heels_of_a_death_counts(nats_server, bus, host):
    """The host's report may overtake the last answers of the instance."""
    async with counter(nats_server, ignore) as shop:
        asking = asyncio.create_task(bus.request(Ask()))
        await until(lambda: shop.got)
        told_exit(host)
        await host.barrier()
        shop.answer(shop.got[0])
        assert await asking == Price(euros=2)
    assert len(shop.got) == 1


async def test_a_new_madre_is_asked_again_for_what_the_old_one_may_have_held(nats_server, bus, host):
    async with counter(nats_server, ignore_first) as shop:
        asking = asyncio.create_task(bus.request(Ask()))
        await until(lambda: shop.got)
        host.send("vx11.events.madre.started", b'{"epoch": 2, "run": "r"}')
        assert await asking == Price(euros=2)
    assert shop.header(call.AGAIN) == [None, "1"]


async def test_a_strangers_nonsense_on_the_exit_subject_is_no_exit(nats_server, bus, host):
    async with counter(nats_server, ignore_first) as shop:
        asking = asyncio.create_task(bus.request(Ask()))
        await until(lambda: shop.got)
        for body in (b"", b"no json", b"[]"):
            host.send("vx11.events.power.exited.shop", body)
        told_exit(host)
        assert await asking == Price(euros=2)
    assert len(shop.got) == 2


async def test_late_and_second_answers_are_counted(nats_server, bus):
    def twice(shop, msg):
        shop.answer(msg)
        shop.answer(msg, b'{"euros": 3}')

    async with counter(nats_server, twice) as shop:
        assert await bus.request(Ask()) == Price(euros=2)
        await until(lambda: bus.wire.strays == 1)
        shop.act = ignore
        await failed(bus.request(Ask(), timeout=0.05))
        shop.answer(shop.got[-1])
        await until(lambda: bus.wire.strays == 2)


async def test_a_caller_that_goes_away_leaves_nothing_behind(nats_server, bus):
    async with counter(nats_server, ignore) as shop:
        asking = asyncio.create_task(bus.request(Ask()))
        await until(lambda: shop.got)
        asking.cancel()
        await asyncio.wait([asking])


async def test_a_request_that_cannot_be_sent_is_told_at_once(bus):
    assert (await failed(bus.request(Ask(what="x" * 2_000_000)))).code == "too_large"
    assert (await failed(bus.ask("vx11.shop.a b", b"", timeout=1))).code == "invalid"


async def test_without_a_server_an_unbuffered_client_says_so_at_once(tmp_path):
    """The gateway's: what it asks while the server is down must not run after its caller has gone."""
    with embedded(tmp_path) as server:
        async with client(server, "gateway", buffered=False) as bus, counter(server) as shop:
            server.kill()
            await until(lambda: not bus.connected)
            begun = time.monotonic()
            assert (await failed(bus.request(Ask()))).code == "unavailable"
            assert time.monotonic() - begun < 1
            server.start()
            await until(lambda: bus.connected and shop.wire.is_connected)
            await shop.wire.barrier()
            assert shop.got == []
            await bus.request(Ask())


async def test_a_server_that_stands_still_is_not_waited_for_beyond_the_deadline(tmp_path):
    with embedded(tmp_path) as server:
        async with client(server) as bus, counter(server):
            freeze(server.process.pid)
            assert (await failed(bus.request(Ask(), timeout=0.1))).code == "timeout"
            thaw(server.process.pid)


async def test_the_untyped_request_gives_body_and_headers(nats_server, bus):
    async with counter(nats_server, lambda shop, msg: shop.answer(msg, PRICE, vx11_wake_ms="7")):
        answer = await bus.ask("vx11.shop.ask", b"{}", timeout=1)
    assert (answer.body, answer.headers) == (PRICE, {"vx11-wake-ms": "7"})


async def test_repeats_stop_with_the_answer(nats_server, bus, host):
    """A death after the answer concerns nobody; what was still out shows when the repeats would have come."""

    def act(shop, msg):
        if msg.subject == Ask.subject or shop.header(call.AGAIN)[-1]:
            shop.answer(msg)

    async with counter(nats_server, act) as shop:
        looking = asyncio.create_task(bus.request(Look()))
        await until(lambda: shop.got)
        await bus.request(Ask())
        told_exit(host)
        await looking
        await shop.wire.barrier()
    assert [msg.subject for msg in shop.got] == [Look.subject, Ask.subject, Look.subject]


async def test_an_answer_that_came_while_the_process_was_busy_is_no_timeout(bus):
    """A claim is asked for before its actor is imported, which may take longer than the claim may."""
    asking = asyncio.create_task(bus.raw("vx11.nobody.home", timeout=0.1))
    await asyncio.sleep(0)
    bus.wire.flush()
    time.sleep(0.3)  # noqa: ASYNC251 - the import
    assert (await asking).headers["Status"] == "503"
