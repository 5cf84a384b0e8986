"""A language model that counts: `python -m tests.bench.programs.model`. Its pieces are numbered, so that none can be missing.

The last message says what it does, as `{"pieces": 100, "pause_ms": 10}`.
"""

from __future__ import annotations

import asyncio
import json

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
AT_ONCE = 16
"""Pieces in one write when there is no pause between them."""


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = int(head.partition("content-length:")[2].split("\r\n", 1)[0] or 0)
            body = json.loads(await reader.readexactly(length))
            await _count(writer, **json.loads(body["messages"][-1]["content"]))
    except (asyncio.IncompleteReadError, ConnectionError):
        return  # the client has gone
    finally:
        writer.close()


async def _count(writer: asyncio.StreamWriter, pieces: int, pause_ms: float) -> None:
    writer.write(HEAD)
    step = 1 if pause_ms else AT_ONCE
    for first in range(0, pieces, step):
        writer.write(b"".join(map(_piece, range(first, min(first + step, pieces)))))
        await writer.drain()
        await asyncio.sleep(pause_ms / 1e3)
    writer.write(_chunk(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n') + b"0\r\n\r\n")
    await writer.drain()


def _piece(n: int) -> bytes:
    head = b'data: {"id":"c","object":"chat.completion.chunk","model":"count","choices":[{"index":0,"delta":{"content":"'
    return _chunk(head + b'%d "},"finish_reason":null}]}\n\n' % n)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
