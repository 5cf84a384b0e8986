"""The card of an actor: what it says of itself, and the version that changes with its source."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import pytest

from bus import Actor
from bus.cards import card_of, loaded_files, version_of
from schemas.card import Card
from schemas.message import Event, Message, Request, Secret, Streamed


class Loaf(Message):
    grams: int


class Crumb(Message):
    n: int


class Bake(Request[Loaf]):
    """Bake a loaf."""

    subject: ClassVar = "vx11.baker.bake"
    timeout: ClassVar = 12.0
    idempotent: ClassVar = True
    scope: ClassVar = "chat"

    grams: int = 500
    password: Secret = ""


class Slice(Streamed[Crumb, Loaf]):
    subject: ClassVar = "vx11.baker.slice"
    passive: ClassVar = True


class Sold(Event):
    subject: ClassVar = "vx11.events.shop.sold"

    number: int


@pytest.fixture
def actor() -> Actor:
    actor = Actor("baker", summary="bakes", idle_after=7, version="2.0.1")

    @actor.handles
    async def slice_(request: Slice) -> AsyncIterator[Crumb | Loaf]:
        yield Loaf(grams=1)

    @actor.handles
    async def bake(request: Bake) -> Loaf: ...

    @actor.on(durable=True)
    async def count(event: Sold) -> None: ...

    @actor.on
    async def look(event: Sold) -> None: ...

    return actor


def test_the_card_says_what_can_be_asked_and_how(actor):
    card = card_of(actor, card_version="abc", built_in=False)
    assert (card.name, card.summary, card.version, card.idle_after) == ("baker", "bakes", "2.0.1", 7)
    assert (card.card_version, card.built_in, card.error) == ("abc", False, "")
    bake, slice_ = card.verbs
    assert (bake.name, bake.subject, bake.summary) == ("bake", "vx11.baker.bake", "Bake a loaf.")
    assert (bake.timeout, bake.idempotent, bake.scope, bake.passive, bake.secret) == (12.0, True, "chat", False, ["password"])
    assert bake.request["properties"]["grams"] == {"default": 500, "title": "Grams", "type": "integer"}
    assert bake.reply["required"] == ["grams"]
    assert bake.chunk is None
    assert slice_.passive
    assert slice_.chunk["required"] == ["n"]


def test_the_card_says_what_is_heard_and_by_which_consumer(actor):
    assert [(heard.subject, heard.durable) for heard in card_of(actor).events] == [
        ("vx11.events.shop.sold", "baker__count"),
        ("vx11.events.shop.sold", ""),
    ]


def test_the_card_travels(actor):
    card = card_of(actor)
    assert Card.model_validate(json.loads(card.model_dump_json())) == card
    assert card.verb("bake") == card.verbs[0]
    assert card.verb("burn") is None


def test_the_version_changes_with_every_change_of_the_source(tmp_path):
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("a = 1")
    two.write_text("b = 1")
    versions = [version_of([one, two])]
    two.write_text("b = 2")
    versions.append(version_of([one, two]))
    two.rename(tmp_path / "three.py")
    versions.append(version_of([one, tmp_path / "three.py"]))
    versions.append(version_of([one, two]))
    versions.append(version_of([one]))
    assert len(set(versions)) == len(versions)
    assert version_of([one]) == versions[-1]


def test_the_source_of_an_actor_is_all_that_was_imported_below_the_roots():
    files = loaded_files([Path(__file__).parents[2]])
    assert Path(__file__) in files
    assert Path(card_of.__code__.co_filename) in files
    assert Path(json.__file__) not in files
    assert loaded_files([Path("/nowhere")]) == []
