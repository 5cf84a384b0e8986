"""The export: chosen by the standard variables only, bounded, and nothing of it is there when nobody wants it."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from actors.keeper import telemetry
from actors.keeper.telemetry import QUEUE_MOST, TRIES_MOST, Telemetry, wanted
from bus.client import Bus
from bus.loading import TREE
from bus.sampling import Sampler, Unusable
from bus.settings import Settings
from bus.spans import Span

NO_BUS = cast("Bus", None)
NAMED = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


def asked(home: Path, **variables: str) -> Telemetry | None:
    return wanted(NO_BUS, Settings(home, variables))


def made(home: Path) -> Telemetry:
    return Telemetry(NO_BUS, Settings(home, {}), Sampler())


def spans(number: int) -> list[Span]:
    return [Span("a" * 32, f"{n:016x}", "", "x", "internal", 0, 0, "conversation-1", None) for n in range(number)]


def waiting(one: Telemetry) -> list[str]:
    return [span.span_id for batch in one._queue for span in batch.spans]


def test_without_an_endpoint_nothing_is_exported(tmp_path: Path) -> None:
    assert asked(tmp_path) is None
    assert asked(tmp_path, OTEL_TRACES_SAMPLER="always_on") is None
    assert asked(tmp_path, **NAMED, OTEL_SDK_DISABLED="TRUE") is None


@pytest.mark.parametrize(
    ("variables", "traces", "measures"),
    [
        (NAMED, True, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, True, False),
        (NAMED | {"OTEL_TRACES_EXPORTER": "none"}, False, True),
        (NAMED | {"OTEL_METRICS_EXPORTER": "none"}, True, False),
        (NAMED | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True, True),
    ],
)
def test_each_signal_has_its_own_switch(tmp_path: Path, variables: dict[str, str], traces: bool, measures: bool) -> None:
    found = asked(tmp_path, **variables)
    assert found
    assert (found.traces, found.measures) == (traces, measures)


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "port 4318"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json", "http/protobuf only"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "none of otlp, none"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "parentbased_always_on"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "often", "OTEL_METRIC_EXPORT_INTERVAL"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0", "milliseconds"),
    ],
)
def test_what_cannot_be_is_told_with_what_can(tmp_path: Path, variable: str, value: str, told: str) -> None:
    with pytest.raises(Unusable, match=told):
        asked(tmp_path, **NAMED, **{variable: value})


def test_what_waits_is_bounded_and_what_is_dropped_is_counted(tmp_path: Path) -> None:
    one = made(tmp_path)
    one._put(spans(QUEUE_MOST))
    assert (one._waiting, one.counts.dropped) == (QUEUE_MOST, 0)
    one._put(spans(10))
    assert one._waiting <= QUEUE_MOST
    assert one._waiting + one.counts.dropped == QUEUE_MOST + 10
    assert waiting(one)[-10:] == [span.span_id for span in spans(10)], "the newest stay"


def test_a_batch_that_is_never_taken_does_not_stand_before_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = made(tmp_path)
    one._put(spans(2))
    one._put(spans(3))
    for _ in range(TRIES_MOST - 1):
        one._failed(one._queue.popleft())
        one._failed(one._queue.popleft())
    assert (len(one._queue), one.counts.dropped) == (2, 0)
    one._failed(one._queue.popleft())
    assert (waiting(one), one.counts.dropped, one._waiting) == ([span.span_id for span in spans(3)], 2, 3)
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"], "told once, not each time"


class Sink:
    """A receiver that takes what it gets when `open` is set."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.asked = threading.Event()

    def send(self, _: object) -> bool:
        self.asked.set()
        self.open.wait()
        return True


async def looked(one: Telemetry, condition: Callable[[], object]) -> None:
    """Until it holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "LOOK_S", 0.005)
    monkeypatch.setattr(telemetry, "SAVE_S", 0.0)


async def test_what_is_on_its_way_to_the_receiver_is_not_noted_as_sent(tmp_path: Path, hurried: None) -> None:
    """Else it is lost when the process ends before the receiver has it."""
    (tmp_path / "keeper").mkdir()
    one, sink = made(tmp_path), Sink()
    one._read = {telemetry.STREAM: 7, telemetry.CALLS: 9}
    one._put(spans(2))
    tasks = [asyncio.create_task(one._send_for_ever(cast("Any", sink)))]
    await looked(one, sink.asked.is_set)
    tasks.append(asyncio.create_task(one._look_for_ever()))
    looks = count_looks(one)
    await looked(one, lambda: looks() > 3)
    assert not one._file.exists()
    sink.open.set()
    await looked(one, one._file.exists)
    assert one._load() == one._read
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_how_far_it_came_is_noted_although_there_is_always_something_new(tmp_path: Path, hurried: None) -> None:
    """Else a busy system would send hours of it again after a restart."""
    (tmp_path / "keeper").mkdir()
    one, sink = made(tmp_path), Sink()
    sink.open.set()
    one._read = {telemetry.STREAM: 7, telemetry.CALLS: 9}
    one.gathering.ready = lambda _: iter(spans(1))  # type: ignore[method-assign]
    tasks = [asyncio.create_task(one._send_for_ever(cast("Any", sink))), asyncio.create_task(one._look_for_ever())]
    await looked(one, one._file.exists)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_full_disk_does_not_end_the_export(tmp_path: Path, hurried: None, caplog: pytest.LogCaptureFixture) -> None:
    one = made(tmp_path)
    one._read = {telemetry.STREAM: 7, telemetry.CALLS: 9}
    looks = count_looks(one)
    looking = asyncio.create_task(one._look_for_ever())
    await looked(one, lambda: looks() > 3)  # its folder is not there
    assert not looking.done()
    assert len(caplog.records) == 1, "told once"
    (tmp_path / "keeper").mkdir()
    await looked(one, one._file.exists)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


def count_looks(one: Telemetry) -> Callable[[], int]:
    times = itertools.count()
    ready, made = one.gathering.ready, [0]

    def counted(now: float) -> Iterator[Span]:
        made[0] = next(times)
        return ready(now)

    one.gathering.ready = counted  # type: ignore[method-assign]
    return lambda: made[0]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"VX11_EVENTS": 1}', '{"VX11_EVENTS": "x", "VX11_CALLS": 1}'])
def test_a_spoilt_note_of_how_far_it_came_is_no_end(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "keeper").mkdir()
    (tmp_path / "keeper" / "telemetry.json").write_text(text)
    assert made(tmp_path)._load() == {}
    assert "cannot be read" in caplog.text


async def test_its_end_is_told_and_is_not_the_keepers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = made(tmp_path)

    async def fails() -> None:
        raise RuntimeError("no such module")

    one.run = fails  # type: ignore[method-assign]
    await telemetry.export(one)
    assert one.counts.trouble == "it has ended: no such module"
    assert "nothing is exported any more" in caplog.text


def test_the_keeper_imports_nothing_of_it_unasked() -> None:
    """It is megabytes in a process that is always there."""
    told = "import sys, actors.keeper.main; print(*sys.modules)"
    run: Any = subprocess.run([sys.executable, "-c", told], cwd=TREE, capture_output=True, text=True, check=True)
    modules = run.stdout.split()
    assert "actors.keeper.main" in modules
    unwanted = ("opentelemetry", "google", "requests", "bus.gather", "bus.spans", "actors.keeper.telemetry")
    assert [name for name in modules if name in unwanted or name.startswith("opentelemetry.")] == []
