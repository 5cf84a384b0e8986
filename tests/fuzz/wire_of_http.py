"""A socket to the door that sends exactly the bytes it is told, and reads what comes back as answers."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

READ_S = 20.0
"""Far more than any answer of these tests takes: the clocks of the door are shorter."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


async def exchanged(port: int, pieces: tuple[bytes, ...], pause_s: float, *, half: bool, bodiless: bool) -> list[Answer]:
    """Every answer until the door closes; None of them may be cut. `pause_s` lies between two pieces.

    `half`: our side is closed after the last piece. `bodiless`: the first answer is one to HEAD.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sending = asyncio.create_task(_sent(writer, pieces, pause_s, half=half))
    try:
        async with asyncio.timeout(READ_S):
            return await _answers(reader, bodiless=bodiless)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await abort(writer)


async def abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def _sent(writer: asyncio.StreamWriter, pieces: tuple[bytes, ...], pause_s: float, *, half: bool) -> None:
    """The door may close before all of it has been sent: then the rest was not wanted."""
    with contextlib.suppress(ConnectionError):
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(pause_s)
            writer.write(piece)
            await writer.drain()
        if half:
            writer.write_eof()


async def _answers(reader: asyncio.StreamReader, *, bodiless: bool) -> list[Answer]:
    found: list[Answer] = []
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise AssertionError(f"an answer that is none: {error.partial[:200]!r}") from error
            return found
        except ConnectionError:
            return found
        line, *lines = head.decode("ascii").rstrip().split("\r\n")
        headers = {name.lower(): text.strip() for name, _, text in (one.partition(":") for one in lines)}
        status = int(line.split()[1])
        body = b""
        if status != 100 and not (bodiless and not found):
            assert "transfer-encoding" not in headers, head
            body = await reader.readexactly(int(headers["content-length"]))
        found.append(Answer(status, headers, body))
