"""Any verb of any actor and any event, through the door, checked by the actor's card."""

from __future__ import annotations

import logging
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from gateway.http.body import message_of
from gateway.http.cards import Known
from gateway.http.events import known_events
from gateway.http.exchange import Exchange
from gateway.http.streams import relay
from schemas.card import Verb
from schemas.errors import Failure
from schemas.message import ACTOR_NAME, RESERVED, VERB_NAME

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
    origin = await x.parts.cards.get(actor)
    origin.check("", OBJECT, x.body)
    checked = await _check_event(x, subject, origin)
    sequence = await x.parts.bus.publish_raw(subject, x.body or EMPTY, message_id=x.request_id, headers=x.headers())
    x.parts.meter.events += 1
    return Published(subject=subject, sequence=sequence, checked=checked, correlation_id=x.correlation_id)


async def _check_event(x: Exchange, subject: str, origin: Known) -> bool:
    """Whether its form is known. Raises Failure("invalid") when it does not fit its class, or a card that hears it."""
    heard = (kind := known_events().get(subject)) is not None
    if kind is not None:
        message_of(kind, x.body)
    for known in (origin, *await _others(x, origin)):
        if (one := known.heard(subject)) is not None:
            known.check(subject, one.schema_ or OBJECT, x.body)
            heard = True
    return heard


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
