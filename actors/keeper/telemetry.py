"""Sends what the log tells to an OpenTelemetry backend, when the standard variables name one; else nothing of it is imported.

It reads the same streams as everybody, behind the requests' backs. `<home>/keeper/telemetry.json` says how far all is sent: what
was not, when the process ends, is read again by the next one, so that a span may come twice, with the same id, and none is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bus.client import Bus
from bus.eventlog import STREAM, SUBJECTS, EventLog
from bus.gather import Gathering
from bus.measures import Measure, measures_of
from bus.moment import rfc3339
from bus.sampling import Sampler, Unusable
from bus.settings import Settings
from bus.streams import CALLS
from schemas.errors import Failure

if TYPE_CHECKING:
    from bus.otlp import Exporter
    from bus.spans import Span

log = logging.getLogger("vx11.keeper.telemetry")

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL = "http/protobuf"
LOOK_S = 0.5
SAVE_S = 2.0
AGAIN_S = 1.0
BATCH = 512
QUEUE_MOST = 20_000
"""Spans that wait for the receiver; of more the oldest are dropped and counted."""
TRIES_MOST = 60
"""Of one batch, each of up to OTEL_EXPORTER_OTLP_TIMEOUT, with PAUSE_MOST_S between: half an hour, and then it is dropped."""
PAUSE_MOST_S = 30.0
ASK_S = 5.0
INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"
INTERVAL_MS = 60_000.0
INTERVAL_LEAST_MS = 10.0
"""Below it the keeper would do nothing else."""
FIRST_S = 60.0
NUMBERS = "vx11.tentaculo_link.get_numbers"


@dataclass
class Batch:
    spans: list[Span]
    tries: int = 0


@dataclass
class Counts:
    """Of spans, but for `failures`, which are attempts."""

    sent: int = 0
    dropped: int = 0
    failures: int = 0
    trouble: str = ""
    """Why the last attempt failed; empty after a good one."""


@dataclass
class Telemetry:
    """`run` until cancelled. `traces`, `measures`: what is wanted."""

    bus: Bus
    settings: Settings
    sampler: Sampler
    traces: bool = True
    measures: bool = True
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self.gathering = Gathering(self.sampler)
        self._file = self.settings.home / "keeper" / "telemetry.json"
        self._read: dict[str, int] = {}
        self._saved: dict[str, int] = {}
        self._queue: deque[Batch] = deque()
        self._waiting = 0
        self._unsaved = False
        self._began = time.time()

    async def run(self) -> None:
        otlp = await asyncio.to_thread(importlib.import_module, "bus.otlp")  # a third of a second beside other work
        exporter: Exporter = otlp.Exporter({"service.namespace": "vx11"}, service=self.settings.get("OTEL_SERVICE_NAME"))
        log.info("exporting to %s", self.settings.get(ENDPOINT) or "the endpoints of its signals")
        self._saved = self._load()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(STREAM, SUBJECTS))
            group.create_task(self._follow(CALLS, "vx11.calls.>"))
            group.create_task(self._look_for_ever())
            if self.traces:
                group.create_task(self._send_for_ever(exporter))
            if self.measures:
                group.create_task(self._measure_for_ever(exporter))

    async def _follow(self, stream: str, subjects: str) -> None:
        records = EventLog(self.bus, stream, subjects)
        while True:
            try:
                self._read[stream] = await self._begin(records, self._read.get(stream, self._saved.get(stream)))
                async for message in records.follow(self._read[stream]):
                    self._read[stream] = message.sequence
                    self.gathering.add(message, time.monotonic())
            except Failure as failure:
                log.info("reading %s: %s", stream, failure)
                await asyncio.sleep(AGAIN_S)

    async def _begin(self, records: EventLog, after: int | None) -> int:
        """After what was read before, if it is still there; else with what is not older than FIRST_S, the system's own start."""
        first, last = await records.bounds()
        if after is not None and after > last:
            log.warning("%s ends before what was read of it: the server has lost its end, or it was made anew", records.stream)
        if after is None or after > last:
            recent = await records.first_since(rfc3339(time.time() - FIRST_S))
            return recent - 1 if recent else last
        if after < first - 1:
            log.warning("%d messages of %s were removed before they could be exported", first - 1 - after, records.stream)
        return max(after, first - 1)

    async def _look_for_ever(self) -> None:
        saved_at = 0.0
        while True:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            if now - saved_at > SAVE_S and not self._waiting:  # nothing is on its way either; what is ready now is still piled
                saved_at = now
                await self._save()
            self._put(list(self.gathering.ready(now)))

    def _put(self, spans: list[Span]) -> None:
        if not self.traces:
            return
        for at in range(0, len(spans), BATCH):
            self._queue.append(Batch(spans[at : at + BATCH]))
        self._waiting += len(spans)
        while self._waiting > QUEUE_MOST and len(self._queue) > 1:
            self._drop(self._queue.popleft(), f"more than {QUEUE_MOST} spans wait for the receiver")

    def _drop(self, batch: Batch, why: str) -> None:
        if not self.counts.dropped:
            log.error("spans are dropped: %s", why)
        self.counts.dropped += len(batch.spans)
        self._waiting -= len(batch.spans)

    async def _send_for_ever(self, exporter: Exporter) -> None:
        pause = AGAIN_S
        while True:
            if not self._queue:
                await asyncio.sleep(LOOK_S)
                continue
            batch = self._queue.popleft()
            if await _apart(partial(exporter.send, batch.spans)):
                self._waiting -= len(batch.spans)
                self.counts.sent += len(batch.spans)
                self.counts.trouble, pause = "", AGAIN_S
                continue
            self._failed(batch)
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_MOST_S)

    def _failed(self, batch: Batch) -> None:
        """To the end: a batch that the receiver will never take must not stand before the others."""
        batch.tries += 1
        self.counts.failures += 1
        if not self.counts.trouble:
            log.warning("the receiver did not take %d spans; they are sent again", len(batch.spans))
        self.counts.trouble = "the receiver did not take the last batch"
        if batch.tries >= TRIES_MOST:
            self._drop(batch, f"the receiver did not take them {TRIES_MOST} times")
        else:
            self._queue.append(batch)

    async def _measure_for_ever(self, exporter: Exporter) -> None:
        pause = _interval_s(self.settings)
        while True:
            await asyncio.sleep(pause)
            measures = [*await self._door(), *self.gathering.tally.measures(), *self._own()]
            if not await _apart(partial(exporter.send_measures, measures, self._began)):
                log.info("the receiver did not take the numbers")

    async def _door(self) -> list[Measure]:
        """What `/metrics` has; nothing while the gateway is down."""
        try:
            answer = await self.bus.ask(NUMBERS, b"{}", timeout=ASK_S, idempotent=True)
        except Failure as failure:
            log.info("the gateway's numbers: %s", failure)
            return []
        return measures_of(json.loads(answer.body))

    def _own(self) -> list[Measure]:
        counts, gathering = self.counts, self.gathering
        told = {
            "sent": counts.sent,
            "dropped": counts.dropped,
            "unsampled": gathering.unsampled,
            "unreadable": gathering.unreadable,
            "parentless": gathering.lacking,
        }
        values = [({"outcome": name}, float(value)) for name, value in told.items()]
        return [Measure("vx11_telemetry_spans", "counter", "What became of spans; unsampled are messages.", "1", values)]

    def _load(self) -> dict[str, int]:
        try:
            found = json.loads(self._file.read_text())
            return {stream: int(found[stream]) for stream in (STREAM, CALLS)}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, OSError) as error:
            log.warning("%s cannot be read (%s): the export begins with what comes now", self._file, error)
            return {}

    async def _save(self) -> None:
        """Up to where nothing waits any more. A new process reads on from there."""
        reached = {}
        for stream, read in self._read.items():
            waits = self.gathering.first_waiting(stream)
            reached[stream] = waits - 1 if waits else read
        if len(reached) < 2 or reached == self._saved:  # both streams
            return
        try:
            await asyncio.to_thread(_write, self._file, json.dumps(reached))
        except OSError as error:  # a full disk: at worst all since the last time is sent again
            if not self._unsaved:
                log.warning("how far all is sent cannot be noted: %s", error)
            self._unsaved = True
        else:
            self._saved, self._unsaved = reached, False


