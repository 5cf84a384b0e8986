"""The baseline: what a stock HTTP server and a stock NATS client need to pass a request on, and nothing else."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import nats
from aiohttp import web

ASK_S = 5.0


async def main(url: str, seed: str) -> None:
    bus = await nats.connect(url, nkeys_seed_str=seed)

    async def call(request: web.Request) -> web.Response:
        subject = f"vx11.{request.match_info['actor']}.{request.match_info['verb']}"
        answer = await bus.request(subject, await request.read(), timeout=ASK_S)
        return web.Response(body=answer.data, content_type="application/json")

    app = web.Application()
    app.router.add_post("/call/{actor}/{verb}", call)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print("ready", runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    serving = main(sys.argv[1], Path(sys.argv[2]).read_text().strip())
    if "uvloop" in sys.argv[3:]:
        import uvloop

        uvloop.run(serving)
    else:
        asyncio.run(serving)
