"""The HTTP client of the providers, imported when the actor wakes: aiohttp takes a while."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress

import aiohttp

from actors.switch import dialect
from actors.switch.dialect import Piece, Reader
from actors.switch.failure import ProviderFailed, of_status, quoted
from actors.switch.patience import Limits, Patience
from actors.switch.providers import Provider
from actors.switch.resolver import GuardedResolver
from actors.switch.sse import Parser, TooLong
from schemas.switch import Chat

ERROR_BODY_BYTES = 8 * 1024
"""How much of an error's body is read for its words."""
STREAM_TYPE = "text/event-stream"
WHOLE_TYPE = "application/json"
DEFAULT_LIMITS = Limits()


class Endpoint:
    """Asks providers. `opened` makes one and closes it."""

    def __init__(self, session: aiohttp.ClientSession, limits: Limits) -> None:
        self._session = session
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
                yield reader.read(await self._text(response, patience), "message")
                yield reader.rest()
            else:
                raise ProviderFailed(f"it answered {quoted(response.content_type)} instead of a stream", blame="setup")

    async def models(self, provider: Provider, until: float) -> list[str]:
        """The models that the provider lists. Raises ProviderFailed."""
        patience = Patience(self._limits, until)
        async with self._answer(provider, "/models", patience) as response:
            return dialect.model_names(await self._text(response, patience))

    async def _streamed(self, response: aiohttp.ClientResponse, patience: Patience) -> AsyncGenerator[Piece, None]:
        """Ends when the provider said that it has finished; anything else before that is a failure."""
        reader = Reader()
        finished = False
        try:
            async with aclosing(self._events(response, patience)) as events:
                async for event in events:
                    if event == dialect.DONE:
                        finished = True
                        break
                    piece = reader.read(event)
                    yield piece
                    if piece.finish_reason:
                        finished = True
                        patience.ending()
                    elif piece.says and not finished:
                        patience.heard()
        except (ProviderFailed, aiohttp.ClientError, OSError):
            if not finished:
                raise
        if not finished:
            raise ProviderFailed("the stream ended before the answer did")
        yield reader.rest()

    async def _events(self, response: aiohttp.ClientResponse, patience: Patience) -> AsyncGenerator[str, None]:
        parser = Parser()
        try:
            async with aclosing(self._received(response, patience)) as parts:
                async for part in parts:
                    for event in filter(None, parser.feed(part)):
                        yield event
        except TooLong as wrong:
            raise ProviderFailed(f"it sent {wrong}") from None
        for event in filter(None, parser.close()):
            yield event

    async def _text(self, response: aiohttp.ClientResponse, patience: Patience) -> str:
        async with aclosing(self._received(response, patience)) as parts:
            return b"".join([part async for part in parts]).decode("utf-8", "replace")

    async def _received(self, response: aiohttp.ClientResponse, patience: Patience) -> AsyncGenerator[bytes, None]:
        size = 0
        while part := await patience.within(response.content.readany()):
            size += len(part)
            if size > self._limits.body:
                raise ProviderFailed(f"it sent more than {self._limits.body} bytes")
            yield part

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
        url = provider.url + path
        if body is None:
            return await self._session.get(url, headers=headers, allow_redirects=False)
        data = json.dumps(body, ensure_ascii=False).encode()
        return await self._session.post(url, data=data, headers=headers, allow_redirects=False)

    async def _refusal(self, response: aiohttp.ClientResponse, patience: Patience, key: str) -> ProviderFailed:
        words = dialect.error_of(await self._words(response, patience))
        rest = response.headers.get("Retry-After", "")
        return of_status(response.status, said=quoted(words, key), retry_after=rest, wall_now=time.time())

    async def _words(self, response: aiohttp.ClientResponse, patience: Patience) -> bytes:
        """As much of an error's body as comes soon; the status alone is enough for a refusal."""
        patience.ending()
        body = b""
        with suppress(ProviderFailed, aiohttp.ClientError, OSError):
            while len(body) < ERROR_BODY_BYTES and (part := await patience.within(response.content.readany())):
                body += part
        return body[:ERROR_BODY_BYTES]


@asynccontextmanager
async def opened(limits: Limits = DEFAULT_LIMITS) -> AsyncIterator[Endpoint]:
    """An endpoint with its own connections.

    None is kept between two requests: one that the server is just closing would look like a failure of the provider.
    """
    connector = aiohttp.TCPConnector(resolver=GuardedResolver(), force_close=True, limit=0, use_dns_cache=False)
    session = aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, connect=limits.connect, sock_connect=limits.connect),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        headers={"User-Agent": "vx11-switch"},
    )
    async with session:
        yield Endpoint(session, limits)


@contextmanager
def _translated(limits: Limits) -> Iterator[None]:
    """The client's exceptions as failures of the provider."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError:
        raise ProviderFailed(f"it accepted no connection within {limits.connect:g} s") from None
    except aiohttp.ClientSSLError as wrong:
        raise ProviderFailed(f"no secure connection: {quoted(str(wrong))}", blame="setup") from wrong
    except aiohttp.ClientConnectorError as wrong:
        raise ProviderFailed(f"no connection: {_words_of(wrong.os_error)}") from wrong
    except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, ConnectionResetError) as wrong:
        raise ProviderFailed("the connection was cut") from wrong
    except (aiohttp.ClientError, OSError) as wrong:
        raise ProviderFailed(f"it does not speak HTTP: {quoted(type(wrong).__name__)}") from wrong


def _words_of(error: OSError) -> str:
    known = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    return quoted(known or str(error))