def _write(file: Path, text: str) -> None:
    new = file.with_name(file.name + ".new")
    new.write_text(text)
    new.replace(file)


async def _apart(work: Callable[[], bool]) -> bool:
    """In a thread that nobody waits for in the end: a receiver that hangs must not hold up a process that is to stop."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bool] = loop.create_future()

    def settle(error: BaseException | None, outcome: bool) -> None:
        if done.done():
            return
        if error:
            done.set_exception(error)
        else:
            done.set_result(outcome)

    def run() -> None:
        error, outcome = None, False
        try:
            outcome = work()
        except Exception as raised:  # noqa: BLE001 - it is for who waits
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(settle, error, outcome)

    threading.Thread(target=run, daemon=True).start()
    return await done


def wanted(bus: Bus, settings: Settings) -> Telemetry | None:
    """None unless an endpoint is named. Raises Unusable, with what to write instead."""
    if settings.get("OTEL_SDK_DISABLED").lower() == "true":
        return None
    traces, measures = (_signal(settings, signal) for signal in ("TRACES", "METRICS"))
    if not (traces or measures):
        return None
    _interval_s(settings)
    return Telemetry(bus, settings, Sampler.of(settings), traces, measures)


def _interval_s(settings: Settings) -> float:
    """Between two times that the numbers are sent. Raises Unusable."""
    try:
        told = settings.number(INTERVAL, INTERVAL_MS)
    except ValueError as error:
        raise Unusable(str(error)) from error
    if not INTERVAL_LEAST_MS <= told < math.inf:
        raise Unusable(f"{INTERVAL}={told:g} is none: at least {INTERVAL_LEAST_MS:g} milliseconds")
    return told / 1e3


def _signal(settings: Settings, signal: str) -> bool:
    if not (settings.get(ENDPOINT) or settings.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")):
        return False
    which = settings.get(f"OTEL_{signal}_EXPORTER", "otlp")
    if which not in ("otlp", "none"):
        raise Unusable(f"OTEL_{signal}_EXPORTER={which!r} is none of otlp, none")
    name = f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"
    protocol = settings.get(name) or settings.get("OTEL_EXPORTER_OTLP_PROTOCOL", PROTOCOL)
    if which == "otlp" and protocol != PROTOCOL:
        raise Unusable(f"{name}={protocol!r}: VX11 sends {PROTOCOL} only, which receivers take on port 4318")
    return which == "otlp"


async def export(telemetry: Telemetry) -> None:
    """Its end is not the keeper's: it is told of, and the log is kept on."""
    try:
        await telemetry.run()
    except Exception as error:
        telemetry.counts.trouble = f"it has ended: {error}"
        log.exception("nothing is exported any more")
