"""The gateway on real sockets, with a real Valkey, before a scripted bus."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bus.cache import Cache, open_cache
from gateway.http.app import make_parts
from gateway.http.parts import Parts
from gateway.http.routes import TABLE, Route
from gateway.http.server import Bound, serving
from gateway.http.settings import HttpSettings
from gateway.tokens import TokenFile
from tests.gateway.scripted import LIST, ScriptedBus, ScriptedLog, actor, listed

HOUSE = ("operator_backend", "switch")


@dataclass
class Reply:
    """An answer, read whole."""

    status: int
    headers: Any
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Link:
    """A running gateway and a client with a token that may do everything."""

    parts: Parts
    bound: Bound
    bus: ScriptedBus
    log: ScriptedLog
    session: aiohttp.ClientSession
    tokens: TokenFile
    token: str

    def url(self, path: str, *, control: bool = False) -> str:
        port = self.bound.control.port if control and self.bound.control else self.bound.public.port
        return f"http://127.0.0.1:{port}{path}"

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = "",
        headers: dict[str, str] | None = None,
        control: bool = False,
    ) -> Reply:
        """`token`: empty for the good one, None for none."""
        sent = dict(headers or {})
        if token is not None:
            sent.setdefault("X-VX11-Token", token or self.token)
        options: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        async with self.session.request(method, self.url(path, control=control), headers=sent, **options) as answer:
            return Reply(answer.status, answer.headers, await answer.text())

    async def get(self, path: str, **more: Any) -> Reply:
        return await self.ask("GET", path, **more)

    async def post(self, path: str, body: Any = None, **more: Any) -> Reply:
        return await self.ask("POST", path, body, **more)

    def stream(self, method: str, path: str, **more: Any) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        headers = {"X-VX11-Token": self.token, "Accept": "text/event-stream"} | more.pop("headers", {})
        return self.session.request(method, self.url(path), headers=headers, **more)

    def new_token(self, *scopes: str) -> str:
        return self.tokens.new(scopes)[1]


OpenLink = Callable[..., AbstractAsyncContextManager[Link]]


@pytest.fixture
def bus() -> ScriptedBus:
    """Both dormant actors exist, and madre says so."""
    return ScriptedBus({LIST: listed(*(actor(name) for name in HOUSE))})


@pytest.fixture
async def cache(redis_server: Any) -> AsyncIterator[Cache]:
    async with open_cache(redis_server.url) as made:
        yield made


@pytest.fixture
def open_link(tmp_path: Path, bus: ScriptedBus, cache: Cache) -> OpenLink:
    """Open a gateway with other settings than the usual ones."""

    @asynccontextmanager
    async def opened(*, routes: tuple[Route, ...] = TABLE, **settings: Any) -> AsyncIterator[Link]:
        told = {"home": tmp_path, "bind": "127.0.0.1:0", "control_bind": "127.0.0.1:0", "stop_s": 2.0} | settings
        tokens, log = TokenFile(tmp_path), ScriptedLog()
        token = tokens.new()[1]
        parts = make_parts(bus, cache, log, HttpSettings(**told), routes=routes)
        async with serving(parts) as bound, aiohttp.ClientSession() as session:
            yield Link(parts, bound, bus, log, session, tokens, token)

    return opened


@pytest.fixture
async def link(open_link: OpenLink) -> AsyncIterator[Link]:
    async with open_link() as made:
        yield made
