"""The stored events: their list with its filters, the live stream, and the one-use tokens of browsers."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from gateway.http import events
from gateway.http.lines import line_of
from gateway.known import known_events
from schemas.errors import Failure
from schemas.power import Failed
from tests.gateway.scripted import ScriptedLog
from tests.gateway.test_doors import is_error

LIST = "/operator/api/events"
SLEPT = "vx11.events.power.slept.switch"
FAILED = "vx11.events.switch.model_failed"
PLAIN = "vx11.events.greeter.greeted"


@pytest.fixture
def log(link) -> ScriptedLog:
    """Twelve events of three kinds, one a minute, the last one now."""
    now = time.time()
    for number in range(12):
        at = now - (11 - number) * 60
        match number % 3:
            case 0:
                link.log.add(SLEPT, {"actor": "switch"}, at=at)
            case 1:
                body = {"provider": "p", "model": "m", "reason": "r"}
                link.log.add(FAILED, body, at=at, correlation_id="conversation-1")
            case 2:
                link.log.add(PLAIN, {"n": number}, at=at)
    return link.log


async def ids(link, query: str = "") -> list[int]:
    reply = await link.get(LIST + query)
    assert reply.status == 200, reply.text
    return [event["id"] for event in reply.json["events"]]


async def test_a_page_has_every_field_for_old_and_new_clients(link, log):
    said = (await link.get(LIST)).json
    assert set(said) >= {"events", "total", "has_more", "data"}
    assert set(said["data"]) >= {"events", "total_events", "timestamp"}
    assert said["data"]["events"] == said["events"]
    assert said["total"] == said["data"]["total_events"] == 12
    first = said["events"][0]
    assert set(first) >= {"id", "ts", "type", "severity", "module", "correlation_id", "summary", "payload"}
    assert (first["timestamp"], first["event_type"], first["details"]) == (first["ts"], first["type"], first["payload"])


async def test_the_newest_come_first_and_after_a_number_the_oldest(link, log):
    assert await ids(link) == list(range(12, 0, -1))
    assert await ids(link, "?limit=3") == [12, 11, 10]
    assert await ids(link, "?limit=3&offset=3") == [9, 8, 7]
    assert await ids(link, "?after=0&limit=3") == [1, 2, 3]
    assert await ids(link, "?after=10") == [11, 12]
    assert await ids(link, "?after=99") == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?module=switch&after=0", [1, 2, 4, 5, 7, 8, 10, 11]),
        ("?module=switch", [11, 10, 8, 7, 5, 4, 2, 1]),
        ("?severity=warning&after=0", [2, 5, 8, 11]),
        ("?correlation_id=conversation-1&limit=2", [11, 8]),
        ("?hours_back=0.05&after=0", [10, 11, 12]),
        ("?hours_back=0.05&module=greeter", [12]),
        ("?module=nobody", []),
    ],
)
async def test_filters_hold_together(link, log, query, found):
    assert await ids(link, query) == found


@pytest.mark.parametrize(
    ("query", "more"),
    [("?limit=12", False), ("?limit=11", True), ("?after=0&limit=12", False), ("?after=0&limit=5", True)],
)
async def test_it_says_whether_there_is_more(link, log, query, more):
    assert (await link.get(LIST + query)).json["has_more"] is more


@pytest.mark.parametrize("scan", [3, 100])
async def test_pages_after_each_other_miss_nothing_and_repeat_nothing(link, log, monkeypatch, scan):
    """Also where a filter finds nothing on a whole page."""
    monkeypatch.setattr(events, "BLOCK", 2)
    monkeypatch.setattr(events, "SCAN_MOST", scan)
    seen, after, more = [], 0, True
    while more:
        page = (await link.get(f"{LIST}?module=greeter&limit=2&after={after}")).json
        seen += [event["id"] for event in page["events"]]
        after, more = page["next_after"], page["has_more"]
    assert seen == [3, 6, 9, 12]
    assert await ids(link, "?limit=5&offset=4") == ([8, 7, 6, 5, 4] if scan > 9 else [])


async def test_what_comes_after_the_newest_page_can_be_read_on(link, log):
    after = (await link.get(LIST)).json["next_after"]
    link.log.add(PLAIN, {})
    assert await ids(link, f"?after={after}") == [13]


async def test_a_search_ends_somewhere_and_says_where(link, log, monkeypatch):
    monkeypatch.setattr(events, "SCAN_MOST", 4)
    said = (await link.get(LIST + "?module=greeter")).json
    assert ([event["id"] for event in said["events"]], said["scanned_from"]) == ([12, 9], 9)


@pytest.mark.parametrize(
    "query", ["?limit=0", "?limit=1001", "?limit=x", "?after=-1", "?severity=loud", "?hours_back=0", "?offset=-1"]
)
async def test_a_query_that_does_not_fit_is_400_with_its_field(link, query):
    reply = await link.get(LIST + query)
    assert is_error(reply, "invalid")
    assert reply.json["field"] == query[1:].split("=")[0]


async def test_a_log_that_cannot_be_read_is_told(link):
    link.log.fault = Failure("unavailable", "no stream")
    assert is_error(await link.get(LIST), "unavailable")
    assert is_error(await link.get(LIST, headers={"Accept": "text/event-stream"}), "unavailable")


def test_an_event_of_a_known_class_speaks_for_itself():
    line = line_of(ScriptedLog().add("vx11.events.power.failed.switch", {"actor": "switch", "reason": "no memory"}))
    assert (line.module, line.type, line.severity) == ("switch", "power.failed", "error")
    assert line.summary == "switch cannot be woken: no memory"


def test_a_plain_event_is_info_and_its_subject():
    line = line_of(ScriptedLog().add(PLAIN, b"not json at all"))
    assert (line.severity, line.summary, line.module) == ("info", PLAIN, "greeter")
    assert line.payload == {"text": "not json at all"}


def test_an_event_of_a_known_class_with_other_fields_is_still_shown():
    """Anybody with the bus may publish it."""
    line = line_of(ScriptedLog().add(FAILED, {"model": 3}))
    assert (line.severity, line.summary, line.payload) == ("warning", FAILED, {"model": 3})


def test_every_event_class_of_the_schemas_is_known():
    assert known_events()["vx11.events.power.failed"] is Failed
    assert all(subject.startswith("vx11.events.") for subject in known_events())


class Reader:
    """Reads one event stream, frame by frame."""

    def __init__(self, answer) -> None:
        self.answer = answer

    async def next(self) -> dict:
        """The fields of the next event; comments and signs of life are passed over."""
        while True:
            async with asyncio.timeout(5):
                block = (await self.answer.content.readuntil(b"\n\n")).decode()
            fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
            if "data" in fields:
                return fields


async def following(link) -> None:
    async with asyncio.timeout(5):
        while not link.log.followers:
            await asyncio.sleep(0.001)


async def test_the_stream_tells_what_happens_from_now_on(link, log):
    async with link.stream("GET", LIST) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        await following(link)
        await link.log.tell(PLAIN, {"n": 13})
        event = await Reader(answer).next()
    assert event["id"] == "13"
    assert "event" not in event  # an EventSource gets it by `onmessage`
    assert json.loads(event["data"])["payload"] == {"n": 13}


@pytest.mark.parametrize(("query", "headers"), [("", {"Last-Event-ID": "9"}), ("?last_event_id=9", {}), ("?after=9", {})])
async def test_a_stream_goes_on_where_it_was_broken(link, log, query, headers):
    async with link.stream("GET", LIST + query, headers=headers) as answer:
        reader = Reader(answer)
        assert [(await reader.next())["id"] for _ in range(3)] == ["10", "11", "12"]


@pytest.mark.parametrize("told", ["abc", "9" * 19, "9" * 5_000])
async def test_a_last_event_id_that_is_none_is_400(link, told):
    reply = await link.get(LIST, headers={"Accept": "text/event-stream", "Last-Event-ID": told})
    assert is_error(reply, "invalid")


async def test_a_stream_can_be_filtered(link, log):
    async with link.stream("GET", LIST + "?after=0&severity=warning") as answer:
        reader = Reader(answer)
        assert [(await reader.next())["id"] for _ in range(2)] == ["2", "5"]


async def test_a_silent_stream_says_that_it_is_alive(open_link):
    async with open_link(heartbeat_s=0.05) as link, link.stream("GET", LIST) as answer:
        async with asyncio.timeout(5):
            assert (await answer.content.readuntil(b"\n\n")).startswith(b": ")


async def test_a_sign_of_life_tells_how_far_was_looked(open_link):
    """So that whoever waits for something rare need not have everything looked through again when he comes back."""
    async with open_link(heartbeat_s=0.05) as link, link.stream("GET", LIST + "?module=nobody") as answer:
        await following(link)
        await link.log.tell(PLAIN, {})
        async with asyncio.timeout(5):
            while b"id: 1\n" not in await answer.content.readuntil(b"\n\n"):
                pass


def gap_of(event: dict) -> tuple[int, int, str]:
    assert event["event"] == "gap"
    told = json.loads(event["data"])
    return told["from"], told["to"], told["reason"]


async def test_a_reader_is_told_what_was_trimmed_before_he_came_back(link, log):
    log.trimmed = 7
    async with link.stream("GET", LIST, headers={"Last-Event-ID": "3"}) as answer:
        reader = Reader(answer)
        gap = await reader.next()
        assert (gap_of(gap), gap["id"]) == ((4, 7, "trimmed"), "7")
        assert (await reader.next())["id"] == "8"
    async with link.stream("GET", LIST, headers={"Last-Event-ID": gap["id"]}) as answer:
        assert (await Reader(answer).next())["id"] == "8"  # a gap is told once


async def test_a_reader_is_told_at_once_when_nothing_at_all_is_left(link, log):
    log.trimmed = 12
    async with link.stream("GET", LIST, headers={"Last-Event-ID": "3"}) as answer:
        assert gap_of(await Reader(answer).next()) == (4, 12, "trimmed")


async def test_a_reader_who_is_too_slow_for_the_trimming_is_told(link, log):
    async with link.stream("GET", LIST) as answer:
        await following(link)
        log.stored += [log.stored[-1]._replace(sequence=number) for number in (13, 14, 15)]
        log.trimmed = 14
        await link.log.tell(PLAIN, {})
        reader = Reader(answer)
        assert gap_of(await reader.next()) == (13, 14, "trimmed")
        assert [(await reader.next())["id"] for _ in range(2)] == ["15", "16"]


async def test_a_gap_is_told_also_to_who_wants_only_some_events(link, log):
    """What was trimmed may have been among them; nobody can say."""
    log.trimmed = 7
    async with link.stream("GET", LIST + "?after=3&severity=warning") as answer:
        reader = Reader(answer)
        assert gap_of(await reader.next()) == (4, 7, "trimmed")
        assert [(await reader.next())["id"] for _ in range(2)] == ["8", "11"]


async def test_a_reader_of_another_log_is_told_so_and_gets_all_of_this_one(link, log):
    """Without that he would wait in silence until the new log has passed the old one's numbers."""
    async with link.stream("GET", LIST, headers={"Last-Event-ID": "500"}) as answer:
        reader = Reader(answer)
        assert gap_of(await reader.next()) == (13, 500, "renewed")
        assert [(await reader.next())["id"] for _ in range(2)] == ["1", "2"]


