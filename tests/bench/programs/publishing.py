"""Durable events, as many as can be stored in a time, by one process and one connection: through `bus`, or message by message.

`bus`: so many publishers, each of which waits for its event to be stored. `publish`: the same with nats-py's `js.publish`.
`publish_async`: nats-py's own window of so many unacknowledged messages. With `stored`, an id that the stream has already is
published once in that many batches.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import uvloop

from bus.client import Bus
from bus.users import inbox_prefix

SUBJECT = "vx11.events.bench.told"
BODY = json.dumps({"n": 7, "pad": "x" * 287}).encode()
"""306 bytes, as in the other measurements."""
USER = "client"
PATIENCE_S = 30.0
WARM = 200
FIRST = 2
"""Batch: a measurement is short, and shall have an id that is published again whatever the machine does."""

Publish = Callable[[str], Awaitable[Any]]
Told = dict[str, Any]


@asynccontextmanager
async def through_bus(told: Told):
    async with Bus.connect(told["url"], user=USER, seed=Path(told["seed"]), name="bench") as bus:
        commits, stored = bus._publisher._commits, told.get("stored", 0)
        first, due, repeated = "", FIRST, 0

        async def publish(id_: str) -> None:
            nonlocal first, due, repeated
            first = first or id_
            if stored and commits.batches >= due:
                due, repeated = commits.batches + stored, repeated + 1
                id_ = first
            await bus.publish_raw(SUBJECT, BODY, message_id=id_)

        yield publish, lambda: {"batches": commits.batches, "repeated": repeated}


@asynccontextmanager
async def through_nats_py(told: Told):
    options = {"nkeys_seed": told["seed"], "inbox_prefix": inbox_prefix(USER)}
    async with await nats.connect(told["url"], **options) as client:
        js = client.jetstream(publish_async_max_pending=told["in_flight"])

        async def publish(id_: str) -> None:
            await js.publish(SUBJECT, BODY, headers={"Nats-Msg-Id": id_}, timeout=PATIENCE_S)

        async def publish_async(id_: str) -> None:
            stored = await js.publish_async(SUBJECT, BODY, headers={"Nats-Msg-Id": id_}, wait_stall=PATIENCE_S)
            stored.add_done_callback(lambda done: done.result())

        yield (publish if told["by"] == "publish" else publish_async), dict
        await js.publish_async_completed()


async def worked(publish: Publish, ids: Iterator[str], end: float, times: list[float]) -> None:
    for id_ in ids:
        began = time.perf_counter()
        if began > end:
            return
        await publish(id_)
        times.append(time.perf_counter() - began)


async def main(told: Told) -> Told:
    way = through_bus if told["by"] == "bus" else through_nats_py
    tasks = 1 if told["by"] == "publish_async" else told["in_flight"]
    ids = (f"{told['name']}-{n}" for n in itertools.count())
    times: list[float] = []
    async with way(told) as (publish, more):
        await asyncio.gather(*(publish(id_) for id_ in itertools.islice(ids, WARM)))
        before = more()
        began, spent = time.perf_counter(), time.process_time()
        await asyncio.gather(*(worked(publish, ids, began + told["seconds"], times) for _ in range(tasks)))
        counted = {name: number - before[name] for name, number in more().items()}
        # publish_async ends with its window still under way: what is not stored yet is waited for, and its time counts
    seconds = time.perf_counter() - began
    times.sort()
    p50, p99 = (1000 * times[int(len(times) * part)] for part in (0.5, 0.99))
    cpu = 1e6 * (time.process_time() - spent) / len(times)
    return {"events": len(times), "seconds": seconds, "p50_ms": p50, "p99_ms": p99, "us": cpu, **counted}


if __name__ == "__main__":
    uvloop.install()
    print(json.dumps(asyncio.run(main(json.loads(sys.argv[1])))))
