"""A durable consumer outlives deletions, dead servers and hand-overs, and runs nothing twice that it need not."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from bus import streams
from bus.nats_server import NatsServer
from bus.pull import Pull
from bus.streams import ensure_consumer
from bus.wire import Msg
from tests.bus.shop import (
    LONG_S,
    SHORT_S,
    SOLD,
    Shop,
    connected,
    consuming,
    fail,
    letters,
    make_streams,
    until,
    until_settled,
)


async def test_a_deleted_consumer_is_made_again_where_it_was(boss, bus):
    """Bare FastStream spins at half a core and never hears anything again."""
    shop = Shop()
    async with consuming(bus, shop):
        await boss.publish_raw(SOLD, b"1")
        await until(lambda: shop.seen == [b"1"])
        await boss.api(f"$JS.API.CONSUMER.DELETE.{streams.EVENTS}.c")
        await boss.publish_raw(SOLD, b"2")
        await until(lambda: b"2" in shop.seen, 3)
        await boss.publish_raw(SOLD, b"3")
        await until(lambda: b"3" in shop.seen, 3)
    assert shop.seen == [b"1", b"2", b"3"]


async def test_an_event_between_two_tries_survives_the_deletion_of_its_consumer(boss, bus):
    shop = Shop(fail)
    async with consuming(bus, shop, ladder=(0.3, 0.3)):
        await boss.publish_raw(SOLD, b"1")
        await until(lambda: shop.seen)
        await boss.api(f"$JS.API.CONSUMER.DELETE.{streams.EVENTS}.c")
        await until(lambda: len(shop.seen) == 3)
        await until_settled(boss)
    assert len(await letters(boss)) == 1


async def test_a_stream_that_was_deleted_and_made_again_is_read_from_its_first_event(boss, bus):
    """The new one counts from 1 again: what is known of the old one's numbers must not count."""

    async def act(msg: Msg) -> None:
        if msg.data == b"2":
            raise ConnectionError

    shop = Shop(act)
    async with consuming(bus, shop, ladder=(LONG_S,)):
        for body in (b"1", b"2"):
            await boss.publish_raw(SOLD, body)
        await until(lambda: shop.seen == [b"1", b"2"])
        await boss.api(f"$JS.API.STREAM.DELETE.{streams.EVENTS}")
        await make_streams(boss)
        await boss.publish_raw(SOLD, b"3")
        await until(lambda: shop.seen == [b"1", b"2", b"3"], 3)


async def test_it_starts_without_stream_and_consumer_and_goes_on_when_they_come(boss, bus):
    await boss.api(f"$JS.API.STREAM.DELETE.{streams.EVENTS}")
    shop = Shop()
    async with consuming(bus, shop):
        await make_streams(boss)
        await ensure_consumer(boss.api, streams.EVENTS, "c", [SOLD])
        await boss.publish_raw(SOLD, b"1")
        await until(lambda: shop.seen == [b"1"])


async def test_without_its_stream_it_looks_and_does_not_spin(boss, bus):
    """Bare FastStream takes 40 to 70 % of a core until somebody restarts it."""
    async with consuming(bus, Shop(), workers=4):
        await boss.api(f"$JS.API.STREAM.DELETE.{streams.EVENTS}")
        cpu, clock = time.process_time(), time.monotonic()
        await asyncio.sleep(1)
        assert (time.process_time() - cpu) / (time.monotonic() - clock) < 0.2


async def test_what_was_fetched_and_not_begun_goes_back_at_once(boss, bus):
    """Else it would lie in the hands of nobody for the whole ack wait."""
    pulls = [Pull(bus.wire, bus.api, streams.EVENTS, "c", [SOLD], slots=n, ack_wait_s=LONG_S) for n in (4, 4)]
    for pull in pulls:
        await pull.open()
    for n in range(4):
        await boss.publish_raw(SOLD, str(n).encode())
    taken: list[Msg] = []
    while len(taken) < 4:
        taken += await pulls[0].fetch()
    assert pulls[0].begin(taken[0])
    await pulls[0].release()
    back: list[Msg] = []
    async with asyncio.timeout(3):
        while len(back) < 3:
            back += await pulls[1].fetch()
    assert [m.data for m in back] == [m.data for m in taken[1:]]
    assert pulls[0].in_hand == 1
    pulls[0].done(taken[0], settled=True)
    for pull in pulls:
        await pull.unsubscribe()


async def test_what_is_still_on_its_way_goes_back_at_once(boss, bus):
    """The server has sent it, the instance leaves before it has read it: a plain unsubscribe would drop it."""
    pull = Pull(bus.wire, bus.api, streams.EVENTS, "c", [SOLD], ack_wait_s=LONG_S)
    await pull.open()
    fetching = asyncio.create_task(pull.fetch())
    async with asyncio.timeout(5):
        while not (await streams.consumer_info(boss.api, streams.EVENTS, "c"))["num_waiting"]:
            await asyncio.sleep(0.005)
    boss.wire.send(SOLD, b"1")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    time.sleep(0.1)  # noqa: ASYNC251 - the loop reads nothing meanwhile
    await pull.release()
    shop = Shop()
    async with consuming(bus, shop, ack_wait_s=LONG_S):
        await until(lambda: shop.seen == [b"1"], 3)
    assert await fetching == []
    await pull.unsubscribe()


