"""Which events are played: by sequence, time, filter, actor and conversation, each equal to a plain scan."""

from __future__ import annotations

import asyncio
import fnmatch
import json
import os
import random
from datetime import UTC, datetime

import pytest

from bus.eventlog import EventLog
from bus.replay import Replay
from bus.selection import Ahead, Page, Plan, Reading, fits
from schemas.errors import Failure
from schemas.keeper import Find, Found
from schemas.replay import StartReplay
from tests.replay.theatre import plain_scan, until

SUBJECTS = (
    "vx11.events.shop.sold",
    "vx11.events.shop.returned",
    "vx11.events.mill.ground",
    "vx11.events.mill.stood.still",
    "vx11.events.power.slept.shop",
    "vx11.events.power.active.mill",
)
NUMBER = 1_600
MANY = 100_000 if os.environ.get("VX11_LONG_LOG") == "1" else NUMBER


def some_events(number: int = NUMBER, seed: int = 7):
    dice = random.Random(seed)
    made = []
    for n in range(number):
        headers = {"correlation_id": f"conversation-{dice.randrange(40)}"} if dice.random() < 0.8 else {}
        made.append((dice.choice(SUBJECTS), json.dumps({"n": n, "pad": "x" * dice.randrange(400)}).encode(), headers))
    return made


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def between(times: list[float], at: int) -> float:
    """A moment that no rounding can move to the other side of an event, at the one `at` or soon after it."""
    return next((a + b) / 2 for a, b in zip(times[at:], times[at + 1 :], strict=False) if b - a > 1e-4)


CASES = {
    "everything": ({}, lambda e: True),
    "from a sequence": ({"first": 1_201}, lambda e: e["sequence"] >= 1_201),
    "a range of sequences": ({"first": 17, "last": 1_203}, lambda e: 17 <= e["sequence"] <= 1_203),
    "one event": ({"first": 900, "last": 900}, lambda e: e["sequence"] == 900),
    "one subject": ({"filters": ["vx11.events.shop.sold"]}, lambda e: e["subject"] == "vx11.events.shop.sold"),
    "a token left open": (
        {"filters": ["vx11.events.*.sold"]},
        lambda e: fnmatch.fnmatch(e["subject"], "vx11.events.[!.]*.sold"),
    ),
    "an open end": ({"filters": ["vx11.events.mill.>"]}, lambda e: e["subject"].startswith("vx11.events.mill.")),
    "several filters": (
        {"filters": ["vx11.events.shop.*", "vx11.events.power.>"]},
        lambda e: e["subject"].startswith(("vx11.events.shop.", "vx11.events.power.")),
    ),
    "an actor": (
        {"actor": "mill"},
        lambda e: e["subject"].startswith("vx11.events.mill.") or e["subject"] == "vx11.events.power.active.mill",
    ),
    "a conversation": (
        {"correlation_id": "conversation-7"},
        lambda e: e["headers"].get("correlation_id") == "conversation-7",
    ),
    "all at once": (
        {"correlation_id": "conversation-7", "filters": ["vx11.events.mill.>"], "first": 100, "last": 1_500},
        lambda e: (
            e["headers"].get("correlation_id") == "conversation-7"
            and e["subject"].startswith("vx11.events.mill.")
            and 100 <= e["sequence"] <= 1_500
        ),
    ),
}


@pytest.mark.timeout(900)
async def test_each_selection_is_what_a_plain_scan_finds(stage):
    """Bodies, subjects and order too; the scan is the stock client's."""
    await stage.fill(some_events(MANY))
    scan = await plain_scan(stage.server)
    assert len(scan) == MANY
    times = [event["at"] for event in scan]
    cases = dict(CASES)
    for name, low, high in (("a time", 300, 1_100), ("until a time", 0, 700), ("since a time", 900, None)):
        since, until_ = between(times, low), between(times, high) if high else None
        wanted = {"since": moment(since)} | ({"until": moment(until_)} if until_ else {})
        cases[name] = (wanted, lambda e, since=since, until_=until_: since <= e["at"] and (until_ is None or e["at"] < until_))
    for name, (wanted, holds) in cases.items():
        stage.heard.clear()
        summary = await stage.play(pace="max", **wanted)
        expected = [event for event in scan if holds(event)]
        assert (summary.state, summary.error, summary.missing, summary.skipped) == ("done", "", 0, {}), name
        assert stage.sequences == [event["sequence"] for event in expected], name
        assert [h.body for h in stage.heard] == [event["body"] for event in expected], name
        assert [h.subject for h in stage.heard] == [event["subject"] for event in expected], name
        assert (summary.events, summary.bytes) == (len(expected), sum(len(event["body"]) for event in expected)), name
        assert expected, name


