"""A rehearsal of a whole life in a parked process, before a server that only plays one: what it pays here, no wake pays.

Most of what a forked process spends on its first request is copying memory pages that it touches for the first time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from typing import ClassVar

from bus import chaos
from bus.actor import Actor
from bus.instance import live
from bus.link import LINE_BYTES
from bus.settings import Settings
from bus.start import Start
from schemas.errors import Failure
from schemas.message import Message, Request

INFO = b'INFO {"version":"2.15.1","headers":true,"max_payload":1048576,"auth_required":true,"nonce":"-"}\r\n'
REHEARSAL_S = 5.0
NAME = "rehearsal"
ASKED = f"vx11.inst.{NAME}.{NAME}.play".encode()
ORDER = f"vx11.inst.{NAME}.{NAME}._drain".encode()
REPLY = b"_INBOX.rehearsal.1"
HARMLESS = (Failure, OSError, TimeoutError, RuntimeError)
"""What may come of a machine that has no descriptor, or no thread, to spare."""


class Played(Message):
    line: str = ""


class Play(Request[Played]):
    subject: ClassVar = f"vx11.{NAME}.play"

    line: str = ""


async def _play(request: Play) -> Played:
    return Played(line=request.line)


async def rehearse(settings: Settings) -> None:
    """Be an instance from the claim to the exit. One that fails costs a slower wake, nothing else."""
    actor = Actor(NAME, summary=NAME)
    actor.handles(_play)
    start = Start(NAME, id=NAME, run=NAME, revision=1, epoch=1, host=NAME, record={"actor": NAME})
    logging.disable(logging.CRITICAL)  # nobody shall look for this actor
    try:
        with contextlib.suppress(*HARMLESS), chaos.ignored(), _playing() as url:
            async with asyncio.timeout(REHEARSAL_S):
                await live(lambda: actor, start, url, settings)
    finally:
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def _playing() -> Iterator[str]:
    """The address of a server that plays one."""
    listening = socket.create_server(("127.0.0.1", 0))
    with listening:
        server = threading.Thread(target=_Playing(listening).serve)
        server.start()
        try:
            yield f"nats://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.join()


class _Playing:
    """As much of a server as one life needs: grants the claim, asks once, then orders to leave.

    In a thread, because who connects holds the loop until the server has spoken.
    """

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._sids: dict[bytes, bytes] = {}

    def serve(self) -> None:
        """One connection, to its end."""
        with self._listening, contextlib.suppress(OSError):
            self._listening.settimeout(REHEARSAL_S)
            self._client, _ = self._listening.accept()
            with self._client:
                self._client.settimeout(REHEARSAL_S)
                self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._client.sendall(INFO)
                self._listen()

    def _listen(self) -> None:
        rest = b""
        while data := self._client.recv(LINE_BYTES):
            rest += data
            while (end := rest.find(b"\r\n")) >= 0:
                words, stop = rest[:end].split(b" "), end + 2
                if words[0] in (b"PUB", b"HPUB"):
                    stop += int(words[-1]) + 2
                    if len(rest) < stop:
                        break
                rest = rest[stop:]
                self._heard(words)

    def _heard(self, words: list[bytes]) -> None:
        if words[0] == b"PING":
            self._client.sendall(b"PONG\r\n")
        elif words[0] == b"SUB":
            self._sids[words[1]] = words[-1]
        elif words[0] in (b"PUB", b"HPUB"):
            reply = words[2] if len(words) == (4 if words[0] == b"PUB" else 5) else b""
            self._published(words[1], reply)

    def _published(self, subject: bytes, reply: bytes) -> None:
        if reply:
            self._say(reply, b'{"stream":"KV","seq":2}')
        elif subject == REPLY:
            self._say(ORDER, b'{"epoch":1}')
        elif subject.startswith(b"_INBOX"):
            self._say(subject, b"")
        elif b".active." in subject:
            self._say(ASKED, b'{"line":"?"}', REPLY)

    def _say(self, subject: bytes, body: bytes, reply: bytes = b"") -> None:
        for pattern, sid in self._sids.items():
            if pattern.endswith((b"*", b">")) and subject.startswith(pattern[:-1]):
                words = [b"MSG", subject, sid, *([reply] if reply else []), str(len(body)).encode()]
                self._client.sendall(b" ".join(words) + b"\r\n" + body + b"\r\n")
                return
