"""A card as madre keeps it: what she decides by, and the whole of it packed, because a thousand may sleep."""

from __future__ import annotations

import zlib

from pydantic import Field

from schemas.card import Card, Heard, Verb

_NONE_SET: set[str] = set()
"""Shared by all that is kept here: frozen messages never change it."""


class KeptCard(Card):
    """Without the schemas, which take ten times the memory of all else; `whole` unpacks them."""

    packed: bytes = Field(default=b"", exclude=True, repr=False)

    @classmethod
    def of(cls, card: Card) -> KeptCard:
        verbs = [_bare(verb, request={}, reply={}, chunk=None) for verb in card.verbs]
        events = [_bare(heard, schema_={}) for heard in card.events]
        packed = zlib.compress(card.model_dump_json().encode())
        return cls.model_construct(_NONE_SET, **{**dict(card), "verbs": verbs, "events": events, "packed": packed})

    def whole(self) -> Card:
        """The card as it was registered."""
        return Card.model_validate_json(zlib.decompress(self.packed))


def _bare(part: Verb | Heard, **without: object) -> Verb | Heard:
    return type(part).model_construct(_NONE_SET, **{**dict(part), **without})