async def test_what_is_stored_after_the_beginning_is_not_played(stage):
    """Else a live replay would play itself for ever."""
    await stage.fill(some_events(30))
    replay = stage.replay(pace="step")
    playing = asyncio.create_task(replay.run())
    await until(lambda: replay.state == "paused")
    await stage.fill(some_events(30))
    replay.resume("max")
    summary = await playing
    assert (summary.last, stage.sequences) == (30, list(range(1, 31)))


async def test_an_empty_log_is_played_at_once(stage):
    summary = await stage.play(pace="max")
    assert (summary.state, summary.events, summary.missing) == ("done", 0, 0)


async def test_originals_are_carried_whole_and_marked(stage):
    """The server's own headers under other names: the id of an event must not make its replay a duplicate."""
    own = {"correlation_id": "conversation-1", "ce-type": "sale", "Nats-Msg-Id": "sale-1", "X-Ünïcode": "no header name"}
    (sequence,) = await stage.fill([("vx11.events.shop.sold", b"\x00\xff whatever", own)])
    await stage.play(id="mine", pace="max")
    (heard,) = stage.heard
    (stored,) = await plain_scan(stage.server)
    assert (heard.subject, heard.body, heard.headers["correlation_id"]) == (
        "vx11.events.shop.sold",
        b"\x00\xff whatever",
        "conversation-1",
    )
    assert heard.headers["ce-type"] == "sale"
    assert heard.headers["vx11-was-Nats-Msg-Id"] == "sale-1"
    assert heard.headers["vx11-replay-of"] == f"mine:{sequence}"
    assert abs(datetime.fromisoformat(heard.headers["vx11-original-time"]).timestamp() - stored["at"]) < 1e-3
    assert not [name for name in heard.headers if name.startswith("Nats-")]


async def test_an_event_without_a_body_and_headers_is_played(stage):
    await stage.boss.api("vx11.events.shop.sold", b"", headers=None)
    await stage.play(pace="max")
    assert [(h.subject, h.body) for h in stage.heard] == [("vx11.events.shop.sold", b"")]


async def test_what_is_too_large_with_the_headers_of_a_replay_is_skipped_and_said(stage, monkeypatch):
    """A replay adds headers; the server would cut the connection over a message that is too large with them."""
    await stage.fill([("vx11.events.shop.sold", b"x" * size, {}) for size in (10, 900, 10)])
    monkeypatch.setattr(stage.player.wire, "max_payload", 1_000)
    summary = await stage.play(pace="max")
    assert stage.sequences == [1, 3]
    assert (summary.events, summary.skipped, summary.position) == (2, {"too_large": 1}, 3)


async def test_dry_runs_count_and_send_nothing(stage):
    await stage.fill(some_events(900))
    summary = await stage.play(filters=["vx11.events.shop.>"], dry_run=True)
    await stage.settled()
    scan = [event for event in await plain_scan(stage.server) if event["subject"].startswith("vx11.events.shop.")]
    assert stage.heard == []
    assert (summary.state, summary.target) == ("done", "")
    assert (summary.events, summary.bytes) == (len(scan), sum(len(event["body"]) for event in scan))
    assert abs(summary.recorded_s - (scan[-1]["at"] - scan[0]["at"])) < 1e-3


async def know(stage, found: Found) -> None:
    """A keeper whose index has this in it."""
    body = found.model_dump_json().encode()
    await stage.boss.listen(Find.subject, lambda msg: stage.boss.wire.send(msg.reply, body))
    await stage.boss.wire.barrier()


