"""The links of single processes to the server, through one proxy that knows each process by the name in its first words."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

CHUNK_BYTES = 65_536
CONNECT = b"CONNECT "


class Links:
    """While a name is stopped, nothing passes in either direction on any connection of it; nothing is closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._gates: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._open: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> set[str]:
        """Whoever has ever connected: a service, or an actor."""
        return set(self._gates)

    def stop(self, name: str) -> None:
        self._gates[name].clear()

    def heal(self, name: str) -> None:
        self._gates[name].set()

    async def carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """One connection, until either side has closed it."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
            to_client.write(await server.readuntil(b"\r\n"))
            hello = await client.readuntil(b"\r\n")
            gate = self._gate(hello)
            to_server.write(hello)
            both = [asyncio.create_task(_pass(gate, *pair)) for pair in ((client, to_server), (server, to_client))]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in both:
                    one.cancel()
                await asyncio.wait(both)
                to_server.close()
        except (OSError, asyncio.IncompleteReadError):
            return  # one of them is not there any more
        finally:
            to_client.close()
            self._open.discard(task)

    def _gate(self, hello: bytes) -> asyncio.Event:
        name = str(json.loads(hello.removeprefix(CONNECT))["name"]).partition(".")[0]
        if name not in self._gates:
            self.heal(name)
        return self._gates[name]

    async def close(self) -> None:
        for task in list(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(list(self._open))


async def _pass(gate: asyncio.Event, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK_BYTES):
            await gate.wait()
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def links(port: int, at: int) -> AsyncIterator[Links]:
    """A proxy on the port `at` before the server on `port`."""
    made = Links(port)
    server = await asyncio.start_server(made.carry, "127.0.0.1", at)
    try:
        yield made
    finally:
        server.close()
        await made.close()
        await server.wait_closed()