async def test_who_asks_for_what_comes_is_told_of_no_gap(link, log):
    log.trimmed = 12
    async with link.stream("GET", LIST) as answer:
        await following(link)
        await link.log.tell(PLAIN, {"n": 13})
        assert (await Reader(answer).next())["id"] == "13"


async def test_a_stream_ends_after_its_time_and_says_so(open_link):
    async with open_link(stream_s=0.05) as link, link.stream("GET", LIST) as answer:
        assert await Reader(answer).next() == {"event": "end", "data": '{"reason": "time"}'}
        assert await answer.content.read() == b""


async def test_a_stream_ends_when_its_token_is_revoked(open_link):
    async with open_link(heartbeat_s=0.02) as link, link.stream("GET", LIST) as answer:
        await following(link)
        link.tokens.revoke(link.token.split("_")[1])
        event = await Reader(answer).next()
    assert (event["event"], json.loads(event["data"])["error"]) == ("error", "forbidden")


async def test_a_stop_ends_a_stream_with_a_last_word(link):
    async with link.stream("GET", LIST) as answer:
        await following(link)
        link.parts.stopping.set()
        assert await Reader(answer).next() == {"event": "end", "data": '{"reason": "stopping"}'}


async def test_a_stream_holds_no_place_of_a_request_and_leaves_nothing_behind(link):
    async with link.stream("GET", LIST) as answer:
        await following(link)
        assert (link.parts.places.taken, link.parts.streams.open.total()) == (0, 1)
        answer.close()
    await link.log.tell(PLAIN, {})
    async with asyncio.timeout(5):
        while link.parts.streams.open or link.log.followers:
            await link.log.tell(PLAIN, {"x": "y" * 100_000})  # a write shows that the reader has gone
            await asyncio.sleep(0.001)


