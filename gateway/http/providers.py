"""The providers of language models: what switch told of them last, and changing them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pydantic import BaseModel

from gateway.http.body import message_of
from gateway.http.exchange import Exchange
from gateway.http.observed import AWAKE
from gateway.moment import rfc3339
from schemas.errors import Failure
from schemas.message import Message
from schemas.switch import ListProviders, ProviderList, ProviderStatus, RemoveProvider, SetProvider


class Providers(BaseModel):
    """`observed_at`: when switch told this; null when it sleeps and has not told anything since the gateway started."""

    providers: list[ProviderStatus]
    observed_at: str | None


@dataclass(frozen=True)
class ProvidersTold:
    """What switch told last. `at`: seconds since the epoch."""

    providers: tuple[ProviderStatus, ...]
    at: float


async def list_providers(x: Exchange) -> Providers:
    """As switch says while it is awake, else what it said last: looking wakes nobody. Raises Failure."""
    told = await _told(x)
    if told is None:
        return Providers(providers=[], observed_at=None)
    return Providers(providers=list(told.providers), observed_at=rfc3339(told.at))


async def get_provider(x: Exchange) -> ProviderStatus:
    """One of them. Raises Failure: `not_found`, `unavailable` while nothing is known because switch sleeps."""
    told, name = await _told(x), x.named["name"]
    if told is None:
        raise Failure("unavailable", "switch sleeps and has told nothing yet; looking does not wake it, asking it something does")
    for one in told.providers:
        if one.name == name:
            return one
    raise Failure("not_found", f"there is no provider {name!r}", provider=name)


async def set_provider(x: Exchange) -> Message:
    """Wakes switch, which checks what is sent and writes it down."""
    reply = await x.reply(message_of(SetProvider, x.body, {"name": x.named["name"]}))
    x.parts.providers = None  # which is not so any more
    return reply


async def remove_provider(x: Exchange) -> Providers:
    reply = await x.reply(message_of(RemoveProvider, b"", {"name": x.named["name"]}))
    return _keep(x, reply)


async def _told(x: Exchange) -> ProvidersTold | None:
    look = await x.parts.observed.look()
    awake = any(actor.name == ListProviders.addressee() and actor.state in AWAKE for actor in look.actors)
    if not (look.known and awake):
        return x.parts.providers
    timeout, body = ListProviders.timeout, ListProviders().model_dump_json().encode()
    answer = await x.ask(ListProviders.subject, body, timeout=timeout, idempotent=True, passive=True)
    _keep(x, ProviderList.model_validate_json(answer.body))
    return x.parts.providers


def _keep(x: Exchange, told: Message) -> Providers:
    assert isinstance(told, ProviderList)
    kept = x.parts.providers = ProvidersTold(tuple(told.providers), time.time())
    return Providers(providers=list(kept.providers), observed_at=rfc3339(kept.at))