async def test_a_hand_over_in_full_flow_loses_nothing_and_runs_nothing_twice(boss, bus, nats_server):
    """What is on its way to the one who leaves is handed back, too: no event waits for the ack wait."""
    shop = Shop(lambda _: asyncio.sleep(0.005))
    bodies = {str(n).encode() for n in range(200)}
    for body in bodies:
        await boss.publish_raw(SOLD, body)
    begun = time.monotonic()
    for stop_at in (20, 40, 60, 80, 200):
        async with consuming(bus, shop, workers=4, ack_wait_s=LONG_S):
            await until(lambda at=stop_at: len(shop.seen) >= at)
    await until_settled(boss)
    assert Counter(shop.seen) == Counter(bodies)
    assert time.monotonic() - begun < LONG_S / 2


async def test_a_connection_closed_for_good_freezes_nothing(boss, nats_server):
    """Bare FastStream takes the whole event loop with it: not even timers run."""
    async with connected(nats_server, "actor") as bus:
        shop = Shop()
        async with consuming(bus, shop):
            await boss.publish_raw(SOLD, b"1")
            await until(lambda: shop.seen)
            await bus.wire.close()
            late = []
            for _ in range(20):
                due = time.monotonic() + 0.02
                await asyncio.sleep(0.02)
                late.append(time.monotonic() - due)
            begun = time.monotonic()
        assert time.monotonic() - begun < 2
    assert sorted(late)[10] < 0.05


async def crash(server: NatsServer, down_s: float = 0.0) -> None:
    """SIGKILL, and start again."""
    server.kill()
    await asyncio.sleep(down_s)
    await server.start_async()


async def test_a_killed_server_loses_no_acknowledged_event_and_work_goes_on_within_two_seconds(own):
    server, boss, bus = own
    stored: dict[bytes, float] = {}

    async def publish() -> None:
        while True:
            body = str(len(stored)).encode()
            await boss.publish_raw(SOLD, body, message_id=body.decode())
            stored[body] = time.monotonic()
            await asyncio.sleep(0.002)

    shop = Shop()
    async with consuming(bus, shop, workers=2):
        publishing = asyncio.create_task(publish())
        gaps = []
        for _ in range(3):
            target = len(stored) + 50
            await until(lambda target=target: len(stored) > target)
            await crash(server, 0.3)
            back = len(stored)
            await until(lambda back=back: len(stored) > back)
            seen, since = len(shop.seen), time.monotonic()
            await until(lambda seen=seen: len(shop.seen) > seen)
            gaps.append(time.monotonic() - since)
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        await until_settled(boss)
    assert set(stored) <= set(shop.seen)
    assert max(gaps) < 2


async def test_a_handler_that_lives_through_a_server_outage_is_not_run_beside_itself(own):
    """The server gives its event out again after the ack wait: the copy is recognised, and counts as no try."""
    server, boss, bus = own
    lasts_s = SHORT_S * 5

    async def act(_: Msg) -> None:
        if len(shop.seen) == 1:
            await asyncio.sleep(lasts_s)
            raise ConnectionError

    shop = Shop(act)
    async with consuming(bus, shop, ack_wait_s=SHORT_S, workers=2, ladder=(0.05,)):
        await boss.publish_raw(SOLD, b"1")
        await until(lambda: shop.seen)
        await crash(server, SHORT_S * 2)
        await until(lambda: bus.connected and boss.connected)
        await until_settled(boss)
    assert shop.seen == [b"1", b"1"]
    assert shop.at[1] - shop.at[0] > lasts_s
    assert await letters(boss) == []


async def test_stopping_without_a_server_is_quick_and_clean(own):
    server, boss, bus = own
    shop = Shop()
    async with consuming(bus, shop) as consumers:
        await boss.publish_raw(SOLD, b"1")
        await until(lambda: shop.seen)
        server.kill()
        await until(lambda: not bus.connected)
        begun = time.monotonic()
        await consumers.stop()
        assert time.monotonic() - begun < 1
    server.start()


async def test_a_wiped_store_is_worked_on_as_soon_as_its_stream_is_back(own):
    server, boss, bus = own
    shop = Shop()
    async with consuming(bus, shop):
        await boss.publish_raw(SOLD, b"1")
        await until(lambda: shop.seen)
        server.kill()
        for stored in (server.home / "nats").glob("jetstream/**/*"):
            if stored.is_file():
                stored.unlink()
        await server.start_async()
        await until(lambda: boss.connected)
        await make_streams(boss)
        await boss.publish_raw(SOLD, b"2")
        await until(lambda: shop.seen == [b"1", b"2"])


async def test_an_event_with_the_header_of_a_server_status_is_an_event(boss, bus):
    """nats-py's own fetch takes it for the server talking, and it would never be handled."""
    shop = Shop()
    async with consuming(bus, shop):
        await boss.publish_raw(SOLD, b"", headers={"Status": "409"})
        await until(lambda: shop.seen == [b""])
        await until_settled(boss)


async def test_a_handler_that_outlasts_the_ack_wait_runs_once(boss, bus, nats_server):
    """Heartbeats keep its event from a second instance, which would be glad to have it."""
    shop = Shop(lambda _: asyncio.sleep(SHORT_S * 3))
    async with (
        connected(nats_server, "actor") as other,
        consuming(bus, shop, ack_wait_s=SHORT_S),
        consuming(other, shop, ack_wait_s=SHORT_S),
    ):
        await boss.publish_raw(SOLD, b"1")
        await until_settled(boss)
    assert shop.seen == [b"1"]


async def test_events_that_wait_for_a_slow_worker_run_once(boss, bus):
    """Nothing is taken that cannot be begun, so nothing runs out of its ack wait in a queue."""
    shop = Shop(lambda _: asyncio.sleep(SHORT_S))
    bodies = [str(n).encode() for n in range(6)]
    async with consuming(bus, shop, ack_wait_s=SHORT_S, workers=2):
        for body in bodies:
            await boss.publish_raw(SOLD, body)
        await until_settled(boss)
    assert sorted(shop.seen) == bodies
