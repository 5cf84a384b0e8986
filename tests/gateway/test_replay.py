"""Replays by HTTP: the keeper is asked; who may play live is judged at the door."""

from __future__ import annotations

import pytest

from schemas.errors import Failure
from schemas.replay import (
    ListReplays,
    PauseReplay,
    ReplayList,
    ReplayStatus,
    ResumeReplay,
    StartReplay,
    StepReplay,
    StopReplay,
)

STATUS = ReplayStatus(id="mine", state="playing", target="vx11.sandbox.mine.", pace=2.0)


async def test_a_replay_is_begun_and_not_waited_for(link):
    link.bus.answers[StartReplay.subject] = STATUS
    answer = await link.post("/replay", {"pace": 2, "filters": ["vx11.events.shop.>"], "id": "mine"})
    assert (answer.status, answer.json["id"]) == (200, "mine")
    [asked] = link.bus.of(StartReplay.subject)
    wanted = StartReplay.model_validate(asked.body)
    assert (wanted.detach, wanted.pace, wanted.filters) == (True, 2.0, ["vx11.events.shop.>"])


async def test_playing_live_needs_the_scope_admin(link):
    link.bus.answers[StartReplay.subject] = STATUS
    assert (await link.post("/replay", {"live": True}, token=link.new_token("command"))).status == 403
    assert link.bus.of(StartReplay.subject) == []
    assert (await link.post("/replay", {"live": True}, token=link.new_token("admin"))).status == 200
    assert (await link.post("/replay", {}, token=link.new_token("read"))).status == 403


@pytest.mark.parametrize("body", [{"pace": 5_000}, {"since": "x"}, {"first": 3, "last": 2}, {"detach": False}, {"more": 1}])
async def test_what_makes_no_sense_never_reaches_the_keeper(link, body):
    assert (await link.post("/replay", body)).status == 400
    assert link.bus.of(StartReplay.subject) == []


async def test_it_is_looked_at_paused_stepped_resumed_and_stopped(link):
    link.bus.answers[ListReplays.subject] = ReplayList(replays=[STATUS])
    for message in (PauseReplay, ResumeReplay, StepReplay, StopReplay):
        link.bus.answers[message.subject] = STATUS
    assert (await link.get("/replay/mine")).json["state"] == "playing"
    assert len((await link.get("/replay")).json["replays"]) == 1
    for path, body in (("pause", {}), ("step", {"count": 3}), ("resume", {"pace": "max"}), ("stop", {})):
        assert (await link.post(f"/replay/mine/{path}", body)).status == 200
        assert (await link.post(f"/replay/mine/{path}", body, token=link.new_token("read"))).status == 403
    [stepped] = link.bus.of(StepReplay.subject)
    assert (stepped.body["id"], stepped.body["count"]) == ("mine", 3)


async def test_an_unknown_one_is_not_found(link):
    link.bus.answers[ListReplays.subject] = Failure("not_found", "there is no replay x")
    assert (await link.get("/replay/x")).status == 404
