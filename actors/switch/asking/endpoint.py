"""The HTTP client of the providers, imported when the actor wakes: aiohttp takes a while."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import aiohttp

from actors.switch.asking import dialect
from actors.switch.asking.dialect import Piece, Reader
from actors.switch.asking.failure import ProviderFailed, of_status, quoted
from actors.switch.asking.patience import Limits, Patience
from actors.switch.asking.reading import Reading
from actors.switch.asking.resolver import GuardedResolver
from actors.switch.configured.providers import Provider
from schemas.switch import Chat

ERROR_BODY_BYTES = 8 * 1024
"""How much of an error's body is read for its words."""
STREAM_TYPE = "text/event-stream"
WHOLE_TYPE = "application/json"
DEFAULT_LIMITS = Limits()
KEPT_S = 10.0
"""An idle connection is kept for the next question: a handshake with a far server takes longer than a word."""
STALE_S = 1.0
"""A kept connection that its server has closed shows it within a round trip; what breaks off later may have been begun."""


class Endpoint:
    """Asks providers. `opened` makes one and closes it."""

    def __init__(self, kept: Connections, fresh: Connections, limits: Limits) -> None:
        self._kept = kept
        self._fresh = fresh
        self._limits = limits

    async def stream(self, provider: Provider, model: str, request: Chat, until: float) -> AsyncGenerator[Piece, None]:
        """The pieces of an answer, which is whole when this ends. `until`: a moment on the loop's clock.

        Raises ProviderFailed. Closing this generator cuts the connection, so that the provider stops as well.
        """
        patience = Patience(self._limits, until)
        body = dialect.question(request, model, ask_usage=provider.ask_usage)
        async with self._answer(provider, "/chat/completions", patience, body) as response:
            if response.content_type == STREAM_TYPE:
                async with aclosing(self._streamed(response, patience)) as pieces:
                    async for piece in pieces:
                        yield piece
            elif response.content_type == WHOLE_TYPE:
                reader = Reader()
                piece = reader.read(await self._text(response, patience), "message")
                reader.end()
                yield piece
            else:
                raise ProviderFailed(f"it answered {quoted(response.content_type)} instead of a stream", blame="setup")

    async def models(self, provider: Provider, until: float) -> list[str]:
        """The models that the provider lists. Raises ProviderFailed."""
        patience = Patience(self._limits, until)
        async with self._answer(provider, "/models", patience) as response:
            return dialect.model_names(await self._text(response, patience))

    async def _streamed(self, response: aiohttp.ClientResponse, patience: Patience) -> AsyncGenerator[Piece, None]:
        """Ends when the provider said that it has finished; anything else before that is a failure."""
        reading = Reading()
        size, ending = 0, False
        try:
            while not reading.over:
                part = await patience.within(response.content.readany())
                size += len(part)
                self._bounded(size)
                for piece in reading.feed(part) if part else reading.close():
                    yield piece
                    if piece.says and not reading.finished:
                        patience.heard()
                if reading.finished and not ending:
                    ending = True
                    patience.ending()
                if not part:
                    return
        except (ProviderFailed, aiohttp.ClientError, OSError):
            if not reading.finished:
                raise

    async def _text(self, response: aiohttp.ClientResponse, patience: Patience) -> str:
        parts: list[bytes] = []
        while part := await patience.within(response.content.readany()):
            parts.append(part)
            self._bounded(sum(map(len, parts)))
        return b"".join(parts).decode("utf-8", "surrogateescape")

    def _bounded(self, size: int) -> None:
        if size > self._limits.body:
            raise ProviderFailed(f"it sent more than {self._limits.body} bytes")

    @asynccontextmanager
    async def _answer(
        self, provider: Provider, path: str, patience: Patience, body: object = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer with status 200 whose body is still to be read; leaving cuts the connection."""
        with _translated(self._limits):
            response = await patience.within(self._asked(provider, path, body))
            try:
                if response.status != 200:
                    raise await self._refusal(response, patience, provider.key)
                if response.headers.get("Content-Encoding", "identity") != "identity":
                    raise ProviderFailed("it sent a compressed body, though it was asked not to")
                yield response
            finally:
                response.close()

    async def _asked(self, provider: Provider, path: str, body: object) -> aiohttp.ClientResponse:
        """The key goes to the configured host and, as redirects are not followed, to no other."""
        headers = {"Accept": f"{STREAM_TYPE}, {WHOLE_TYPE}", "Accept-Encoding": "identity", "Content-Type": WHOLE_TYPE}
        if provider.key:
            headers["Authorization"] = f"Bearer {provider.key}"
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        sent = ("GET" if body is None else "POST", provider.url + path, headers, data)
        used, asked_at = SimpleNamespace(again=False), time.monotonic()
        try:
            return await self._kept.ask(*sent, used)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if not used.again or time.monotonic() - asked_at > STALE_S:
                raise
        return await self._fresh.ask(*sent)

    async def _refusal(self, response: aiohttp.ClientResponse, patience: Patience, key: str) -> ProviderFailed:
        told = dialect.complaint_of(await self._words(response, patience))
        said, rest = quoted(told.words, key), response.headers.get("Retry-After", "")
        return of_status(response.status, said=said, retry_after=rest, wall_now=time.time(), too_long=told.too_long)

    async def _words(self, response: aiohttp.ClientResponse, patience: Patience) -> bytes:
        """As much of an error's body as comes soon; the status alone is enough for a refusal."""
        patience.ending()
        body = b""
        with suppress(ProviderFailed, aiohttp.ClientError, OSError):
            while len(body) < ERROR_BODY_BYTES and (part := await patience.within(response.content.readany())):
                body += part
        return body[:ERROR_BODY_BYTES]


class Connections:
    """A client with its connections. Each is checked when it is made, and none follows a redirect or keeps a cookie."""

    def __init__(self, limits: Limits, *, kept_s: float) -> None:
        """`kept_s`: seconds that an idle connection is kept; 0: none is."""
        keeping: dict[str, Any] = {"keepalive_timeout": kept_s} if kept_s else {"force_close": True}
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=GuardedResolver(), limit=0, use_dns_cache=False, **keeping),
            timeout=aiohttp.ClientTimeout(total=None, connect=limits.connect, sock_connect=limits.connect),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            headers={"User-Agent": "vx11-switch"},
            trace_configs=[tracing],
        )

    async def ask(
        self, method: str, url: str, headers: dict[str, str], data: bytes | None, used: SimpleNamespace | None = None
    ) -> aiohttp.ClientResponse:
        """`used.again` becomes true when the connection has carried another request before."""
        return await self._session.request(method, url, data=data, headers=headers, allow_redirects=False, trace_request_ctx=used)

    async def close(self) -> None:
        await self._session.close()