async def test_so_many_streams_may_be_open(open_link):
    async with open_link(token_streams=1, streams=2) as link, link.stream("GET", LIST) as first:
        assert first.status == 200
        second = await link.get(LIST, headers={"Accept": "text/event-stream"})
        assert is_error(second, "busy")
        assert second.headers["Retry-After"] == "5"


STREAM = "/operator/api/events/stream"


async def test_a_browser_gets_the_stream_with_a_token_that_is_good_once(link, log):
    made = (await link.post(LIST + "/sse-token")).json
    assert made["ttl_sec"] == 60
    async with link.session.get(link.url(f"{STREAM}?token={made['sse_token']}&after=11")) as answer:
        assert (await Reader(answer).next())["id"] == "12"
    assert is_error(await link.get(f"{STREAM}?token={made['sse_token']}", token=None), "forbidden")


async def test_a_stream_token_is_no_token_and_a_token_no_stream_token(link):
    made = (await link.post(LIST + "/sse-token")).json["sse_token"]
    assert is_error(await link.get("/api/map", token=made), "forbidden")
    assert is_error(await link.get(f"{STREAM}?token={link.token}", token=None), "forbidden")
    assert is_error(await link.get(STREAM), "auth_required")


async def test_a_stream_token_is_kept_as_its_hash_for_a_minute(link, cache):
    made = (await link.post(LIST + "/sse-token")).json["sse_token"]
    keys = await cache._redis.keys("vx11:sse:*")
    assert all(made not in key for key in keys)
    assert 0 < await cache._redis.pttl(keys[-1]) <= 60_000


async def test_without_redis_there_are_no_stream_tokens(link, monkeypatch):
    async def away(*_, **__):
        raise Failure("unavailable", "the cache does not answer")

    monkeypatch.setattr(link.parts.cache, "put", away)
    assert is_error(await link.post(LIST + "/sse-token"), "unavailable")
