"""Answers as HTTP: JSON bodies, errors in their one shape, the headers that every answer carries."""

from __future__ import annotations

import asyncio
import json
import math
import time
from email.utils import formatdate
from functools import lru_cache
from http import client
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from pydantic import BaseModel

from schemas.errors import Failure

if TYPE_CHECKING:
    from aiohttp.http import StreamWriter

JSON = "application/json"
TEXT = "text/plain"
COMMON = {"Server": "vx11", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
COMMON_JSON = {**COMMON, "Content-Type": JSON}
ASK_AGAIN_S = 1
"""What Retry-After says when the failure does not know better."""
BEARER = 'Bearer realm="vx11"'
_RETRY = frozenset({"busy", "waking", "unavailable"})
_OWN = frozenset({"error", "detail", "message", "status_code", "correlation_id"})


WRITE_S = 10.0
"""What a reader that takes nothing is given, until the settings are known."""
WAITING_BYTES_MOST = 64 * 1024
"""What may wait on a connection before its next request has to."""


class Whole:
    """An answer that is there as a whole, sent in one write.

    It is what aiohttp's connection asks of a response and no more: `web.Response` takes 10 us for the general case.
    """

    __slots__ = ("_body", "_request", "headers", "keep_alive", "status", "write_s")

    def __init__(self, body: bytes, headers: dict[str, str], *, status: int = 200) -> None:
        self.status = status
        self.headers = headers
        self.keep_alive: bool | None = None
        """Whether the connection takes another request; None: as the client wants it."""
        self.write_s = WRITE_S
        self._body = body
        self._request: web.BaseRequest | None = None

    def force_close(self) -> None:
        self.keep_alive = False

    @property
    def prepared(self) -> bool:
        return self._request is not None

    async def prepare(self, request: web.BaseRequest) -> None:
        self._request = request
        if self.keep_alive is None:
            self.keep_alive = request.keep_alive

    async def write_eof(self) -> None:
        """Send it, head and body."""
        assert self._request is not None  # a connection prepares first
        head = self._head(self._request.version < (1, 1))
        writer = cast("StreamWriter", self._request.writer)
        await writer.write(head if self._request.method == "HEAD" else head + self._body, drain=False)
        transport = self._request.transport
        if transport is not None and transport.get_write_buffer_size() > WAITING_BYTES_MOST:
            await self._taken(transport)

    async def _taken(self, transport: asyncio.Transport) -> None:
        """Wait for a slow reader. Raises ConnectionError when it takes nothing for `write_s`."""
        assert self._request is not None  # its only caller has it
        left = transport.get_write_buffer_size()
        while True:
            try:
                async with asyncio.timeout(self.write_s):
                    return await self._request.writer.drain()
            except TimeoutError:
                before, left = left, transport.get_write_buffer_size()
                if left >= before:
                    transport.abort()  # closing would wait for it, too
                    raise ConnectionError("the reader takes nothing") from None

    def _head(self, old: bool) -> bytes:
        headers = self.headers
        lines = [f"{name}: {value}" for name, value in headers.items()]
        if not self.keep_alive:
            lines.append("Connection: close")
        elif old:
            lines.append("Connection: keep-alive")
        text = "\r\n".join(lines)
        if text.count("\n") >= len(lines) or text.count("\r") >= len(lines):
            raise ValueError("a header has more than one line")
        first = f"HTTP/1.{0 if old else 1} {_status_line(self.status)}\r\nContent-Length: {len(self._body)}\r\n"
        return f"{first}Date: {_date(int(time.time()))}\r\n{text}\r\n\r\n".encode()


Response = web.StreamResponse | Whole
"""What a request is answered with."""


@lru_cache
def _status_line(status: int) -> str:
    return f"{status} {client.responses.get(status, 'Client Closed Request')}"  # 499 is the only one of ours without a standard


@lru_cache(1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def json_response(body: BaseModel | bytes, *, status: int = 200) -> Whole:
    """Bytes are one JSON document already and pass as they are."""
    data = body if isinstance(body, bytes) else body.model_dump_json(by_alias=True).encode()
    return Whole(data, COMMON_JSON.copy(), status=status)


def text_response(text: str, *, content_type: str = TEXT) -> Whole:
    return Whole(text.encode(), {**COMMON, "Content-Type": f"{content_type}; charset=utf-8"})


def failure_document(failure: Failure, correlation_id: str) -> dict[str, Any]:
    """The error body. `error` and `detail` both carry the code, for old clients that read either."""
    document = {
        "error": failure.code,
        "detail": failure.code,
        "message": failure.message,
        "status_code": failure.status,
        "correlation_id": correlation_id,
        **{name: value for name, value in failure.details.items() if name not in _OWN},
    }
    if failure.code == "off_by_policy":
        document.setdefault("service", "")
        document.setdefault("recommended_action", "open a window for it, or set its gate to on_demand")
        document["status"] = "OFF_BY_POLICY"
    return document


def failure_response(failure: Failure, correlation_id: str) -> Whole:
    body = json.dumps(failure_document(failure, correlation_id), default=str).encode()
    return Whole(body, failure_headers(failure), status=failure.status)


def failure_headers(failure: Failure) -> dict[str, str]:
    headers = COMMON_JSON.copy()
    if failure.code in _RETRY:
        headers["Retry-After"] = str(_whole_seconds(failure.details.get("retry_after")))
    if failure.code == "auth_required":
        headers["WWW-Authenticate"] = BEARER
    if failure.code == "method_not_allowed":
        headers["Allow"] = ", ".join(failure.details.get("allow", ()))
    return headers


def _whole_seconds(told: object) -> int:
    return max(ASK_AGAIN_S, math.ceil(told)) if isinstance(told, (int, float)) and math.isfinite(told) else ASK_AGAIN_S
