"""The baseline of a wake: a program with FastStream that answers one subject, as its documentation writes it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from faststream import FastStream
from faststream.nats import NatsBroker
from pydantic import BaseModel


class Echo(BaseModel):
    n: int = 0


class Echoed(BaseModel):
    n: int
    pid: int


broker = NatsBroker(sys.argv[1], nkeys_seed_str=Path(sys.argv[2]).read_text().strip(), logger=None)
app = FastStream(broker, logger=None)


@broker.subscriber(sys.argv[3])
async def echo(request: Echo) -> Echoed:
    return Echoed(n=request.n, pid=os.getpid())


@app.after_startup
async def tell() -> None:
    print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(app.run())
