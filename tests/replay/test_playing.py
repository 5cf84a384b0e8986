"""How it is played: when each event comes, pause, step and stop, breaks, trimming, and the live subjects."""

from __future__ import annotations

import asyncio
import json

import pytest

from bus import replay as engine
from bus import selection
from bus.pace import Clock, Errors
from bus.replay import Replay
from bus.replay_target import Sandbox
from schemas.errors import Failure
from schemas.keeper import Find, Found
from schemas.replay import StartReplay
from tests.replay.theatre import Theatre, connected, plain_scan, until

SOLD = "vx11.events.shop.sold"
BUSY_P99_MS, BUSY_P50_MS = 500.0, 100.0
"""On a machine that does much else at the same time; the bench has the figure."""


def sales(number: int):
    return [(SOLD, json.dumps({"n": n}).encode(), {"correlation_id": "conversation-1"}) for n in range(number)]


async def slowly(stage: Theatre, number: int, pause: float) -> None:
    for n in range(number):
        await stage.fill([(SOLD, json.dumps({"n": n}).encode(), {})])
        await asyncio.sleep(pause)


@pytest.mark.parametrize(("speed", "number", "pause"), [(1.0, 30, 0.02), (10.0, 60, 0.02)])
async def test_events_come_when_they_were_stored(stage, speed, number, pause):
    """Without drift: each is measured against the first, by the one who hears it."""
    await slowly(stage, number, pause)
    recorded = [event["at"] for event in await plain_scan(stage.server)]
    summary = await stage.play(pace=speed)
    came = [heard.at for heard in stage.heard]
    late = sorted(1000 * ((c - came[0]) - (r - recorded[0]) / speed) for c, r in zip(came, recorded, strict=True))
    assert late[int(len(late) * 0.99) - 1] < BUSY_P99_MS
    assert late[0] > -BUSY_P99_MS
    assert late[len(late) // 2] < BUSY_P50_MS
    assert abs(summary.wanted_s - (recorded[-1] - recorded[0]) / speed) < 0.01
    assert abs(summary.recorded_s - (recorded[-1] - recorded[0])) < 0.01
    assert summary.took_s >= summary.wanted_s - 0.001
    assert 0 < summary.error_p50_ms <= summary.error_p99_ms < BUSY_P99_MS


async def test_a_pause_stops_the_clock_and_moves_the_rest(stage):
    await slowly(stage, 30, 0.02)
    replay = stage.replay(pace=1.0)
    playing = asyncio.create_task(replay.run())
    await until(lambda: len(stage.heard) >= 5)
    replay.pause()
    await until(lambda: replay.status.state == "paused")
    await stage.settled()
    had = len(stage.heard)
    await asyncio.sleep(0.5)  # longer than all that was left
    assert len(stage.heard) == had < 30
    replay.resume()
    summary = await playing
    assert stage.sequences == list(range(1, 31))
    assert summary.state == "done"
    assert summary.error_p99_ms < BUSY_P99_MS
    assert summary.took_s < summary.wanted_s + 0.4


async def test_what_goes_on_after_a_pause_says_that_it_plays(stage):
    """At any pace: who sees `paused` goes on and cannot pause again."""
    await stage.fill(sales(10))
    replay = stage.replay(pace="max")
    replay.pause()
    playing = asyncio.create_task(replay.run())
    await until(lambda: replay.state == "paused")
    said, send = [], stage.player.wire.send
    stage.player.wire.send = lambda *args, **more: (said.append(replay.status.state), send(*args, **more))
    replay.resume()
    await playing
    assert set(said) == {"playing"}


async def test_the_pace_can_be_changed_on_the_way(stage):
    await slowly(stage, 10, 0.1)
    replay = stage.replay(pace=0.5)
    playing = asyncio.create_task(replay.run())
    await until(lambda: len(stage.heard) >= 2)
    replay.resume(pace=10.0)
    await until(lambda: len(stage.heard) >= 5)
    replay.resume(pace="max")
    summary = await playing
    assert (stage.sequences, summary.pace) == (list(range(1, 11)), "max")


async def test_steps_let_as_many_through_as_are_asked_for(stage):
    await stage.fill(sales(10))
    replay = stage.replay(pace="step")
    playing = asyncio.create_task(replay.run())
    await until(lambda: replay.state == "paused")
    assert stage.heard == []
    replay.step()
    await until(lambda: replay.status.events == 1)
    replay.step(3)
    await until(lambda: replay.status.events == 4)
    await stage.settled()
    assert stage.sequences == [1, 2, 3, 4]
    replay.resume("max")
    assert (await playing).events == 10
    with pytest.raises(Failure) as failure:
        stage.replay(pace="max").step()
    assert failure.value.code == "conflict"


async def test_a_stop_ends_it_with_what_was_sent(stage):
    await stage.fill(sales(10))
    replay = stage.replay(pace="step")
    playing = asyncio.create_task(replay.run())
    replay.step(4)
    await until(lambda: replay.status.events == 4)
    replay.stop()
    summary = await playing
    assert (summary.state, summary.events, summary.position) == ("stopped", 4, 4)
    assert stage.sequences == [1, 2, 3, 4]


async def test_trimming_in_the_middle_is_a_gap_that_is_said(stage, monkeypatch):
    """The pages in hand are played; what was trimmed behind them is told with its sequences."""
    monkeypatch.setattr(selection, "BATCH", 100)
    await stage.fill(sales(2_000))
    replay = stage.replay(pace="step")
    playing = asyncio.create_task(replay.run())
    replay.step()
    await until(lambda: replay.status.events == 1)
    await stage.boss.api("$JS.API.STREAM.PURGE.VX11_EVENTS", json.dumps({"seq": 1_801}).encode())
    replay.resume("max")
    summary = await playing
    missing = [n for gap in summary.gaps for n in range(gap.first, gap.last + 1)]
    assert summary.missing == len(missing) > 0
    assert sorted(stage.sequences + missing) == list(range(1, 2_001))
    assert stage.sequences[-200:] == list(range(1_801, 2_001))


async def test_trimming_is_seen_through_a_filter_too(stage, monkeypatch):
    """What a filter passes over cannot be known to be missing, but a beginning that is gone can."""
    monkeypatch.setattr(selection, "BATCH", 100)
    await stage.fill(
        [event for pair in zip(sales(1_500), [("vx11.events.mill.ground", b"", {})] * 1_500, strict=True) for event in pair]
    )
    replay = stage.replay(pace="step", filters=["vx11.events.mill.>"])
    playing = asyncio.create_task(replay.run())
    replay.step()
    await until(lambda: replay.status.events == 1)
    await stage.boss.api("$JS.API.STREAM.PURGE.VX11_EVENTS", json.dumps({"seq": 2_801}).encode())
    replay.resume("max")
    summary = await playing
    assert summary.missing > 0
    gone = {n for gap in summary.gaps for n in range(gap.first, gap.last + 1)}
    assert set(range(2, 3_001, 2)) - set(stage.sequences) <= gone


async def test_removed_events_are_missing(stage):
    await stage.fill(sales(60))
    for sequence in (7, 8, 9, 30):
        await stage.boss.api("$JS.API.STREAM.MSG.DELETE.VX11_EVENTS", json.dumps({"seq": sequence}).encode())
    summary = await stage.play(pace="max")
    assert [(gap.first, gap.last) for gap in summary.gaps] == [(7, 9), (30, 30)]
    assert (summary.events, summary.missing) == (56, 4)


@pytest.mark.parametrize("pace", ["max", 1000.0])
async def test_a_killed_server_costs_nothing_but_repeats(own_stage, monkeypatch, pace):
    """kill -9 between two events. Heard over the player's own connection: all is there, in order, a part of it twice."""
    monkeypatch.setattr(selection, "BATCH", 250)
    monkeypatch.setattr(engine, "LISTENERS_BACK_S", 0.05)
    stage, number, blow = own_stage, 1_200, 777
    await stage.fill(sales(number))
    put, puts = Sandbox.put, iter(range(number * 3))

    def strike(self, msg):
        if next(puts) == blow:
            stage.server.kill()
        return put(self, msg)

    monkeypatch.setattr(Sandbox, "put", strike)
    replay = stage.replay(pace=pace)
    playing = asyncio.create_task(replay.run())
    await until(lambda: replay.state == "waiting")
    stage.server.start()
    summary = await playing
    assert (summary.state, summary.missing, summary.error, summary.breaks) == ("done", 0, "", 1)
    assert sorted(set(stage.sequences)) == list(range(1, number + 1))
    assert summary.events == number
    assert summary.repeated > 0
    turns = [(a, b) for a, b in zip(stage.sequences, stage.sequences[1:], strict=False) if b != a + 1]
    assert len(turns) <= 1, "out of order"
    assert all(b <= a + 1 for a, b in turns), "something was left out at the break"


async def test_without_a_server_it_ends_and_says_where_to_go_on(own_stage, monkeypatch):
    monkeypatch.setattr(engine, "PATIENCE_S", 0.5)
    monkeypatch.setattr(selection, "BATCH", 250)
    stage = own_stage
    await stage.fill(sales(1_500))
    replay = stage.replay(pace="step")
    playing = asyncio.create_task(replay.run())
    replay.step(10)
    await until(lambda: replay.status.events == 10)
    stage.server.stop()
    replay.resume("max")
    summary = await playing
    stage.server.start()
    assert summary.state == "failed"
    assert f"begins with {summary.position + 1}" in summary.error
    assert summary.position <= 10


async def test_live_events_are_stored_again_under_ids_of_their_own(stage):
    """Twice the same replay is stored once; another one again. Never under the old id, which the server still knows."""
    told = [(SOLD, b"{}", {"Nats-Msg-Id": f"sale-{n}", "correlation_id": "conversation-1"}) for n in range(150)]
    told += [("vx11.events.power.activate.switch", b"{}", {}), ("vx11.events.madre.started", b"{}", {})]
    await stage.fill(told)
    orders = []
    await stage.boss.listen("vx11.events.power.>", lambda msg: orders.append(msg.subject))
    summary = await stage.play(id="again", live=True, pace="max", last=152)
    assert (summary.state, summary.target, summary.events, summary.error) == ("done", "live", 150, "")
    assert summary.skipped == {"power": 1, "house": 1}
    assert any("hosts" in told for told in summary.told)
    scan = await plain_scan(stage.server)
    played = scan[152:]
    assert [(e["subject"], e["headers"]["vx11-replay-of"]) for e in played] == [(SOLD, f"again:{n}") for n in range(1, 151)]
    assert {e["headers"]["Nats-Msg-Id"] for e in played} == {f"again:{n}" for n in range(1, 151)}
    assert [e["headers"]["vx11-was-Nats-Msg-Id"] for e in played] == [f"sale-{n}" for n in range(150)]
    await stage.play(id="again", live=True, pace="max", last=152)
    assert len(await plain_scan(stage.server)) == 152 + 150
    assert orders == []


async def test_a_killed_server_neither_loses_nor_doubles_live_events(own_stage):
    """kill -9 while some are under way: they are stored again under the same ids."""
    stage, number = own_stage, 700
    await stage.fill(sales(number))
    replay = stage.replay(id="again", live=True, pace="max")
    playing = asyncio.create_task(replay.run())
    await until(lambda: replay.status.events > 100)
    stage.server.kill()
    stage.server.start()
    summary = await playing
    assert (summary.state, summary.error, summary.missing) == ("done", "", 0)
    played = [event["headers"]["vx11-replay-of"] for event in (await plain_scan(stage.server))[number:]]
    assert sorted(played) == sorted(f"again:{n}" for n in range(1, number + 1))


async def test_live_events_that_find_no_room_end_the_replay_with_the_reason(stage):
    await stage.fill(sales(20))
    config = (await stage.boss.api("$JS.API.STREAM.INFO.VX11_EVENTS"))["config"] | {"max_msgs": 25}
    await stage.boss.api("$JS.API.STREAM.UPDATE.VX11_EVENTS", json.dumps(config).encode())
    summary = await stage.play(live=True, pace="max")
    assert summary.state == "failed"
    assert "begins with" in summary.error


async def test_large_live_events_are_no_more_at_a_time_than_may_wait(stage):
    """Those of a conversation are read together, however large they are."""
    number, body = 24, b'{"x": "%s"}' % (b"x" * 900_000)
    await stage.fill([(SOLD, body, {"correlation_id": "conversation-1"})] * number)
    found = Found(events=list(range(1, number + 1)), calls=[], indexed_events=number, indexed_calls=0)
    await stage.boss.listen(Find.subject, lambda msg: stage.boss.wire.send(msg.reply, found.model_dump_json().encode()))
    await stage.boss.wire.barrier()
    summary = await stage.play(correlation_id="conversation-1", live=True, pace="max")
    assert (summary.state, summary.error, summary.events) == ("done", "", number)
    assert len(await plain_scan(stage.server)) == 2 * number


async def test_a_user_without_the_right_is_told_so(stage):
    await stage.fill(sales(3))
    async with connected(stage.server, "gateway") as stranger:
        summary = await Replay(stranger, StartReplay(pace="max")).run()
    assert summary.state == "failed"
    assert "does not let" in summary.error


def test_the_clock_does_not_drift_and_takes_a_pause_and_a_change():
    clock = Clock(10.0)
    assert clock.due(1000.0, 5.0) == 5.0
    clock.sent(1000.0)
    assert clock.due(1001.0, 5.05) == pytest.approx(5.1)
    clock.sent(1001.0)
    clock.held(2.0)
    assert clock.due(1002.0, 7.15) == pytest.approx(7.2)
    clock.change(1.0, 7.15)
    assert clock.due(1002.0, 7.15) == pytest.approx(7.65)
    assert clock.wanted == pytest.approx(0.1)


def test_percentiles_of_errors_are_those_of_their_steps():
    errors = Errors()
    assert errors.percentile_ms(0.99) == 0.0
    for n in range(1000):
        errors.add(n / 10_000)
    assert errors.percentile_ms(0.5) == pytest.approx(50.0, abs=0.2)
    assert errors.percentile_ms(0.99) == pytest.approx(99.0, abs=0.2)
    errors.add(60.0)
    assert errors.percentile_ms(1.0) == 2000.0
