"""Any verb of any actor and any event, through the door, checked by the actor's card."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from pydantic_core import from_json

from bus import cloudevents
from bus.redaction import hidden_by
from gateway.http import cloud, keeper
from gateway.http.body import message_of
from gateway.http.cards import Known
from gateway.http.exchange import Exchange
from gateway.http.streams import relay
from gateway.known import KEEPER, known_events
from schemas.card import Verb
from schemas.errors import Failure
from schemas.message import ACTOR_NAME, RESERVED, VERB_NAME, Event

log = logging.getLogger("vx11.gateway")

EMPTY = b"{}"
TOLD_BY_MADRE = frozenset({"power", "madre"})
ONLY_HOSTS = ("madre", "register")
"""The server lets the gateway publish none of these; it would be told by silence."""
OBJECT: dict[str, Any] = {"type": "object"}
"""What every event is."""


class Published(BaseModel):
    """`sequence`: the event's number in the log, once it is on disk. `checked`: its form is known, by its class or a card."""

    subject: str
    sequence: int
    checked: bool
    correlation_id: str


async def call(x: Exchange) -> bytes | web.StreamResponse:
    """The verb's answer as it came. The token needs the scope of the verb, too."""
    actor, name = x.named["actor"], x.named["verb"]
    if (actor, name) == ONLY_HOSTS:
        raise Failure("forbidden", "what can be started is the word of hosts")
    if actor == KEEPER:
        return await keeper.ask(x, name)
    known = await x.parts.cards.get(actor)
    try:
        verb = _fitting(x, known, name)
    except Failure:  # the actor may be another one since its card was read
        anew = await x.parts.cards.get(actor, anew=True)
        if anew is known:
            raise
        verb = _fitting(x, anew, name)
    body = x.body or EMPTY
    if verb.chunk is not None and x.wants_stream():
        return await relay(x, verb.subject, body, timeout=verb.timeout)
    answer = await x.ask(verb.subject, body, timeout=verb.timeout, idempotent=verb.idempotent, passive=verb.passive)
    return answer.body


def _fitting(x: Exchange, known: Known, name: str) -> Verb:
    verb = known.verb(name)
    x.caller.needs(verb.scope)
    known.check(verb.subject, verb.request, x.body)
    return verb


async def publish(x: Exchange) -> Published:
    """Store an event. One that an actor listens for must fit what its card says of it."""
    actor, fact = x.named["actor"], x.named["fact"]
    subject = event_subject(actor, fact)
    headers, message_id = _as_cloudevent(x, subject)
    origin = await x.parts.cards.get(actor)
    origin.check("", OBJECT, x.body)
    schemas = await _check_event(x, subject, origin)
    body = _without_secrets(x.body or EMPTY, schemas)
    sequence = await x.parts.bus.publish_raw(subject, body, message_id=message_id, headers=headers)
    x.parts.meter.events += 1
    return Published(subject=subject, sequence=sequence, checked=bool(schemas), correlation_id=x.correlation_id)


def _as_cloudevent(x: Exchange, subject: str) -> tuple[Mapping[str, str], str]:
    """The headers and the id of what is published; of a CloudEvent, which `x.body` then is the data of, its own.

    Raises Failure("invalid" | "too_large").
    """
    if (event := cloud.sent(x.request.headers, x.body)) is None:
        return x.headers(), x.request_id
    x.body = event.data
    x.honour(event.attributes.get("vxcorrelationid"))
    return {**x.headers(), **cloudevents.binary(event)}, x.request_id or cloud.identity(subject, event)


async def _check_event(x: Exchange, subject: str, origin: Known) -> list[dict[str, Any]]:
    """The schemas of its form, none when nobody knows it.

    Raises Failure("invalid") when it does not fit its class, or a card that hears it.
    """
    found: list[dict[str, Any]] = []
    if (kind := known_events().get(subject)) is not None:
        message_of(kind, x.body)
        found.append(_schema(kind))
    for known in (origin, *await _others(x, origin)):
        if (one := known.heard(subject)) is not None:
            known.check(subject, one.schema_ or OBJECT, x.body)
            found.append(one.schema_ or OBJECT)
    return found


@cache
def _schema(kind: type[Event]) -> dict[str, Any]:
    return kind.model_json_schema()


def _without_secrets(body: bytes, schemas: list[dict[str, Any]]) -> bytes:
    """What may be stored of an event: the body as it came, unless a field of it is marked `Secret`."""
    made = document = from_json(body)
    for schema in schemas:
        made = hidden_by(schema, made)
    return body if made == document else json.dumps(made).encode()


async def _others(x: Exchange, origin: Known) -> list[Known]:
    """The cards of all other actors, as far as they can be had."""
    found: list[Known] = []
    for actor in (await x.parts.observed.look()).actors:
        if actor.name == origin.card.name:
            continue
        try:
            found.append(await x.parts.cards.get(actor.name, version=actor.card_version))
        except Failure as failure:
            log.info("the card of %s is not at hand: %s", actor.name, failure)
    return found


def event_subject(actor: str, fact: str) -> str:
    """The subject of an event that comes through the door. Raises Failure: no address, or not the door's to tell."""
    if actor in TOLD_BY_MADRE:
        raise Failure("forbidden", f"{actor} events are told by madre and the hosts only")
    if not ACTOR_NAME.fullmatch(actor) or actor in RESERVED:
        raise Failure("not_found", f"there is no actor {actor!r}", actor=actor)
    if not VERB_NAME.fullmatch(fact):
        raise Failure("not_found", f"{fact!r} is no fact, which matches {VERB_NAME.pattern}", fact=fact)
    return f"vx11.events.{actor}.{fact}"
