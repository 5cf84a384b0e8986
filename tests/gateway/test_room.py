"""Too little room on the disk: what would have to be stored is refused at the door, and everything else goes on."""

from __future__ import annotations

import pytest

from bus.space import MIB
from gateway.http.routes import TABLE
from gateway.http.settings import HttpSettings, Misconfigured
from tests.gateway.scripted import OPERATOR

NOBODY_HAS = 10.0**9
"""MB: a reserve that no disk has."""


@pytest.fixture
async def poor(open_link):
    given = frozenset({"VX11_DISK_RESERVE_MB"})
    async with open_link(reserve_mb=NOBODY_HAS, given=given) as link:
        yield link


STORING = [
    ("/operator/api/chat", {"message": "hello"}),
    ("/vx11/intent", {"intent_type": "chat", "payload": {"message": "hello"}}),
    ("/events/echo/noted", {"n": 1}),
]


@pytest.mark.parametrize(("path", "body"), STORING)
async def test_what_would_have_to_be_stored_is_refused_before_anybody_is_asked(poor, bus, path, body):
    answer = await poor.post(path, body)
    assert (answer.status, answer.json["error"]) == (507, "storage_full")
    assert answer.json["retry_after"] == 10
    assert answer.json["reserve_bytes"] == NOBODY_HAS * MIB
    assert "VX11_DISK_RESERVE_MB" in answer.json["message"]
    assert not bus.of(OPERATOR)
    assert not bus.published
    assert poor.parts.meter.refused["storage_full"] == 1


def test_every_route_that_stores_says_so():
    assert {path for path, _ in STORING} == {
        route.path.replace("{actor}", "echo").replace("{fact}", "noted") for route in TABLE if route.stores
    }


async def test_a_stranger_is_not_told_how_much_room_there_is(poor):
    answer = await poor.post("/operator/api/chat", {"message": "hello"}, token=None)
    assert answer.status == 401
    assert "free_bytes" not in answer.json


async def test_the_status_is_degraded_with_the_reason_and_the_bytes(poor):
    status = (await poor.get("/vx11/status")).json
    assert (status["ok"], status["status"]) == (True, "degraded")
    assert status["storage"]["low"]
    assert status["storage"]["free_bytes"] > 0
    assert "free some space" in status["storage"]["reason"]
    assert (await poor.get("/operator/api/status")).json["degraded"]


async def test_looking_goes_on(poor):
    for path in ("/operator/api/events", "/madre/power/status", "/health/ready"):
        assert (await poor.get(path)).status == 200


async def test_with_room_there_is_nothing_to_say(link):
    status = (await link.get("/vx11/status")).json
    assert (status["status"], status["storage"]["low"], status["storage"]["reason"]) == ("ok", False, "")


@pytest.mark.parametrize("size", [-1.0, float("nan"), float("inf")])
def test_a_reserve_that_is_no_size_does_not_start(size):
    with pytest.raises(Misconfigured, match="VX11_DISK_RESERVE_MB"):
        HttpSettings(reserve_mb=size).check()
