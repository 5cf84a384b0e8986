"""The running system as `doctor --contract` examines it: its gateway, its bus, and one chat that goes through both."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp

from bus.client import Bus
from gateway.cli.bus_remote import BusRemote, connected
from gateway.cli.home import Running, running
from gateway.cli.http_remote import TOKEN_HEADER
from gateway.tokens import SCOPES, TokenFile
from schemas.errors import Failure

if TYPE_CHECKING:
    from bus.settings import Settings

TOKEN_LIVES_S = 600.0
HTTP_S = 70.0
"""A chat may take the 60 s that its class says; then the gateway answers `timeout` itself."""
RECORD_S = 3.0
"""Call records are sent after the answer, in batches of 0.2 s."""
LOOK_S = 0.05
SAID = "vx11 doctor asks: does a message go all the way?"
CORRELATION = "X-Correlation-Id"


@dataclass(frozen=True)
class Answered:
    """An HTTP answer; `body` is empty when it is no JSON object."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str]


@dataclass
class House:
    """Made by `open_house`. `records`, `activated`: what was heard on the bus since then."""

    run: Running
    bus: Bus
    http: aiohttp.ClientSession
    token: str
    records: list[dict[str, Any]] = field(default_factory=list)
    activated: list[str] = field(default_factory=list)
    _chat: asyncio.Task[Answered] | None = None
    session_id: str = field(default_factory=lambda: f"doctor-{secrets.token_hex(6)}")
    correlation_id: str = field(default_factory=lambda: f"doctor-{secrets.token_hex(12)}")

    @property
    def remote(self) -> BusRemote:
        return BusRemote(self.bus, self.run.nats_url)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        """One request to the gateway. `token`: another than the house's own; an empty one sends none."""
        sent = dict(headers or {})
        key = self.token if token is None else token
        if key:
            sent[TOKEN_HEADER] = key
        try:
            async with self.http.request(method, self.run.http_url.rstrip("/") + path, json=body, headers=sent) as response:
                return Answered(response.status, _object(await response.read()), response.headers)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Failure("unavailable", f"{method} {path}: {type(error).__name__}: {error}") from error

    async def chat(self) -> Answered:
        """One message through the gateway; the same answer for every check that asks."""
        if self._chat is None:
            body = {"message": SAID, "session_id": self.session_id}
            sent = self.ask("POST", "/operator/api/chat", body=body, headers={CORRELATION: self.correlation_id})
            self._chat = asyncio.create_task(sent)
        return await self._chat

    async def record(self, subject: str) -> dict[str, Any] | None:
        """The call record of this conversation for `subject`, once it has come; None when it does not."""

        def found() -> dict[str, Any] | None:
            mine = (one for one in self.records if one.get("correlation_id") == self.correlation_id)
            return next((one for one in mine if one.get("subject") == subject), None)

        await until(lambda: found() is not None, RECORD_S)
        return found()


async def until(condition: Callable[[], bool], timeout: float) -> bool:
    """Whether the condition came true within `timeout` seconds."""
    end = asyncio.get_running_loop().time() + timeout
    while not condition():
        if asyncio.get_running_loop().time() > end:
            return False
        await asyncio.sleep(LOOK_S)
    return True


@asynccontextmanager
async def open_house(settings: Settings) -> AsyncIterator[House]:
    """Connect to what runs on this home, with a token of its own that is revoked at the end.

    Raises Failure("unavailable") when nothing runs.
    """
    run = running(settings)
    if not run.http_url:
        raise Failure("unavailable", "the gateway is not running", next=[["vx11 logs tentaculo_link", "why"]])
    tokens = TokenFile(settings.home)
    token, text = tokens.new(SCOPES, ttl_s=TOKEN_LIVES_S, note="vx11 doctor --contract")
    clock = aiohttp.ClientTimeout(total=HTTP_S)
    try:
        async with (
            connected(run, settings) as bus,
            aiohttp.ClientSession(timeout=clock) as http,
        ):
            house = House(run, bus, http, text)
            await bus.listen("vx11.calls.*.*", lambda msg: house.records.append(_object(msg.data)))
            await bus.listen("vx11.events.power.activate.*", lambda msg: house.activated.append(msg.subject.split(".")[-1]))
            yield house
    finally:
        tokens.revoke(token.id)


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