async def _note(_session: aiohttp.ClientSession, context: SimpleNamespace, _told: aiohttp.TraceConnectionReuseconnParams) -> None:
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.again = True


@asynccontextmanager
async def opened(limits: Limits = DEFAULT_LIMITS) -> AsyncIterator[Endpoint]:
    """An endpoint with its own connections.

    A server may close a kept one just as it is used again: that shows at once, is no failure of the provider, and the question
    is asked once more on a new one. RFC 9112, 9.3.1, allows that only for what was surely not begun.
    """
    kept, fresh = Connections(limits, kept_s=KEPT_S), Connections(limits, kept_s=0)
    try:
        yield Endpoint(kept, fresh, limits)
    finally:
        await kept.close()
        await fresh.close()


@contextmanager
def _translated(limits: Limits) -> Iterator[None]:
    """The client's exceptions as failures of the provider."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError:
        raise ProviderFailed(f"it accepted no connection within {limits.connect:g} s", unspent=True) from None
    except aiohttp.ClientSSLError as wrong:
        raise ProviderFailed(f"no secure connection: {quoted(str(wrong))}", blame="setup", unspent=True) from wrong
    except aiohttp.ClientConnectorError as wrong:
        raise ProviderFailed(f"no connection: {_words_of(wrong.os_error)}", unspent=True) from wrong
    except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, ConnectionResetError) as wrong:
        raise ProviderFailed("the connection was cut") from wrong
    except (aiohttp.ClientError, OSError) as wrong:
        raise ProviderFailed(f"it does not speak HTTP: {quoted(type(wrong).__name__)}") from wrong


def _words_of(error: OSError) -> str:
    known = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    return quoted(known or str(error))
