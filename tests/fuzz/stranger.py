"""A client of the bus that writes its messages itself, with the seed that everybody gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bus.call import END, ERROR, SEQ
from bus.wire import Msg, Wire
from schemas.errors import CODES
from tests.e2e.house import House

ANSWER_S = 5.0
"""What a stock client waits by default."""
NOBODY = "503"


@dataclass(frozen=True)
class Sent:
    """`head`: the header lines as they are, each with its end; None for a message without any.

    One that begins with a space begins in the first line, where the server has its status.
    """

    subject: bytes
    body: bytes = b"{}"
    head: bytes | None = None

    def __str__(self) -> str:
        return f"{self.subject!r} {self.body[:80]!r} {(self.head or b'')[:120]!r}"


class Stranger:
    """It reads with our wire: nats-py falls over its own garbage, which the server sends back when nobody listens."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @classmethod
    @asynccontextmanager
    async def at(cls, home: House) -> AsyncIterator[Stranger]:
        async with home.bus() as bus:
            yield cls(bus.wire)

    @property
    def denied(self) -> int:
        """How often the server's permissions refused something."""
        return self._wire.denied

    async def say(self, sent: Sent, reply: bytes = b"") -> None:
        """Write it, whatever it is."""
        words = [sent.subject, *([reply] if reply else [])]
        first = b"NATS/1.0" if (sent.head or b"").startswith(b" ") else b"NATS/1.0\r\n"
        head = b"" if sent.head is None else first + sent.head + b"\r\n"
        sizes = [b"%d" % len(head)] if head else []
        line = b" ".join([b"HPUB" if head else b"PUB", *words, *sizes, b"%d" % (len(head) + len(sent.body))])
        self._wire.write(line + b"\r\n" + head + sent.body + b"\r\n")
        self._wire.flush()

    async def ask(self, sent: Sent) -> Msg:
        """The answer, of a stream the last frame. Raises AssertionError when there is none in time."""
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

        def heard(msg: Msg) -> None:
            headers = msg.headers or {}
            if not answer.done() and (SEQ not in headers or END in headers):
                answer.set_result(msg)

        token, reply = self._wire.await_answer(heard)
        try:
            await self.say(sent, reply.encode())
            async with asyncio.timeout(ANSWER_S):
                return await answer
        except TimeoutError:
            raise AssertionError(f"no answer to {sent}") from None
        finally:
            self._wire.forget_answer(token)

    async def code(self, sent: Sent) -> str:
        """The code of the answer: `ok`, `nobody`, or one of ours. Raises AssertionError for an answer that is none."""
        answer = await self.ask(sent)
        headers = answer.headers or {}
        if headers.get("Status") == NOBODY:
            return "nobody"
        told = json.loads(answer.data)
        if ERROR not in headers:
            return "ok"
        code = headers[ERROR].partition(":")[0]
        assert (code, code in CODES) == (told["error"], True)
        assert code != "internal", f"{told} to {sent}"
        return code
