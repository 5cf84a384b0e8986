"""Dead letters in the keeper's hands: found, shown whole, given back once, dropped with a reason; never lost in between."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from actors.keeper.dead import DeadLetters
from bus import dead, streams
from bus.durable import Durable, DurableConsumers
from bus.streams import ensure_consumer
from bus.wire import Msg
from schemas.dead import PIECE_BYTES, DropDead, GetDead, ListDead, RetryDead
from schemas.errors import Failure
from tests.bus.shop import SOLD, Shop, connected, consuming, fail, make_streams, until, until_settled

CONSUMER = "shop__note"


@pytest.fixture
async def boss(nats_server):
    """An empty store with the streams of events and of dead letters, and one consumer."""
    async with connected(nats_server, "madre") as boss:
        for name in (await boss.api("$JS.API.STREAM.NAMES"))["streams"] or ():
            await boss.api(f"$JS.API.STREAM.DELETE.{name}")
        await make_streams(boss)
        await ensure_consumer(boss.api, streams.EVENTS, CONSUMER, [SOLD])
        yield boss


@pytest.fixture
async def actor(nats_server):
    async with connected(nats_server, "actor") as bus:
        yield bus


@pytest.fixture
async def keeper(nats_server):
    async with connected(nats_server, "keeper") as bus:
        yield bus


async def buried(boss, actor, *bodies: bytes, **more) -> None:
    """As many letters, each of an event that its handler could not take."""
    async with consuming(actor, Shop(fail), CONSUMER, ladder=()):
        for body in bodies:
            await boss.publish_raw(SOLD, body, **more)
        await until_settled(boss, CONSUMER)


async def messages(boss, stream: str) -> int:
    return (await boss.api(f"$JS.API.STREAM.INFO.{stream}"))["state"]["messages"]


async def facts(boss, subject: str) -> list[dict]:
    found = await boss.api(f"$JS.API.STREAM.INFO.{streams.EVENTS}", json.dumps({"subjects_filter": subject}).encode())
    bodies = []
    for one in found["state"].get("subjects") or ():
        last = json.dumps({"last_by_subj": one}).encode()
        message = (await boss.api(f"$JS.API.STREAM.MSG.GET.{streams.EVENTS}", last))["message"]
        bodies.append(json.loads(base64.b64decode(message["data"])))
    return bodies


async def test_a_letter_is_listed_with_who_could_not_take_it_and_why(boss, actor, keeper):
    await buried(boss, actor, b"poison", headers={"correlation_id": "conversation-1"})
    [letter] = (await DeadLetters(keeper).list(ListDead())).letters
    assert (letter.actor, letter.consumer, letter.subject) == ("shop", CONSUMER, SOLD)
    assert (letter.reason, letter.tries, letter.size) == ("failed", 1, 6)
    assert letter.correlation_id == "conversation-1"
    assert "no way with poison" in letter.detail


async def test_the_list_is_filtered_and_read_in_pages(boss, actor, keeper):
    letters = DeadLetters(keeper)
    await buried(boss, actor, b"1", b"2", b"3")
    await actor.publish_raw("vx11.dlq.baker.bake", b"x", headers={dead.REASON: "crashed", dead.SUBJECT: "vx11.baker.bake"})
    first = await letters.list(ListDead(limit=2))
    rest = await letters.list(ListDead(limit=2, after=first.next_after))
    assert [one.sequence for one in first.letters + rest.letters] == [1, 2, 3, 4]
    assert (first.more, rest.more, first.total) == (True, False, 4)
    assert [one.sequence for one in (await letters.list(ListDead(actor="baker"))).letters] == [4]
    assert [one.sequence for one in (await letters.list(ListDead(reason="failed"))).letters] == [1, 2, 3]
    third = rest.letters[0].buried_at
    assert 3 in [one.sequence for one in (await letters.list(ListDead(since=datetime.fromisoformat(third)))).letters]
    assert (await letters.list(ListDead(since=datetime.now(UTC) + timedelta(minutes=1)))).letters == []


@pytest.mark.parametrize("body", [b"plain", b"\xff\x00", bytes(range(256)) * 1_000, "ñ".encode() * PIECE_BYTES])
async def test_a_letter_is_shown_whole_however_long_it_is_and_whatever_is_in_it(boss, actor, keeper, body):
    async def act(_: Msg) -> None:
        raise ConnectionError

    async with consuming(actor, Shop(act), CONSUMER, ladder=()):
        await boss.publish_raw(SOLD, body, headers={"colour": "red"})
        await until_settled(boss, CONSUMER)
    letters, read = DeadLetters(keeper), b""
    while len(read) < len(body):
        shown = await letters.get(GetDead(sequence=1, offset=len(read)))
        assert len(shown.model_dump_json()) < keeper.wire.max_payload
        read += shown.body.encode() if shown.encoding == "text" else base64.b64decode(shown.body)
    assert read == body
    assert (shown.headers["colour"], [one["try"] for one in shown.history]) == ("red", [1])


async def test_a_retried_letter_goes_to_the_handler_that_failed_and_to_no_other(boss, actor, keeper):
    await ensure_consumer(boss.api, streams.EVENTS, "till__count", [SOLD])
    other, mended = Shop(), Shop()
    async with consuming(actor, other, "till__count"):
        await buried(boss, actor, b"1", headers={"correlation_id": "conversation-1", "colour": "red"})
        async with consuming(actor, mended, CONSUMER):
            done = await DeadLetters(keeper).retry(RetryDead(sequence=1), by="ana")
            await until(lambda: mended.seen)
            await until_settled(boss, CONSUMER)
        await until_settled(boss, "till__count")
    assert (mended.seen, other.seen) == ([b"1"], [b"1"])
    assert (done.consumer, done.stream, done.again) == (CONSUMER, streams.EVENTS, False)
    assert await messages(boss, streams.DLQ) == 0
    [fact] = await facts(boss, "vx11.events.keeper.dead_retried")
    assert (fact["sequence"], fact["consumer"], fact["by"]) == (1, CONSUMER, "ana")
    [_, stored] = [await message(boss, n) for n in (1, done.stored_as)]
    assert (stored["correlation_id"], stored["colour"], stored[dead.RETRY_OF]) == ("conversation-1", "red", "1")


async def message(boss, sequence: int) -> dict[str, str]:
    """Headers of an event."""
    one = (await boss.api(f"$JS.API.STREAM.MSG.GET.{streams.EVENTS}", json.dumps({"seq": sequence}).encode()))["message"]
    lines = base64.b64decode(one["hdrs"]).decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines if line)


async def test_a_keeper_that_died_between_storing_and_removing_does_not_store_twice(boss, actor, keeper):
    """However long ago that was: the stream remembers message ids for two minutes only."""
    await buried(boss, actor, b"1")
    dying = DeadLetters(keeper)

    async def die(_: int) -> None:
        raise ConnectionAbortedError

    dying._remove = die
    with pytest.raises(ConnectionAbortedError):
        await dying.retry(RetryDead(sequence=1))
    await boss.api(f"$JS.API.STREAM.UPDATE.{streams.EVENTS}", json.dumps(await short_memory(boss)).encode())
    await asyncio.sleep(0.2)  # longer than that memory, so that only the look can find it
    done = await DeadLetters(keeper).retry(RetryDead(sequence=1))
    again = await boss.api(f"$JS.API.STREAM.INFO.{streams.EVENTS}", b'{"subjects_filter": "vx11.events.dlq.again.>"}')
    assert (done.again, list(again["state"]["subjects"].values())) == (True, [1])
    assert await messages(boss, streams.DLQ) == 0


async def short_memory(boss) -> dict:
    return (await boss.api(f"$JS.API.STREAM.INFO.{streams.EVENTS}"))["config"] | {"duplicate_window": streams.NS // 10}


async def test_a_letter_stays_when_what_it_came_from_takes_nothing_back(boss, actor, keeper):
    await buried(boss, actor, b"1")
    config = (await boss.api(f"$JS.API.STREAM.INFO.{streams.EVENTS}"))["config"] | {"max_msgs": 1, "discard": "new"}
    await boss.api(f"$JS.API.STREAM.UPDATE.{streams.EVENTS}", json.dumps(config).encode())
    with pytest.raises(Failure):
        await DeadLetters(keeper).retry(RetryDead(sequence=1))
    assert await messages(boss, streams.DLQ) == 1


async def test_a_letter_whose_handler_is_gone_stays_and_says_what_to_do(boss, actor, keeper):
    """Stored again it would be heard by nobody, and the letter be gone."""
    await buried(boss, actor, b"1")
    await boss.api(f"$JS.API.CONSUMER.DELETE.{streams.EVENTS}.{CONSUMER}")
    with pytest.raises(Failure, match="bring it back, or drop the letter"):
        await DeadLetters(keeper).retry(RetryDead(sequence=1))
    assert await messages(boss, streams.DLQ) == 1


async def test_the_largest_letter_can_be_given_back(boss, actor, keeper):
    """There is no room in the stream for what a retry adds; the event is worth more than its history."""
    body = b"x" * (actor.wire.max_payload - streams.HEADER_ROOM_BYTES)
    mended = Shop()

    async def act(_: Msg) -> None:
        raise ConnectionError

    async with consuming(actor, Shop(act), CONSUMER, ladder=()):
        await boss.api(SOLD, body)
        await until_settled(boss, CONSUMER)
    async with consuming(actor, mended, CONSUMER):
        await DeadLetters(keeper).retry(RetryDead(sequence=1))
        await until(lambda: mended.seen == [body])
    assert await messages(boss, streams.DLQ) == 0


async def test_a_dropped_letter_is_gone_and_the_log_says_why(boss, actor, keeper):
    await buried(boss, actor, b"1", b"2")
    done = await DeadLetters(keeper).drop(DropDead(sequence=1, reason="a test sent it"), by="ana")
    assert done.letter.sequence == 1
    assert [one.sequence for one in (await DeadLetters(keeper).list(ListDead())).letters] == [2]
    [fact] = await facts(boss, "vx11.events.keeper.dead_dropped")
    assert (fact["sequence"], fact["reason"], fact["by"], fact["origin"]) == (1, "a test sent it", "ana", SOLD)


@pytest.mark.parametrize("asked", [RetryDead(sequence=7), DropDead(sequence=7, reason="x"), GetDead(sequence=7)])
async def test_a_letter_that_is_not_there_is_not_found(boss, keeper, asked):
    letters = DeadLetters(keeper)
    verb = {"RetryDead": letters.retry, "DropDead": letters.drop, "GetDead": letters.get}[type(asked).__name__]
    with pytest.raises(Failure, match="not_found"):
        await verb(asked)


async def test_two_who_retry_one_letter_at_once_store_it_once(boss, actor, keeper):
    await buried(boss, actor, b"1")
    letters = DeadLetters(keeper)
    done = await asyncio.gather(*(letters.retry(RetryDead(sequence=1)) for _ in range(3)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in done) == ["DeadRetried", "Failure", "Failure"]
    again = await boss.api(f"$JS.API.STREAM.INFO.{streams.EVENTS}", b'{"subjects_filter": "vx11.events.dlq.again.>"}')
    assert list(again["state"]["subjects"].values()) == [1]


async def test_a_request_that_killed_its_instances_is_asked_again_and_done_when_it_is_answered(boss, actor, keeper):
    letter = dead.request_letter("baker", "bake", b'{"n": 1}', {"correlation_id": "conversation-1"}, "2 instances died", {})
    await actor.publish_raw(letter.subject, letter.body, headers=letter.headers)
    heard: list[Msg] = []

    def answer(msg: Msg) -> None:
        heard.append(msg)
        actor.wire.send(msg.reply, b"{}")

    await actor.listen("vx11.baker.bake", answer)
    await actor.wire.barrier()
    done = await DeadLetters(keeper).retry(RetryDead(sequence=1))
    assert (done.subject, done.stored_as, heard[0].data) == ("vx11.baker.bake", 0, b'{"n": 1}')
    assert heard[0].headers["correlation_id"] == "conversation-1"
    assert await messages(boss, streams.DLQ) == 0


async def test_a_request_that_was_asked_again_and_took_too_long_is_known_by_its_id_next(boss, actor, keeper, monkeypatch):
    """It may have been done: its actor answers the copy without doing it again. What has failed is tried anew."""
    letter = dead.request_letter("baker", "bake", b"{}", {}, "2 instances died", {})
    await actor.publish_raw(letter.subject, letter.body, headers=letter.headers)
    ids: list[str] = []
    refused = b'{"error": {"code": "busy", "message": "the oven is in use"}}'

    def answer(msg: Msg) -> None:
        ids.append(msg.headers["vx11-request-id"])
        if len(set(ids)) == 1 and len(ids) > 1:
            actor.wire.send(msg.reply, refused, headers={"Nats-Service-Error-Code": "503", "Nats-Service-Error": "busy"})

    await actor.listen("vx11.baker.bake", answer)
    await actor.wire.barrier()
    monkeypatch.setattr("actors.keeper.dead.ASK_S", 0.2)
    letters = DeadLetters(keeper)
    for _ in range(3):
        with pytest.raises(Failure):
            await letters.retry(RetryDead(sequence=1))
    assert ids[0] == ids[1], ids
    assert ids[1] != ids[-1], ids


async def test_a_list_reads_no_more_of_long_letters_than_it_shows(boss, actor, keeper, monkeypatch):
    """Else a few hundred of them would be in memory at once, with their bodies."""
    await buried(boss, actor, *(bytes(700_000) for _ in range(4)))
    letters, pages = DeadLetters(keeper), []
    page = letters._letters.page

    async def counted(*asked, **more):
        found = await page(*asked, **more)
        pages.append(len(found))
        return found

    monkeypatch.setattr(letters._letters, "page", counted)
    assert len((await letters.list(ListDead(limit=1))).letters) == 1
    assert sum(pages) == 1


async def test_a_strangers_letter_does_not_keep_the_others_from_being_listed(boss, actor, keeper):
    await buried(boss, actor, b"1")
    await actor.publish_raw("vx11.dlq.baker.bake", b"x", headers={dead.SUBJECT: "no-subject-of-ours"})
    assert [one.sequence for one in (await DeadLetters(keeper).list(ListDead())).letters] == [1, 2]


def test_what_a_message_says_of_letters_is_not_its_letters_word():
    """Whoever asks could have the keeper send the body where only she may publish, or keep it from being retried."""
    theirs = {dead.CONSUMER: "shop__note", dead.STREAM: streams.EVENTS, dead.REDACTED: "1", "colour": "red"}
    made = dead.request_letter("baker", "bake", b"{}", theirs, "2 instances died", {})
    assert sorted(made.headers) == sorted(["colour", dead.REASON, dead.SUBJECT, dead.DETAIL])


async def test_a_request_whose_secrets_were_not_kept_is_not_asked_again(boss, actor, keeper):
    body, schema = b'{"phrase": "open sesame", "token": "abc"}', {"properties": {"phrase": {"secret": True}}}
    letter = dead.request_letter("baker", "bake", body, {}, "2 instances died", schema)
    assert json.loads(letter.body) == {"phrase": "***", "token": "***"}
    await actor.publish_raw(letter.subject, letter.body, headers=letter.headers)
    with pytest.raises(Failure, match="secrets of this request were not kept"):
        await DeadLetters(keeper).retry(RetryDead(sequence=1))
    assert await messages(boss, streams.DLQ) == 1


async def test_a_job_is_buried_and_given_back_like_an_event(boss, actor, keeper):
    """Its stream forgets what is settled; what was told of its tries is in the log of events."""
    [jobs] = [one for one in streams.stream_configs(boss.wire.max_payload) if one["name"] == streams.JOBS]
    await streams.ensure_stream(boss.api, jobs)
    failing, mended = Shop(fail), Shop()
    async with digging(actor, failing, (0.05, 0.4)):
        await boss.api("vx11.jobs.dig", b"a hole")
        await until(lambda: len(failing.seen) == 2)
    async with digging(actor, failing, (0.05, 0.05)):
        await until_buried(boss, 1)
    [letter] = (await DeadLetters(keeper).list(ListDead())).letters
    assert (letter.actor, letter.stream, letter.tries) == ("ant", streams.JOBS, 3)
    assert [one["try"] for one in (await DeadLetters(keeper).get(GetDead(sequence=1))).history] == [1, 2, 3]
    done = await DeadLetters(keeper).retry(RetryDead(sequence=1))
    async with digging(actor, mended, ()):
        await until(lambda: mended.seen == [b"a hole"])
    assert done.stream == streams.JOBS
    assert await messages(boss, streams.JOBS) == 0


@asynccontextmanager
async def digging(actor, run: Shop, ladder: tuple[float, ...]):
    consumers = DurableConsumers(actor.wire, [Durable("ant__dig", streams.JOBS, ["vx11.jobs.dig"], run)], ladder=ladder)
    await consumers.start()
    try:
        yield
    finally:
        await consumers.stop()


async def until_buried(boss, many: int) -> None:
    async with asyncio.timeout(10):
        while await messages(boss, streams.DLQ) < many:
            await asyncio.sleep(0.02)
