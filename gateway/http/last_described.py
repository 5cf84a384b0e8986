"""The description that was made last, kept while the cards are the same."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field

from gateway.http.fits import Schema
from schemas.card import Card


@dataclass
class Described:
    """Of which cards, and which were not to be had."""

    cards: tuple[Card, ...] = ()
    missing: tuple[str, ...] = ()
    document: Schema = field(default_factory=dict)

    def is_of(self, cards: tuple[Card, ...], missing: tuple[str, ...]) -> bool:
        same = len(cards) == len(self.cards) and all(map(operator.is_, cards, self.cards))
        return bool(self.document) and same and missing == self.missing
