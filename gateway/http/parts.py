"""What the gateway is made of, and the little that it asks of the bus, the cache and the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from bus.space import Reserve
from gateway.http.guard import KeyRing
from gateway.http.hops import Hops
from gateway.http.last_described import Described
from gateway.http.limits import Connections, Places, Rates, Streams
from gateway.http.metrics import Meter
from gateway.http.settings import HttpSettings
from gateway.usage import Costs
from schemas.message import Message, Request

if TYPE_CHECKING:
    from gateway.http.cards import Cards
    from gateway.http.observed import Observed
    from gateway.http.openai.models import Told
    from gateway.http.providers import ProvidersTold
    from gateway.http.routes import Route

R = TypeVar("R", bound=Message)


class Answered(Protocol):
    """An answer of the bus: one JSON document and its headers."""

    @property
    def body(self) -> bytes: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class BusLike(Protocol):
    """The part of `bus.Bus` that the gateway uses."""

    @property
    def connected(self) -> bool: ...

    async def request(
        self,
        message: Request[R],
        *,
        timeout: float | None = None,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> R: ...

    async def ask(
        self,
        subject: str,
        body: bytes,
        *,
        timeout: float,
        idempotent: bool = False,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answered: ...

    def ask_stream(
        self,
        subject: str,
        body: bytes,
        *,
        timeout: float,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Answered]: ...

    async def publish_raw(
        self, subject: str, body: bytes, *, message_id: str = "", headers: Mapping[str, str] | None = None
    ) -> int: ...


class CacheLike(Protocol):
    """The part of `bus.cache.Cache` that the gateway uses."""

    async def ping(self) -> float: ...
    async def get(self, key: str) -> str | None: ...
    async def put(self, key: str, value: str, *, ttl: float | None = None) -> None: ...
    async def take(self, key: str) -> str | None: ...


class StoredLike(Protocol):
    """One stored event. `at`: seconds since the epoch."""

    @property
    def sequence(self) -> int: ...
    @property
    def subject(self) -> str: ...
    @property
    def at(self) -> float: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


class EventLog(Protocol):
    """The stored events, in order. Every method raises Failure("unavailable") when the log cannot be read."""

    async def bounds(self) -> tuple[int, int]:
        """The first and the last sequence; (last + 1, last) when it is empty."""
        ...

    async def read(self, after: int, limit: int) -> Sequence[StoredLike]:
        """At most `limit` events with a sequence above `after`, oldest first."""
        ...

    def follow(self, after: int) -> AsyncGenerator[StoredLike, None]:
        """What is stored above `after`, and then what comes, without an end."""
        ...


@dataclass
class Parts:
    """Made by `app.make_parts`; one for both doors."""

    bus: BusLike
    cache: CacheLike
    log: EventLog
    settings: HttpSettings
    keys: KeyRing
    observed: Observed
    cards: Cards
    meter: Meter
    rates: Rates
    places: Places
    streams: Streams
    reserve: Reserve
    ports: dict[str, int]
    """The doors as they are bound: of `tentaculo_link`, and of `madre` when the control alias is open."""
    connections: Connections
    routes: tuple[Route, ...] = ()
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    started_at: float = field(default_factory=time.time)
    documents: dict[str, bytes] = field(default_factory=dict)
    """What is made once and served often, by name."""
    bus_at: str = "127.0.0.1:4222"
    """Host and port of the NATS server, for those who read the description."""
    described: Described = field(default_factory=Described)
    told: Told | None = None
    """The models that switch told of last."""
    providers: ProvidersTold | None = None
    """And the providers."""
    costs: Costs = field(default_factory=Costs)
    hops: Hops | None = None
    """Writes the records of what was sent on; none without a connection of its own."""

    @property
    def guarded(self) -> bool:
        return self.settings.auth_mode == "token"
