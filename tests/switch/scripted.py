"""An OpenAI-like server that does to each request what its script says, right or wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

LEAVE_S = 5.0
"""For the scripts to notice at the end that the server is closed."""


@dataclass
class Asked:
    """One request as it arrived. `gone`: set when its client has closed the connection."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def document(self) -> Any:
        return json.loads(self.body)


class Exchange:
    """What a script holds in its hands: one request, and the connection to answer it on."""

    def __init__(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked = asked
        self._reader = reader
        self._writer = writer

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def head(self, status: int = 200, kind: str = "text/event-stream", **headers: str) -> None:
        """The head of a chunked answer."""
        lines = [f"HTTP/1.1 {status} Scripted", f"Content-Type: {kind}", "Transfer-Encoding: chunked"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.raw("\r\n".join([*lines, "", ""]).encode())

    async def chunk(self, data: bytes) -> None:
        """One HTTP chunk; an empty one ends the body."""
        await self.raw(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def event(self, document: Any) -> None:
        data = document if isinstance(document, str) else json.dumps(document)
        await self.chunk(f"data: {data}\n\n".encode())

    async def say(self, text: str = "", **delta: Any) -> None:
        await self.event({"choices": [{"index": 0, "delta": {"content": text} | delta}]})

    async def finish(self, reason: str = "stop", usage: dict[str, int] | None = None) -> None:
        """The finish reason, the token counts if any, the end mark."""
        await self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        if usage:
            await self.event({"choices": [], "usage": usage})
        await self.event("[DONE]")
        await self.chunk(b"")

    async def answer(self, status: int, document: Any, kind: str = "application/json", **headers: str) -> None:
        """A whole answer."""
        await self.head(status, kind, **headers)
        await self.chunk(document if isinstance(document, bytes) else json.dumps(document).encode())
        await self.chunk(b"")

    async def hold(self) -> None:
        """Say nothing more until the client goes away."""
        while await self._reader.read(1024):
            pass
        self.asked.gone.set()

    def cut(self) -> None:
        self._writer.transport.abort()


Script = Callable[[Exchange], Awaitable[None]]


@dataclass
class Server:
    """`asked`: every request, in the order of arrival. `scripts`: one a request; the last one serves all further."""

    scripts: list[Script]
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def requests(self, count: int) -> list[Asked]:
        """All requests, once there are so many."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.asked) >= count)
        return self.asked

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await _request(reader)
            script = self.scripts[min(len(self.asked), len(self.scripts) - 1)]
            async with self.arrived:
                self.asked.append(asked)
                self.arrived.notify_all()
            try:
                await script(Exchange(asked, reader, writer))
            except ConnectionError:
                asked.gone.set()
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # a client that left before it had asked anything
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def scripted(*scripts: Script) -> AsyncIterator[Server]:
    """A server on a free port of this machine; `url` is its base URL."""
    server = Server(list(scripts))
    serving: set[asyncio.Task[None]] = set()
    writers: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        task.add_done_callback(serving.discard)
        writers.add(writer)
        await server.serve(reader, writer)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listening.close()
        for writer in writers:
            writer.transport.abort()
        if serving:
            _, stuck = await asyncio.wait(set(serving), timeout=LEAVE_S)
            for task in stuck:
                task.cancel()
            assert not stuck, "a script did not notice that its client has gone"
        await listening.wait_closed()


async def _request(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, path, headers, body)


def says(*parts: str, usage: dict[str, int] | None = None) -> Script:
    """A good answer in so many parts."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
        for part in parts:
            await exchange.say(part)
        await exchange.finish(usage=usage)

    return script


def refuses(status: int, message: str = "", **headers: str) -> Script:
    """An error in OpenAI's shape."""

    async def script(exchange: Exchange) -> None:
        await exchange.answer(status, {"error": {"message": message}}, **headers)

    return script


def lists(*models: str) -> Script:
    """A model list."""

    async def script(exchange: Exchange) -> None:
        await exchange.answer(200, {"object": "list", "data": [{"id": model} for model in models]})

    return script


async def stays_silent(exchange: Exchange) -> None:
    """Takes the request and never answers."""
    await exchange.hold()


async def hangs_up(exchange: Exchange) -> None:
    """Takes the request and cuts the connection."""
    exchange.cut()


def stalls_after(*parts: str) -> Script:
    """Begins to answer, and falls silent."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for part in parts:
            await exchange.say(part)
        await exchange.hold()

    return script


def cuts_after(*parts: str, when: asyncio.Event | None = None) -> Script:
    """Begins to answer, and cuts the connection (in the middle of a chunk) when it is told to."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for part in parts:
            await exchange.say(part)
        if when is not None:
            await when.wait()
        await exchange.raw(b'40\r\ndata: {"choices"')
        exchange.cut()

    return script


async def talks_for_ever(exchange: Exchange) -> None:
    """An answer without an end."""
    await exchange.head()
    while True:
        await exchange.say("and so on " * 100)
