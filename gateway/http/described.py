"""The AsyncAPI description as it is served: as JSON, and as a page. Cards are read; nobody is woken."""

from __future__ import annotations

import asyncio
import json
import logging

from gateway.http.answer import COMMON, Whole, json_response
from gateway.http.asyncapi import Description
from gateway.http.asyncapi_page import CONTENT_SECURITY_POLICY, page
from gateway.http.exchange import Exchange
from gateway.http.fits import Schema
from gateway.http.last_described import Described
from gateway.known import known_events
from schemas.card import Card
from schemas.errors import Failure

log = logging.getLogger("vx11.gateway")

ALWAYS = ("madre",)
"""Those that have a card and are not among the actors that may sleep."""


async def asyncapi(x: Exchange) -> Whole:
    """Raises Failure("unavailable") when madre has never yet said what there is."""
    return json_response(json.dumps(await _document(x)).encode())


async def asyncapi_page(x: Exchange) -> Whole:
    """The same for people, without a script and without anything from elsewhere."""
    headers = {**COMMON, "Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": CONTENT_SECURITY_POLICY}
    return Whole(page(await _document(x)).encode(), headers)


async def _document(x: Exchange) -> Schema:
    cards, missing = await _cards(x)
    if not x.parts.described.is_of(cards, missing):
        made = Description(known_events(), host=x.parts.bus_at)
        for card in cards:
            made.add(card)
            await asyncio.sleep(0)  # a card takes milliseconds, which others need not wait for
        x.parts.described = Described(cards, missing, made.finished(missing))
    return x.parts.described.document


async def _cards(x: Exchange) -> tuple[tuple[Card, ...], tuple[str, ...]]:
    """All that can be had, and the names of those that cannot. Raises Failure("unavailable")."""
    look = await x.parts.observed.look()
    if not look.actors_at:
        raise Failure("unavailable", "what actors there are is not known before madre has answered once", retry_after=1)
    cards: list[Card] = []
    missing: list[str] = []
    for name, version in (*((one, "") for one in ALWAYS), *((actor.name, actor.card_version) for actor in look.actors)):
        try:
            known = await x.parts.cards.get(name, version=version)
            if version and known.card.card_version != version:
                known = await x.parts.cards.get(name, anew=True)
            cards.append(known.card)
        except Failure as failure:
            log.info("the card of %s is not at hand: %s", name, failure)
            missing.append(name)
    return tuple(cards), tuple(missing)
