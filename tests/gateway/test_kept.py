"""What the door says of the log, as the keeper's heartbeats tell it: broken is degraded, and silence is not whole."""

from __future__ import annotations

import json

import pytest

from bus.wire import Msg
from gateway.http import kept
from gateway.http.kept import KeeperHeard


def beat(heard: KeeperHeard, **said: object) -> None:
    heard.heard(Msg("vx11.hb.keeper.1", "", json.dumps({"actor": "keeper", **said}).encode(), None))


@pytest.mark.parametrize(
    ("state", "status"), [("whole", "ok"), ("checking", "ok"), ("broken", "degraded"), ("closed", "degraded")]
)
async def test_a_log_that_is_not_kept_degrades_the_whole(link, state, status):
    beat(link.parts.observed.keeper, state=state, reason="event 9 is not in the log any more")
    said = (await link.get("/vx11/status")).json
    assert (said["status"], said["log"]["state"], said["log"]["reason"][:7]) == (status, state, "event 9")


async def test_without_a_keeper_nothing_is_claimed(link):
    said = (await link.get("/vx11/status")).json
    assert (said["status"], said["log"]["state"]) == ("ok", "unknown")


def test_a_keeper_that_is_not_heard_any_more_is_not_taken_for_well(monkeypatch):
    heard = KeeperHeard()
    beat(heard, state="whole")
    assert heard.now().state == "whole"
    monkeypatch.setattr(kept, "SILENT_S", -1.0)
    assert (heard.now().state, heard.now().bad) == ("silent", True)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"state": "splendid"}', b'{"state": ["whole"]}', b"\xff"])
def test_what_is_no_heartbeat_says_nothing(data):
    heard = KeeperHeard()
    heard.heard(Msg("vx11.hb.keeper.1", "", data, None))
    assert heard.now().state == "unknown"
