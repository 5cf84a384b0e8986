"""One thing can be followed: what `vx11 trace` shows is what an OpenTelemetry backend gets."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bus import tracing
from bus.eventlog import EventLog
from bus.process import is_same
from bus.streams import CALLS
from bus.tracing import traced
from bus.tree import MISSING, document
from tests.e2e.command import Vx11
from tests.e2e.house import House, until
from tests.trace.conftest import exporting
from tests.trace.morning import REMOTE, morning
from tests.trace.receiver import Receiver

ARRIVE_S = 30.0
HANGS_S = 10.0
"""OpenTelemetry's exporter waits so long for an answer."""
COMPARED = ("trace_id", "span_id", "parent_id", "name", "kind", "start_us", "end_us", "error", "attributes")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Receiver]]:
    with exporting(tmp_path_factory.mktemp("vx11"), "1.0") as made:
        yield made


@pytest.fixture(scope="module")
def ids(system: tuple[House, Receiver]) -> list[str]:
    """Of a whole morning."""
    return asyncio.run(morning(system[0]))


def command(home: House, correlation_id: str) -> dict[str, Any]:
    """`vx11 trace --json`."""
    found: dict[str, Any] = Vx11(home)("trace", "--json", correlation_id).json
    return found


def compared(spans: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By span id, with what is the same on both sides."""
    return {span["span_id"]: {key: span[key] for key in COMPARED} for span in spans}


def arrived(got: Receiver, correlation_id: str, spans: list[dict[str, Any]]) -> bool:
    return {span["span_id"] for span in spans} <= {span["span_id"] for span in got.spans(correlation_id)}


async def test_what_trace_shows_is_what_the_receiver_got(system: tuple[House, Receiver], ids: list[str]) -> None:
    home, got = system
    for correlation_id in (ids[0], "morning-denied", *ids[-3:]):
        shown = command(home, correlation_id)
        assert shown["partial"] == [], correlation_id
        await until(lambda i=correlation_id, s=shown: arrived(got, i, s["spans"]), f"{correlation_id} is exported", ARRIVE_S)  # type: ignore[misc]
        assert compared(shown["spans"]) == compared(got.spans(correlation_id)), correlation_id


async def test_so_it_is_of_everything_in_the_log(system: tuple[House, Receiver], ids: list[str]) -> None:
    """Also of what madre, hosts and the command line did meanwhile."""
    home, got = system
    async with home.bus() as bus:
        conversations = set()
        for log in (EventLog(bus, CALLS, "vx11.calls.>"), EventLog(bus)):
            conversations |= {one.headers.get("correlation_id", "") for one in await log.read(0, 100_000)}
        conversations |= {span["conversation"] for span in got.spans()} | set(ids)
        for correlation_id in conversations - {""}:
            found = await traced(bus, correlation_id)
            assert found.partial == [], correlation_id
            shown = [document(span) for span in found.spans]
            await until(lambda i=correlation_id, s=shown: arrived(got, i, s), f"{correlation_id} is exported", ARRIVE_S)  # type: ignore[misc]
            of_it = compared(got.spans(correlation_id))
            assert {key: of_it[key] for key in compared(shown)} == compared(shown), correlation_id


async def test_no_span_is_an_orphan_and_none_comes_twice(system: tuple[House, Receiver], ids: list[str]) -> None:
    home, got = system
    shown = command(home, ids[0])["spans"]
    await until(lambda: arrived(got, ids[0], shown), "the first chat is exported", ARRIVE_S)
    spans = got.spans()
    keys = [(span["trace_id"], span["span_id"]) for span in spans]
    assert len(keys) == len(set(keys))
    assert [span["name"] for span in spans if MISSING in span["attributes"]] == []


async def test_the_first_chat_is_told_from_the_door_to_the_wakes(system: tuple[House, Receiver], ids: list[str]) -> None:
    home, _ = system
    spans = {span["span_id"]: span for span in command(home, ids[0])["spans"]}

    def path(span: dict[str, Any]) -> str:
        above = spans.get(span["parent_id"])
        return (path(above) + " > " if above else "") + span["name"]

    paths = {path(span) for span in spans.values()}
    door, chat = "POST /operator/api/chat", "process vx11.operator_backend.chat"
    assert paths >= {
        door,
        f"{door} > wake operator_backend",
        *(f"{door} > wake operator_backend > {part}" for part in ("held", "spawned", "subscribed", "handed over")),
        f"{door} > {chat}",
        f"{door} > {chat} > wake switch",
        f"{door} > {chat} > process vx11.switch.chat",
        f"{door} > {chat} > process vx11.madre.chat",
    }
    failed = {span["name"]: span["error"] for span in spans.values() if span["error"]}
    assert failed == {"process vx11.switch.chat": "unavailable"}
    assert {spans[one]["kind"] for one in spans} == {"server", "consumer", "internal"} | (
        {"producer"} if any(name.startswith("send ") for name in (spans[one]["name"] for one in spans)) else set()
    )


async def test_an_event_of_a_stock_client_is_followed_to_its_handler(system: tuple[House, Receiver], ids: list[str]) -> None:
    """Also one without any header: its conversation has the number that the publisher was told."""
    home, _ = system
    for correlation_id in ids[-3:-1]:
        spans = command(home, correlation_id)["spans"]
        sent = next(span for span in spans if span["name"] == "send vx11.events.notebook.jotted")
        handled = next(span for span in spans if span["name"] == "process vx11.events.notebook.jotted")
        assert (sent["kind"], handled["kind"], handled["parent_id"]) == ("producer", "consumer", sent["span_id"])
    assert sent["parent_id"] == REMOTE.split("-")[2], "the client's own span is above it"


async def test_a_poison_message_shows_how_it_failed(system: tuple[House, Receiver], ids: list[str]) -> None:
    home, _ = system
    [handled] = [one for one in command(home, ids[-1])["spans"] if one["kind"] == "consumer" and "notebook" in one["name"]]
    assert handled["error"] == handled["attributes"]["error.type"] == "invalid"


async def test_each_actor_is_a_service(system: tuple[House, Receiver], ids: list[str]) -> None:
    _, got = system
    assert ids
    services = {"tentaculo_link", "operator_backend", "switch", "madre", "notebook"}
    await until(lambda: services <= {span["service"] for span in got.spans()}, "all of them were seen", ARRIVE_S)


async def test_numbers_are_exported_too(system: tuple[House, Receiver], ids: list[str]) -> None:
    _, got = system
    assert ids
    wanted = {"messaging.process.duration", "messaging.client.sent.messages", "http.server.request.duration", "vx11_actor_wakes"}
    await until(lambda: wanted <= set(got.measured()), f"{wanted} have come", ARRIVE_S)
    points = got.measured()["messaging.process.duration"].histogram.data_points
    names = {one.value.string_value for point in points for one in point.attributes if one.key == "messaging.destination.name"}
    assert {"vx11.switch.chat", "vx11.events.notebook.jotted"} <= names


async def test_what_a_receiver_refuses_is_sent_again(system: tuple[House, Receiver], ids: list[str]) -> None:
    home, got = system
    assert ids
    got.status = 400
    refused = got.refused
    await home.post("/call/notebook/write", {"text": "x"}, headers={"X-Correlation-Id": "while-refusing"})
    await until(lambda: got.refused > refused, "the receiver has refused something", ARRIVE_S)
    got.status = 200
    shown = command(home, "while-refusing")["spans"]
    await until(lambda: arrived(got, "while-refusing", shown), "it has come nevertheless", ARRIVE_S)


async def test_a_receiver_that_hangs_does_not_hold_up_the_end(system: tuple[House, Receiver], ids: list[str]) -> None:
    """`vx11 down` waits for no backend. What it did not take comes when the system is up again."""
    home, got = system
    assert ids
    entry = home.system.document()["pids"]["keeper"]
    got.free.clear()
    try:
        await home.post("/call/notebook/write", {"text": "x"}, headers={"X-Correlation-Id": "while-hanging"})
        await until(lambda: got.stuck, "the receiver has a batch in its hands", ARRIVE_S)
        begun = time.monotonic()
        os.kill(entry["pid"], signal.SIGTERM)
        await until(lambda: not is_same(entry["pid"], entry["born"]), "the keeper has ended", ARRIVE_S)
        assert time.monotonic() - begun < 0.8 * HANGS_S
    finally:
        got.free.set()
    await home.back("keeper", entry["born"])
    shown = command(home, "while-hanging")["spans"]
    await until(lambda: arrived(got, "while-hanging", shown), "it has come", ARRIVE_S)


@pytest.mark.parametrize("killed", ["keeper", "nats-server"])
async def test_what_happened_around_a_kill_is_exported(system: tuple[House, Receiver], ids: list[str], killed: str) -> None:
    """Of the exporter, which reads on from where all was sent, or of the server that it reads from."""
    home, got = system
    assert ids
    await until((home.home / "keeper" / "telemetry.json").exists, "it has noted how far it came", ARRIVE_S)
    since = await home.kill(killed)
    if killed == "nats-server":
        await home.back(killed, since)
    told = f"after-{killed}"

    async def written() -> bool:
        answer = await home.post("/call/notebook/write", {"text": "x"}, headers={"X-Correlation-Id": told})
        return answer.status == 200

    await until(written, "the house works again", ARRIVE_S)
    await home.back(killed, since)

    async def recorded() -> bool:  # a record follows its answer after a moment
        ran = Vx11(home).run("trace", "--json", told)
        return ran.code == 0 and "process vx11.notebook.write" in {span["name"] for span in ran.json["spans"]}

    await until(recorded, "the call is in the log", ARRIVE_S)
    shown = command(home, told)["spans"]
    await until(lambda: arrived(got, told, shown), "it has come", ARRIVE_S)


async def test_without_the_keeper_the_log_is_read_through(
    system: tuple[House, Receiver], ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so; the spans are the same."""
    home, _ = system
    async with home.bus() as bus:
        shown = await traced(bus, ids[0])
        monkeypatch.setattr(tracing, "FIND_S", 0.2)
        with home.frozen(home.pid("keeper")):
            read = await traced(bus, ids[0])
    assert shown.how == "index"
    assert read.how.startswith("read through: the keeper's index cannot be asked")
    assert (read.spans, read.partial) == (shown.spans, [])


async def test_what_is_too_much_to_be_shown_or_read_is_told(
    system: tuple[House, Receiver], ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, _ = system
    async with home.bus() as bus:
        whole = await traced(bus, ids[0])
        monkeypatch.setattr(tracing, "FIND_MOST", 2)
        some = await traced(bus, ids[0])
        monkeypatch.setattr(tracing, "SCANNED_MOST", 10)
        monkeypatch.setattr(tracing, "FIND_S", 0.2)
        with home.frozen(home.pid("keeper")):
            newest = await traced(bus, ids[0])
    assert whole.partial == []
    assert 0 < len(some.spans) < len(whole.spans)
    assert some.partial[0] == "it has more than the 2 events or records that are shown"
    assert {reason[:47] for reason in newest.partial[:2]} == {"without the keeper only the newest 10 messages "}


async def test_for_people_it_is_a_tree_with_a_waterfall(system: tuple[House, Receiver], ids: list[str]) -> None:
    home, _ = system
    lines = Vx11(home)("trace", ids[0]).splitlines()
    assert lines[0] == f"{ids[0]}: {len(command(home, ids[0])['spans'])} spans in 1 trace"
    wake = next(line for line in lines if "wake operator_backend" in line)
    assert re.search(r"├ · wake operator_backend +\+\d+\.\d ms +\d+\.\d ms +━+", wake), wake
    assert next(line for line in lines if "process vx11.switch.chat" in line).rstrip().endswith("unavailable")


async def test_an_id_that_nothing_has_is_told_so(system: tuple[House, Receiver]) -> None:
    ran = Vx11(system[0]).run("trace", "nobody-has-this")
    assert (ran.code, str(ran)) == (66, "")
    assert "the log has nothing of 'nobody-has-this'" in ran.err


async def test_a_tree_without_its_trunk_says_what_is_missing(system: tuple[House, Receiver], ids: list[str]) -> None:
    """Records are shed at saturation, and go after a day."""
    home, _ = system
    whole = command(home, ids[1])["spans"]
    async with home.bus("madre") as bus:
        await bus.api("$JS.API.STREAM.PURGE.VX11_CALLS", b'{"filter": "vx11.calls.tentaculo_link.*"}', timeout=5.0)
    ran = Vx11(home)("trace", ids[1])
    assert "partial: what" in ran.err
    assert "is missing" in ran.err
    left = command(home, ids[1])
    assert [span["span_id"] for span in left["spans"]] == [span["span_id"] for span in whole if span["kind"] != "server"]
    assert {span["name"] for span in left["spans"] if MISSING in span["attributes"]} >= {"process vx11.operator_backend.chat"}
