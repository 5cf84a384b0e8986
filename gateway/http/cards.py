"""The cards of actors, kept for a moment, so that a call is checked before it wakes anybody."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import SchemaValidator, ValidationError

from gateway.http.body import invalid
from gateway.http.fits import validator
from gateway.http.parts import BusLike
from schemas.card import Card, Heard, Verb
from schemas.errors import Failure
from schemas.madre import GetActor
from schemas.message import ACTOR_NAME

KEPT_S = 5.0
"""A card is asked for again after; before that only when what it says would refuse something."""
CARDS_MOST = 1_024
ASK_S = 2.0
DESCRIBE_S = 5.0


def describe_of(actor: str) -> Verb:
    """The verb that every actor has and no card names."""
    return Verb(
        name="describe", subject=f"vx11.{actor}.describe", timeout=DESCRIBE_S, idempotent=True, scope="read", passive=True
    )


@dataclass
class Known:
    """A card with its validators, made when first needed."""

    card: Card
    at: float
    _verbs: dict[str, Verb] | None = None
    _made: dict[str, SchemaValidator] = field(default_factory=dict)

    def verb(self, name: str) -> Verb:
        """Raises Failure("not_found"), and Failure("unavailable") for an actor that cannot be loaded."""
        if self._verbs is None:
            self._verbs = {verb.name: verb for verb in (describe_of(self.card.name), *self.card.verbs)}
        if (verb := self._verbs.get(name)) is None:
            if self.card.error:
                raise Failure("unavailable", f"{self.card.name} cannot be loaded: {self.card.error}", actor=self.card.name)
            verbs = ", ".join(v.name for v in self.card.verbs) or "none"
            raise Failure(
                "not_found",
                f"{self.card.name} has no verb {name}; it has {verbs}",
                actor=self.card.name,
                verb=name,
            )
        return verb

    def heard(self, subject: str) -> Heard | None:
        return next((heard for heard in self.card.events if heard.subject == subject), None)

    def check(self, key: str, schema: dict[str, Any], body: bytes) -> None:
        """Raises Failure("invalid") with the field when the body does not fit."""
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = validator(schema)
        try:
            made.validate_json(body or b"{}")
        except ValidationError as error:
            raise invalid(error) from None


class Cards:
    """`clock`: monotonic seconds."""

    def __init__(self, bus: BusLike, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._clock = clock
        self._known: dict[str, Known] = {}

    async def get(self, name: str, *, anew: bool = False, version: str = "") -> Known:
        """The card of an actor; the one last seen when madre does not answer. One with this `version` is fresh.

        Raises Failure("not_found"), or Failure("unavailable") when nobody can say.
        """
        if not ACTOR_NAME.fullmatch(name):
            raise Failure("not_found", f"there is no actor {name!r}", actor=name)
        known = self._known.get(name)
        if known and not anew and (self._clock() - known.at < KEPT_S or (version and version == known.card.card_version)):
            return known
        try:
            detail = await self._bus.request(GetActor(name=name), timeout=ASK_S)
        except Failure as failure:
            if failure.code == "not_found":
                self._known.pop(name, None)
                raise
            if known:
                return known
            raise Failure(
                "unavailable", f"the card of {name} has not been seen yet, and now: {failure.message}", retry_after=1
            ) from failure
        if known is None or known.card != detail.card:
            known = Known(detail.card, 0.0)
        known.at = self._clock()
        self._keep(name, known)
        return known

    def _keep(self, name: str, known: Known) -> None:
        self._known.pop(name, None)
        self._known[name] = known
        if len(self._known) > CARDS_MOST:
            self._known.pop(next(iter(self._known)))
