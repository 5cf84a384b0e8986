"""A dry run of a wake in a parked process, against a server that only says hello: what it pays here, no wake pays.

Half of what a forked process spends on its first connection is copying memory pages that it touches for the first time.
"""

from __future__ import annotations

import asyncio
import contextlib

from bus.settings import Settings
from bus.wire import Wire
from schemas.errors import Failure
from schemas.power import Active, ActorRecord

INFO = b'INFO {"version":"2.15.1","headers":true,"max_payload":1048576,"auth_required":true,"nonce":"-"}\r\n'
WARM_S = 5.0


async def warm(settings: Settings) -> None:
    """Connect, subscribe, pass a barrier, make the messages of a claim. Best done once before a name is known."""
    server = await asyncio.start_server(_hello, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    seed = settings.seed_file("actor")
    wire = Wire()
    try:
        async with asyncio.timeout(WARM_S):
            await wire.open(f"nats://127.0.0.1:{port}", user="actor", seed=seed if seed.exists() else None, name="dry run")
            await wire.barrier()
        ActorRecord.model_validate_json(ActorRecord(actor="dry-run").model_dump_json())
        Active(actor="dry-run").model_dump_json()
    finally:
        await wire.close()
        server.close()


async def _hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As much of a server as the first milliseconds of a client need: PONG, and the echo of what it publishes."""
    writer.write(INFO)
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ValueError):
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
            elif line.startswith(b"PUB"):
                _, subject, size = line.split()
                await reader.readexactly(int(size) + 2)
                writer.write(b"MSG " + subject + b" 1 0\r\n\r\n")
    writer.close()


async def warm_up(settings: Settings) -> None:
    """A dry run that fails costs a slower wake, nothing else."""
    with contextlib.suppress(Failure, OSError, TimeoutError):
        await warm(settings)
