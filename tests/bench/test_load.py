"""The load generator itself: what it counts, and from when it counts time."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager

from aiohttp import web

from tests.bench.process import Program

STALL_S = 0.5


@asynccontextmanager
async def door(handle):
    """A server of one's own; its port."""
    app = web.Application()
    app.router.add_post("/call/echo/echo", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def loaded(port: int, **told):
    load = Program("load", json.dumps({"port": port, "token": "t", "connections": 4, **told}))
    try:
        return json.loads(await asyncio.to_thread(load.result, 30.0))
    finally:
        load.stop()


async def test_it_counts_what_was_answered_and_what_failed():
    asked = []

    async def third_fails(request: web.Request) -> web.Response:
        asked.append(await request.read())
        return web.json_response({}, status=500 if len(asked) == 3 else 200)

    async with door(third_fails) as port:
        got = await loaded(port, rate=200.0, number=20)
    assert (got["answered"], got["failed"], len(asked)) == (19, 1, 20)
    assert {len(body) for body in asked} == {306}


async def test_at_saturation_each_connection_asks_again_until_time_is_up():
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"n": 7})

    async with door(answer) as port:
        got = await loaded(port, seconds=0.3)
    assert got["answered"] > 4
    assert got["failed"] == 0
    assert got["seconds"] >= 0.3


async def test_a_request_that_could_not_be_sent_in_time_counts_from_when_it_was_due():
    """Else a server that stands still for a while would look quick: nothing is sent meanwhile, so nothing is slow."""
    stalls = []

    async def stall_once(request: web.Request) -> web.Response:
        if not stalls:
            stalls.append(None)
            time.sleep(STALL_S)  # noqa: ASYNC251 - the whole server stands still, as a frozen process does
        return web.json_response({})

    async with door(stall_once) as port:
        got = await loaded(port, rate=100.0, number=100)
    assert got["answered"] == 100
    slow = [one for one in got["times_ms"] if one > 200 * STALL_S]
    assert len(slow) > 15  # fifty were due in that time, of which four could be sent
