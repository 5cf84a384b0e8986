"""Actors for descriptions: those of the house, and one whose card has everything that a card can have."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bus.actor import Actor
from bus.cards import card_of
from schemas.card import Card
from schemas.message import Event, Message, Nothing, Request, Secret, Streamed

HOSTILE = "<script>alert(1)</script> & \"quotes\" 'and' `ticks`"


class Cat(Message):
    kind: Literal["cat"]
    lives: int = Field(default=9, ge=1, le=9)


class Dog(Message):
    kind: Literal["dog"]
    name: str = Field(pattern=r"^[A-Z][a-z]+$", description=HOSTILE)


class Tree(Message):
    """Knows itself."""

    label: str
    below: list[Tree] = []


class Said(Message):
    piece: str


class Told(Message):
    whole: str


class Tell(Streamed[Said, Told]):
    """Tell of an animal.

    What stands here is not the summary.
    """

    subject: ClassVar = "vx11.keen.tell"
    timeout: ClassVar = 12.5
    scope: ClassVar = "chat"
    animal: Annotated[Cat | Dog, Field(discriminator="kind")]
    tree: Tree | None = None
    word: Secret = ""
    default: int = 3
    size: tuple[int, int] = (1, 2)


class Forget(Request[Nothing]):
    subject: ClassVar = "vx11.keen.forget"
    idempotent: ClassVar = True
    passive: ClassVar = True


class Sung(Event):
    """A song is over."""

    subject: ClassVar = "vx11.events.bird.sung"
    severity: ClassVar = "warning"
    song: str
    notes: list[int] = Field(default=[], max_length=5)


class Flew(Event):
    subject: ClassVar = "vx11.events.bird.flew"
    tree: Tree


keen = Actor("keen", summary=HOSTILE, idle_after=7.0)


@keen.handles
async def tell(request: Tell) -> AsyncIterator[Said | Told]:
    yield Told(whole=str(request))


@keen.handles
async def forget(request: Forget) -> Nothing:
    return Nothing()


@keen.on(durable=True)
async def remember(event: Sung) -> None: ...


@keen.on
async def watch(event: Flew) -> None: ...


KEEN = card_of(keen, card_version="abc")
BROKEN = Card(name="broken", summary="", error="ImportError: <no such thing>")


def own_cards() -> list[Card]:
    """Of the actors that VX11 comes with."""
    return [card_of(importlib.import_module(f"actors.{name}.actor").actor) for name in ("madre", "operator_backend", "switch")]
