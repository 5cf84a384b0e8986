"""Brings an exported log into a stream: event by event, in order, and compared with the file afterwards."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

from bus import streams
from bus.client import Bus
from bus.eventlog import EventLog, Stored
from bus.moment import rfc3339
from bus.nats_server import NatsServer
from bus.settings import Settings
from gateway.cli.home import recorded
from gateway.cli.log_file import read
from schemas.errors import Failure

IMPORTED = "vx11-imported"
"""Header of an imported event: its sequence and its time in the log that it comes from."""
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
BATCH = 128
"""Events on their way at a time."""
STORE_S = 10.0
ROOM = 2
"""A stream of its own may hold so many times the file's events."""
LEAST_BYTES = 64 * 1024 * 1024
OVER_BYTES = 200
"""What an event takes beside its body and headers."""
USER = "madre"
"""Only she may create streams."""


async def into_home(settings: Settings, file: Path) -> tuple[int, int]:
    """Into the event log of a home that has none: the sequences stay. Returns how many events, and the last sequence."""
    run = recorded(settings)
    if run and run.supervisor.alive:
        told = f"VX11 is running on {settings.home}; its own log is not to be replaced"
        raise Failure("conflict", told, next=[["vx11 log import FILE --stream NAME", "imports into a stream beside it"]])
    first, expected = 0, 0
    for event in _events(file):  # before anything is made: the file is read to its end
        if expected and event.sequence != expected:
            told = f"between {expected - 1} and {event.sequence} events are missing; only --stream NAME takes such a file"
            raise Failure("invalid", told)
        first, expected = first or event.sequence, event.sequence + 1
    async with _own_server(settings) as bus:
        await streams.ensure_streams(bus.api, streams.stream_configs(bus.wire.max_payload))
        if (await EventLog(bus).bounds())[1]:
            raise Failure(
                "conflict", f"{settings.home} has an event log already; import into an empty home: vx11 --home FOLDER ..."
            )
        if first > 1:
            await bus.api(f"$JS.API.STREAM.PURGE.{streams.EVENTS}", json.dumps({"seq": first}).encode())
        return await _store(bus, file, EventLog(bus), "")


async def into_stream(settings: Settings, file: Path, name: str) -> tuple[int, int]:
    """Into a new stream of the VX11 that runs here: subjects get `vx11.sandbox.<name>.` before them, and nobody handles them."""
    if not NAME.fullmatch(name) or name.startswith(("VX11_", "KV_")):
        raise Failure("invalid", f"{name!r} is no name for an imported stream: letters, digits, - and _; not VX11_... or KV_...")
    run = recorded(settings)
    if run is None or not run.supervisor.alive:
        raise Failure("unavailable", f"VX11 is not running on {settings.home}", next=[["vx11 up", "start it"]])
    size = sum(len(event.body) + len(str(event.headers)) + OVER_BYTES for event in _events(file))  # read before anything is made
    prefix = f"vx11.sandbox.{name}."
    seed = settings.seed_file(USER)
    async with Bus.connect(run.nats_url, user=USER, seed=seed, name="vx11-cli") as bus:
        if name in ((await bus.api("$JS.API.STREAM.NAMES")).get("streams") or ()):
            raise Failure("conflict", f"there is a stream {name} already; take another name")
        like = streams.stream_configs(bus.wire.max_payload)[0]
        room = max(LEAST_BYTES, ROOM * size)
        wanted = {**like, "name": name, "subjects": [f"{prefix}>"], "max_bytes": room, "max_msg_size": -1}
        await streams.ensure_stream(bus.api, wanted)
        return await _store(bus, file, EventLog(bus, name, f"{prefix}>"), prefix)


async def _store(bus: Bus, file: Path, log: EventLog, prefix: str) -> tuple[int, int]:
    """Publish all, and read all again. Raises Failure when a single one is not what it is in the file."""
    events, count, last = _events(file), 0, 0
    while batch := list(islice(events, BATCH)):
        acks = await asyncio.gather(*(_publish(bus, event, prefix) for event in batch))  # sent in the order of the tasks
        last, count = acks[-1], count + len(batch)
    await _compare(log, file, prefix, (await log.bounds())[0] - 1)
    return count, last


async def _publish(bus: Bus, event: Stored, prefix: str) -> int:
    headers = {**event.headers, IMPORTED: f"{event.sequence} {rfc3339(event.at, 'microseconds')}"}
    stored = await bus.api(prefix + event.subject, event.body, timeout=STORE_S, headers=headers)
    return int(stored["seq"])


async def _compare(log: EventLog, file: Path, prefix: str, after: int) -> None:
    events = _events(file)
    while batch := list(islice(events, BATCH)):
        there = await log.read(after, len(batch))
        for event, stored in zip(batch, there, strict=False):
            headers = {name: value for name, value in stored.headers.items() if name != IMPORTED}
            same = (prefix + event.subject, event.headers, event.body) == (stored.subject, headers, stored.body)
            if not same or not stored.headers[IMPORTED].startswith(f"{event.sequence} "):
                raise Failure("internal", f"event {event.sequence} of the file is another one in the stream; the import is void")
        if len(there) < len(batch):
            raise Failure("internal", f"event {batch[len(there)].sequence} of the file is not in the stream; the import is void")
        after = there[-1].sequence


def _events(file: Path) -> Iterator[Stored]:
    with file.open(encoding="utf-8") as lines:
        yield from read(lines)


@asynccontextmanager
async def _own_server(settings: Settings) -> AsyncIterator[Bus]:
    """The home's own server, for as long as this takes."""
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    server = NatsServer(settings)
    await server.start_async()
    try:
        async with Bus.connect(server.url, user=USER, seed=server.seed_file(USER), name="vx11-cli") as bus:
            yield bus
    finally:
        server.stop()
