"""What is known of the tries of an event outlives who tried: its letter tells of all, and no handing back counts as one."""

from __future__ import annotations

import json

from bus import dead, streams
from bus.client import Bus
from bus.eventlog import EventLog
from bus.pull import Pull
from bus.retry import Retry
from bus.tries import Tries
from bus.wire import Msg
from schemas.dead import Tried
from tests.bus.shop import QUICK, SOLD, TRIES, Shop, connected, consuming, fail, letters, until, until_settled


async def test_a_letter_tells_of_the_tries_of_processes_that_are_gone(boss, nats_server):
    """It told only of those of the process that gave up: the first ones, which say how it began, were lost."""
    first = Shop(fail)
    ladder = (0.05, 0.05, *QUICK[2:])
    async with connected(nats_server, "actor") as bus, consuming(bus, first, ladder=ladder):
        seq = await boss.publish_raw(SOLD, b"poison", headers={"correlation_id": "conversation-1"})
        await until(lambda: len(first.seen) == 2)
    second = Shop(fail)
    async with connected(nats_server, "actor") as bus, consuming(bus, second, ladder=ladder):
        await until_settled(boss)
    [(_, _, headers)] = await letters(boss)
    assert len(first.seen) + len(second.seen) == TRIES
    assert [one["try"] for one in json.loads(headers[dead.HISTORY])] == list(range(1, TRIES + 1))
    told = await EventLog(boss).page(seq, 100, subject=f"{Tried.subject}.c.*")
    assert [json.loads(one.data)["number"] for one in told] == [1, 2, 3, 4]
    assert {one.headers["correlation_id"] for one in told} == {"conversation-1"}


async def test_an_event_that_is_handed_back_without_being_tried_is_not_buried_for_that(boss, bus):
    """Each handing back is a delivery, as is each try: an actor that was put to sleep in the right moment five times lost it."""
    await boss.publish_raw(SOLD, b"1")
    for _ in range(TRIES + 1):
        pull = await taken_and_released(bus)
    assert not pull.in_hand
    shop = Shop()
    async with consuming(bus, shop):
        await until_settled(boss)
    assert (shop.seen, await letters(boss)) == ([b"1"], [])


async def taken_and_released(bus: Bus) -> Pull:
    pull = Pull(bus.wire, bus.api, streams.EVENTS, "c", [SOLD])
    Retry(pull, bus.api, Tries(bus), max_payload=bus.wire.max_payload)
    await pull.open()
    taken: list[Msg] = []
    while not taken:
        taken = await pull.fetch()
    await pull.unsubscribe()
    return pull


async def test_without_the_log_the_servers_count_is_what_is_known(boss, bus, monkeypatch):
    """The tries are not begun anew because nobody can say how many there were."""
    await boss.publish_raw(SOLD, b"killer")
    pull = Pull(bus.wire, bus.api, streams.EVENTS, "c", [SOLD])
    await pull.open()
    for _ in range(TRIES):
        taken: list[Msg] = []
        while not taken:
            taken = await pull.fetch()
        pull.say(taken[0], b"-NAK")  # as when it died: nobody told why
        pull.done(taken[0], settled=False)
    await pull.unsubscribe()
    monkeypatch.setattr("bus.tries.STREAM", "NONE")
    shop = Shop()
    async with consuming(bus, shop):
        await until_settled(boss)
    [(_, _, headers)] = await letters(boss)
    assert (shop.seen, headers[dead.REASON], headers[dead.TRIES], headers[dead.HISTORY]) == ([], "crashed", str(TRIES), "[]")


async def test_an_event_is_worth_more_than_its_history(boss, bus, monkeypatch):
    """Both together would cost the connection, and the event would stay where it is for ever."""
    monkeypatch.setattr("bus.retry.ERROR_CHARS", 5_000)

    async def act(_: Msg) -> None:
        raise ConnectionError("x" * 9_000)

    body = b"x" * (bus.wire.max_payload - streams.HEADER_ROOM_BYTES - 400)
    async with consuming(bus, Shop(act)):
        await boss.api(SOLD, body)
        await until_settled(boss)
    [(_, found, headers)] = await letters(boss)
    assert (found == body, headers[dead.HISTORY], headers[dead.TRIES]) == (True, "[]", str(TRIES))


async def test_a_letter_that_is_given_back_reaches_its_consumer_and_no_other(boss, bus):
    """Two handlers of one event: the one that had handled it must not handle it again."""
    mended: list[bytes] = []

    async def act(msg: Msg) -> None:
        if not mended:
            raise ConnectionError("broken")

    failing, other = Shop(act), Shop()
    await streams.ensure_consumer(boss.api, streams.EVENTS, "d", [SOLD])
    async with consuming(bus, failing, ladder=(0.05,)), consuming(bus, other, "d"):
        await boss.publish_raw(SOLD, b"1")
        await until_settled(boss)
        [(_, body, headers)] = await letters(boss)
        mended.append(b"yes")
        await boss.publish_raw(dead.again_subject(headers), body, headers=dead.restored(headers))
        await until(lambda: len(failing.seen) == 3)
        await until_settled(boss)
        await until_settled(boss, "d")
    assert (failing.seen, other.seen) == ([b"1"] * 3, [b"1"])


async def test_a_letter_that_dies_again_says_where_it_came_from_first_and_tells_of_all_its_tries(boss, bus):
    shop = Shop(fail)
    async with consuming(bus, shop, ladder=(0.05,)):
        await boss.publish_raw(SOLD, b"1", message_id="m1")
        await until_settled(boss)
        [(_, body, headers)] = await letters(boss)
        again = dead.restored(headers) | {name: headers[name] for name in (dead.SUBJECT, dead.HISTORY)}
        await boss.publish_raw(dead.again_subject(headers), body, headers=again)
        await until(lambda: len(shop.seen) == 4)
        await until_settled(boss)
    [_, (subject, _, second)] = await letters(boss)
    assert (subject, second[dead.SUBJECT], second["vx11-orig-Nats-Msg-Id"][:2]) == ("vx11.dlq.events.shop.sold", SOLD, "m1")
    assert [one["try"] for one in json.loads(second[dead.HISTORY])] == [1, 2, 1, 2]
    assert dead.again_subject(second) != dead.again_subject(headers)
