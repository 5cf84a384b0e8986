"""The gateway's process: connect, open the doors, serve until told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal

from bus.bucket import Bucket
from bus.cache import open_cache
from bus.client import Bus
from bus.eventlog import EventLog
from bus.recorder import Recorder
from bus.settings import Settings
from bus.streams import USAGE
from gateway.http.app import make_parts
from gateway.http.hops import SLICE, Hops
from gateway.http.kept import HEARTBEATS
from gateway.http.measured import Numbers
from gateway.http.server import Bound, new_loop
from gateway.http.server import run as serve
from gateway.http.settings import HttpSettings, Misconfigured
from gateway.usage import Costs

CUT_OFF = 1
"""Exit code: without a connection, and it will not come back by itself."""

log = logging.getLogger("vx11.gateway")


def run(settings: Settings, url: str) -> int:
    """The process; returns its exit code, 78 when its settings cannot be."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_main(settings, url))


async def _main(settings: Settings, url: str) -> int:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    seed = settings.seed_file("gateway")
    try:
        told = HttpSettings.read(settings)
        async with (
            Bus.connect(
                url, user="gateway", seed=seed if seed.exists() else None, name="tentaculo_link",
                actor="tentaculo_link", fast=True, buffered=False,
            ) as bus,
            open_cache(settings.get("VX11_REDIS_URL")) as cache,
        ):  # fmt: skip
            cut_off = asyncio.Event()
            bus.wire.on_close += [cut_off.set, stop.set]
            parts = make_parts(bus, cache, EventLog(bus), told)
            parts.costs = Costs(Bucket(bus, USAGE))
            parts.bus_at = url.rpartition("/")[2]
            parts.hops = Hops(Recorder(bus.wire, "tentaculo_link", "gateway", slice_=SLICE))
            await Numbers(bus, parts).listen()
            await bus.listen(HEARTBEATS, parts.observed.keeper.heard)
            gc.freeze()  # what is there now stays: no look for cycles goes through it
            try:
                await serve(parts, stop, ready=_ready)
            finally:
                parts.hops.recorder.flush()
            if cut_off.is_set():
                log.error("the NATS server has closed the connection for good: %s", bus.wire.last_error)
                return CUT_OFF
    except Misconfigured as error:
        log.error("%s", error)
        return error.exit_code
    return 0


def _ready(bound: Bound) -> None:
    log.info("open at %s, control plane at %s", bound.public, bound.control)
