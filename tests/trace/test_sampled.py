"""At a ratio of 0.01 a backend gets whole traces or nothing of them, and `vx11 trace` still shows everything."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random

import pytest

from bus import call
from bus.eventlog import EventLog
from bus.spans import spans_of
from bus.streams import CALLS
from bus.tree import MISSING
from tests.e2e.house import House, until
from tests.trace.conftest import exporting
from tests.trace.morning import morning
from tests.trace.receiver import Receiver
from tests.trace.test_morning import COMPARED, arrived, command, compared

RATIO = 0.01
TRACES = 300
LIMIT = round(RATIO * 2**64)
"""Of the lower 64 bits of a trace id."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Receiver]]:
    with exporting(tmp_path_factory.mktemp("vx11"), str(RATIO)) as made:
        yield made


@pytest.fixture(scope="module")
def lucky(system: tuple[House, Receiver]) -> list[str]:
    """After a morning and TRACES requests: the ids of those whose trace is to be exported. Nobody has decided, flags are 02."""
    home, _ = system
    random = Random(7)
    traces = [f"{random.getrandbits(128):032x}" for _ in range(TRACES - 4)]
    traces += [f"{random.getrandbits(64):016x}{low:016x}" for low in (0, LIMIT - 1, LIMIT, 2**64 - 1)]
    asyncio.run(_ask(home, traces))
    return [f"lucky-{trace}" for trace in traces if int(trace[16:], 16) < LIMIT]


async def _ask(home: House, traces: list[str]) -> None:
    await morning(home)
    async with home.bus() as bus:
        for trace in traces:
            headers = {call.CORRELATION: f"lucky-{trace}", call.TRACEPARENT: f"00-{trace}-00f067aa0ba902b7-02"}
            await bus.ask("vx11.notebook.list_lines", b"{}", timeout=10, headers=headers)
        decided = {"X-Correlation-Id": "decided-against", "traceparent": f"00-{'0' * 31}1-00f067aa0ba902b7-00"}
        await home.get("/madre/power/window", headers=decided)


async def test_the_ratio_goes_by_the_trace_id(system: tuple[House, Receiver], lucky: list[str]) -> None:
    """As OpenTelemetry's own sampler does it, so that all parts of a system decide alike."""
    _, got = system
    assert 2 <= len(lucky) <= 10
    await until(lambda: all(got.spans(one) for one in lucky), "the lucky ones have come", 30.0)
    named = {span["conversation"] for span in got.spans() if span["conversation"].startswith("lucky-")}
    assert named == set(lucky)


async def test_who_wants_to_be_seen_is_seen_and_who_does_not_is_not(system: tuple[House, Receiver], lucky: list[str]) -> None:
    """The flag at the door decides when it is given."""
    home, got = system
    assert lucky
    shown = command(home, "morning-traced")["spans"]
    await until(lambda: arrived(got, "morning-traced", shown), "the client's own trace has come", 30.0)
    assert compared(shown) == compared(got.spans("morning-traced"))
    assert command(home, "decided-against")["spans"]
    assert got.spans("decided-against") == []


async def test_what_is_exported_is_whole(system: tuple[House, Receiver], lucky: list[str]) -> None:
    """Of each trace that the backend has it has every span that the log has."""
    home, got = system
    await until(lambda: all(got.spans(one) for one in lucky), "the lucky ones have come", 30.0)

    async def whole() -> bool:
        traces = {one["trace_id"] for one in got.spans()}  # before the log is read: it grows
        in_log = await _in_log(home)
        assert len(traces) < len({trace for trace, _ in in_log}) / 10
        return {one for one in in_log if one[0] in traces} == {(one["trace_id"], one["span_id"]) for one in got.spans()}

    await until(whole, "every exported trace is there with all its spans", 30.0)
    assert [one["name"] for one in got.spans() if MISSING in one["attributes"]] == []


async def _in_log(home: House) -> set[tuple[str, str]]:
    """Trace and span ids of all that the log tells."""
    async with home.bus() as bus:
        messages = [*await EventLog(bus).read(0, 100_000), *await EventLog(bus, CALLS, "vx11.calls.>").read(0, 100_000)]
    return {(span.trace_id, span.span_id) for span in spans_of(messages)}


async def test_trace_shows_what_was_not_exported(system: tuple[House, Receiver], lucky: list[str]) -> None:
    home, _ = system
    assert lucky
    shown = command(home, "morning-chat-0")
    assert shown["partial"] == []
    assert len(shown["spans"]) > 10
    roots = [span for span in shown["spans"] if not span["parent_id"]]
    assert [root["name"] for root in roots] == ["POST /operator/api/chat"]
    assert set(COMPARED) <= set(shown["spans"][0])


async def test_what_is_not_sampled_costs_no_memory_and_is_counted(system: tuple[House, Receiver], lucky: list[str]) -> None:
    _, got = system
    assert lucky
    await until(lambda: "vx11_telemetry_spans" in got.measured(), "the exporter told of itself", 30.0)

    def unsampled() -> float:
        points = got.measured()["vx11_telemetry_spans"].sum.data_points
        return sum(one.as_double for one in points if any(a.value.string_value == "unsampled" for a in one.attributes))

    await until(lambda: unsampled() >= TRACES * 0.9, "it has counted what it left out", 30.0)