@pytest.mark.parametrize(("reach", "more"), [(NUMBER, False), (1_000, False), (0, False), (NUMBER + 50, True)])
async def test_the_index_of_the_keeper_and_a_scan_for_the_rest_find_the_same(stage, reach, more):
    """However far the index reaches, also when it stops at its limit."""
    await stage.fill(some_events())
    scan = await plain_scan(stage.server)
    known = [e["sequence"] for e in scan if e["headers"].get("correlation_id") == "conversation-3" and e["sequence"] <= reach]
    known = known[: len(known) // 2] if more else known
    answer = Found(events=known, calls=[], more=more, indexed_events=reach, indexed_calls=0)
    await know(stage, answer)
    summary = await stage.play(correlation_id="conversation-3", pace="max", first=100)
    expected = [e for e in scan if e["headers"].get("correlation_id") == "conversation-3" and e["sequence"] >= 100]
    assert stage.sequences == [e["sequence"] for e in expected]
    assert any("index" in told for told in summary.told)


async def test_a_conversation_is_known_wherever_it_is_said(stage):
    """In a header, in the body, as a CloudEvent's attribute, or made up from the place of an event that says nothing."""
    said = "conversation-5"
    document = json.dumps({"correlation_id": said}).encode()
    cloud = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/shop", "ce-type": "sold", "ce-vxcorrelationid": said}
    told = [(b"{}", {"correlation_id": said}), (document, {}), (b"{}", cloud), (b"{}", {}), (b"no json correlation_id", {})]
    await stage.fill([("vx11.events.shop.sold", body, head) for body, head in told])
    await stage.play(correlation_id=said, pace="max")
    assert stage.sequences == [1, 2, 3]
    stage.heard.clear()
    await stage.play(correlation_id="event-00000004", pace="max")
    assert stage.sequences == [4]
    await know(stage, Found(events=[], calls=[], indexed_events=5, indexed_calls=0))
    stage.heard.clear()
    await stage.play(correlation_id="event-00000004", pace="max")
    assert stage.sequences == [4]


async def test_what_the_index_says_is_judged_as_a_scan_judges(stage):
    """It may be of a log that was replaced, and takes ids from a body that a trace does not."""
    await stage.fill([("vx11.events.shop.sold", b"{}", {"correlation_id": f"conversation-{n}"}) for n in range(6)])
    await know(stage, Found(events=[2, 4, 5], calls=[], indexed_events=6, indexed_calls=0))
    summary = await stage.play(correlation_id="conversation-3", pace="max")
    assert (stage.sequences, summary.events) == ([4], 1)


async def test_without_a_keeper_the_summary_says_that_the_log_was_read_through(stage):
    await stage.fill(some_events(50))
    summary = await stage.play(correlation_id="conversation-3", pace="max")
    assert any("read through" in told for told in summary.told)


async def test_what_the_index_knows_and_the_log_has_lost_is_missing(stage):
    await stage.fill([("vx11.events.shop.sold", b"{}", {"correlation_id": "conversation-3"})] * 9)
    await stage.boss.api("$JS.API.STREAM.MSG.DELETE.VX11_EVENTS", json.dumps({"seq": 4}).encode())
    answer = Found(events=list(range(1, 10)), calls=[], indexed_events=9, indexed_calls=0)
    await know(stage, answer)
    summary = await stage.play(correlation_id="conversation-3", pace="max")
    assert stage.sequences == [1, 2, 3, 5, 6, 7, 8, 9]
    assert (summary.missing, [(gap.first, gap.last) for gap in summary.gaps]) == (1, [(4, 4)])


async def test_another_stream_can_be_played(stage):
    """Golden replay reads recorded calls."""
    config = {"name": "VX11_CALLS", "subjects": ["vx11.calls.>"], "storage": "file", "allow_direct": True}
    await stage.boss.api("$JS.API.STREAM.CREATE.VX11_CALLS", json.dumps(config).encode())
    await stage.boss.api("vx11.calls.echo.say", b"{}")
    log = EventLog(stage.player, "VX11_CALLS", "vx11.calls.>")
    await Replay(stage.player, StartReplay(pace="max", actor="echo"), log).run()
    assert [heard.subject for heard in stage.heard] == ["vx11.calls.echo.say"]


@pytest.mark.parametrize(
    ("pattern", "subject", "fit"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("*.b.*", "a.b.c", True),
        ("*.b.*", "a.c.b", False),
    ],
)
def test_patterns_fit_as_nats_has_it(pattern, subject, fit):
    assert fits(pattern)(subject) is fit


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"since": "yesterday"}, "no moment"),
        ({"since": "2026-01-31T08:00:00"}, "2026-01-31T08:00:00Z"),
        ({"since": "0001-01-01T00:00:00+05:00"}, "no moment"),
        ({"until": "9999-12-31T23:59:59-05:00"}, "no moment"),
        ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "no time at all"),
        ({"first": 9, "last": 3}, "above"),
        ({"filters": ["vx11.>.shop"]}, "no subject"),
        ({"filters": ["vx11.sh*"]}, "no subject"),
        ({"pace": 0.05}, "0.1"),
        ({"pace": 2000}, "1000"),
        ({"id": "a.b"}, "id"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_write_instead(wanted, says):
    with pytest.raises(ValueError, match=says):
        StartReplay(**wanted)


async def test_what_breaks_while_it_is_read_is_told_and_not_waited_for():
    class Broken(Reading):
        async def page(self, after: int) -> Page | None:
            raise KeyError("Nats-Subject")

    ahead = Ahead(Broken(None, Plan(1, 9, 1)), 0)
    async with asyncio.timeout(5):
        with pytest.raises(Failure, match="internal") as failure:
            await ahead.next()
    assert "Nats-Subject" in failure.value.message
    await ahead.close()


async def test_power_alone_is_refused_live(stage):
    with pytest.raises(Failure) as failure:
        stage.replay(live=True, filters=["vx11.events.power.>"])
    assert failure.value.code == "invalid"
    assert "hosts" in failure.value.message
