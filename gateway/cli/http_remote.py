"""The way through the gateway of another machine: `POST /call/{actor}/{verb}` with a token."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from gateway.cli.remote import Remote, Reply, read_object
from schemas.errors import CODES, Failure
from schemas.usage import Usage

TOKEN_HEADER = "X-VX11-Token"  # noqa: S105 - the name of the header
WAKE_MS = "X-Vx11-Wake-Ms"
CORRELATION_HEADER = "X-Correlation-Id"
LINE_BYTES = 2 * 1024 * 1024
"""One line of an event stream at most: a message on the bus has 1 MiB."""
LOOK_S = 5.0
"""For what is only looked at."""
GRACE_S = 2.0
"""The gateway answers `timeout` itself; the line gets this much longer."""
NEXT = [["echo $VX11_URL", "is it the gateway's address?"], ["unset VX11_URL", "to ask the VX11 of this machine"]]
HTTP_ONLY = frozenset({"detail", "status_code", "status"})
"""What the gateway adds to an error document for other clients."""


class HttpRemote:
    """`session` is open; whoever opened it closes it."""

    def __init__(self, session: aiohttp.ClientSession, where: str) -> None:
        self.session = session
        self.where = where
        self.conversation = ""

    async def ask(
        self,
        subject: str,
        document: Mapping[str, Any],
        *,
        timeout: float,
        idempotent: bool = False,  # noqa: ARG002 - the gateway knows it from the card
    ) -> Reply:
        async with self._post(subject, document, timeout, "application/json") as response:
            return Reply(read_object(await response.read(), self.where), _wake_ms(response))

    async def stream(self, subject: str, document: Mapping[str, Any], *, timeout: float) -> AsyncIterator[Reply]:
        async with self._post(subject, document, timeout, "text/event-stream") as response:
            if response.content_type != "text/event-stream":
                yield Reply(read_object(await response.read(), self.where), _wake_ms(response))
                return
            async for kind, data in _events(response.content):
                found = read_object(data, self.where)
                if kind == "error":
                    raise _told(found)
                yield Reply(found, _wake_ms(response), last=kind == "reply")
                if kind == "reply":
                    return
        raise Failure("crashed", f"{self.where} ended the stream in the middle")

    @asynccontextmanager
    async def _post(
        self, subject: str, document: Mapping[str, Any], timeout: float, accept: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        _, actor, verb = subject.split(".", 2)
        async with self._asked("POST", f"/call/{actor}/{verb}", timeout, accept, json=dict(document)) as response:
            yield response

    async def usage(self, days: int) -> Usage:
        async with self._asked("GET", f"/operator/api/usage?days={days}", LOOK_S, "application/json") as response:
            return Usage.model_validate(read_object(await response.read(), self.where))

    @asynccontextmanager
    async def _asked(
        self, method: str, path: str, timeout: float, accept: str, **body: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        address = self.where + path
        clock = aiohttp.ClientTimeout(total=timeout + GRACE_S)
        headers = {"Accept": accept, **({CORRELATION_HEADER: self.conversation} if self.conversation else {})}
        try:
            async with self.session.request(method, address, timeout=clock, headers=headers, **body) as response:
                if response.status >= 400:
                    raise _failure(response.status, await response.read(), self.where)
                yield response
        except TimeoutError:
            raise Failure("timeout", f"no answer from {address} in {timeout:g} s") from None
        except aiohttp.ClientConnectionError as error:
            raise Failure("unavailable", f"nothing answers at {self.where}", why=str(error), next=NEXT) from error
        except aiohttp.ClientError as error:
            raise Failure(
                "unavailable", f"what answers at {self.where} is no VX11 gateway", why=type(error).__name__, next=NEXT
            ) from error


@asynccontextmanager
async def open_http(url: str, token: str) -> AsyncIterator[Remote]:
    """No connection is made before the first request. Without a token the gateway will say that one is needed."""
    if not url.startswith(("http://", "https://")):
        raise Failure("invalid", f"VX11_URL={url!r} is no address", why="it must look like http://host:8000")
    async with aiohttp.ClientSession(headers={TOKEN_HEADER: token} if token else {}, read_bufsize=LINE_BYTES) as session:
        yield HttpRemote(session, url.rstrip("/"))


def _failure(status: int, body: bytes, where: str) -> Failure:
    """The gateway's error document; anything else is not our gateway."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("error") not in CODES:
        return Failure("unavailable", f"{where} answered {status}, which is not how a VX11 gateway says it")
    return _told(document)


def _told(document: Mapping[str, Any]) -> Failure:
    return Failure.from_document({name: value for name, value in document.items() if name not in HTTP_ONLY})


def _wake_ms(response: aiohttp.ClientResponse) -> int:
    text = response.headers.get(WAKE_MS, "")
    return int(text) if text.isascii() and text.isdigit() else 0


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[tuple[str, str]]:
    """(event, data) of a server-sent event stream."""
    kind, data = "message", list[str]()
    while line := await content.readuntil(b"\n"):
        text = line.decode().rstrip("\r\n")
        if not text:
            if data:
                yield kind, "\n".join(data)
            kind, data = "message", []
        elif not text.startswith(":"):
            name, _, value = text.partition(":")
            if name == "event":
                kind = value.removeprefix(" ")
            elif name == "data":
                data.append(value.removeprefix(" "))
