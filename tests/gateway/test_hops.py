"""The door writes a call record for what it has sent on, after the answer, and sheds it before it could delay one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from bus import recorder
from bus.recorder import Recorder
from gateway.http.hops import Hops
from schemas.errors import Failure
from tests.gateway.conftest import Link

TRACE = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


class Wire:
    """Keeps what is sent; says no while `down`."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.down = False

    def send(self, subject: str, body: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None) -> None:
        assert not reply
        assert not headers
        if self.down:
            raise Failure("unavailable", "there is no server")
        self.sent.append((subject, json.loads(body)))


@pytest.fixture
def wire(link: Link) -> Wire:
    made = Wire()
    link.bus.answers["vx11.madre.wake"] = {"service": "switch", "from": "dormant", "to": "active", "elapsed_ms": 9.0}
    link.parts.hops = Hops(Recorder(made, "tentaculo_link", "gateway"))  # type: ignore[arg-type]  # the one method is enough
    return made


def flushed(link: Link, wire: Wire) -> list[tuple[str, dict[str, Any]]]:
    assert link.parts.hops
    link.parts.hops.recorder.flush()
    return wire.sent


async def test_a_request_that_was_sent_on_has_a_record(link: Link, wire: Wire) -> None:
    headers = {"X-Correlation-Id": "conversation-1", "traceparent": TRACE}
    reply = await link.post("/madre/power/service/switch/wake", headers=headers)
    [(subject, told)] = flushed(link, wire)
    assert subject == f"vx11.calls.tentaculo_link.{subject.rsplit('.', 1)[1]}"
    assert told["http"] == {"method": "POST", "route": "/madre/power/service/{name}/wake", "status": reply.status}
    assert (told["correlation_id"], told["parent"], told["code"]) == ("conversation-1", "cd" * 8, "ok")
    assert told["traceparent"] == reply.headers["traceparent"] == link.bus.asked[-1].headers["traceparent"]
    assert 0 < told["took_ms"] < 10_000
    assert told["caller"]


async def test_a_failure_is_told_by_its_code(link: Link, wire: Wire) -> None:
    link.bus.answers["vx11.madre.wake"] = Failure("off_by_policy", "it is closed")
    reply = await link.post("/madre/power/service/switch/wake")
    [(_, told)] = flushed(link, wire)
    assert (told["http"]["status"], told["code"]) == (reply.status, "off_by_policy") == (403, "off_by_policy")


@pytest.mark.parametrize("path", ["/health", "/metrics", "/nowhere/at/all", "/operator/api/status"])
async def test_what_never_left_the_door_has_none(link: Link, wire: Wire, path: str) -> None:
    """A look that is repeated each second, or a scanner, does not fill the stream."""
    await link.get(path)
    assert flushed(link, wire) == []


async def test_a_request_without_a_token_has_none(link: Link, wire: Wire) -> None:
    assert (await link.post("/madre/power/service/switch/wake", token=None)).status == 401
    assert flushed(link, wire) == []


async def test_without_a_server_and_at_saturation_records_are_shed_and_counted(
    link: Link, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request waits for its record."""
    monkeypatch.setattr(recorder, "WAITING_MOST", 3)
    monkeypatch.setattr(recorder, "FLUSH_S", 60.0)
    for _ in range(5):
        assert (await link.post("/madre/power/service/switch/wake")).status == 200
    assert link.parts.hops
    assert link.parts.hops.recorder.shed == 2
    wire.down = True
    assert flushed(link, wire) == []
    assert link.parts.hops.recorder.shed == 5
