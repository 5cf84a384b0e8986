"""What an actor has open while it is awake: opened in order, closed in reverse, given by type."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from bus import Actor, Call, Settings
from bus.call import call_from
from bus.resources import Resources
from schemas.message import Nothing, Request


class Cellar: ...


class Oven:
    def __init__(self, cellar: Cellar) -> None:
        self.cellar = cellar


class Bake(Request[Nothing]):
    subject: ClassVar = "vx11.baker.bake"


class House:
    """An actor whose resources write down what happens to them; `broken` names the one that cannot be opened or closed."""

    def __init__(self, broken: str = "") -> None:
        self.told: list[str] = []
        self.actor = actor = Actor("baker", summary="bakes")

        @actor.resource
        async def cellar() -> AsyncIterator[Cellar]:
            self.told.append("open cellar")
            yield Cellar()
            self.told.append("close cellar")

        @actor.resource
        async def oven(cellar: Cellar) -> AsyncIterator[Oven]:
            if broken == "open":
                raise OSError("no gas")
            self.told.append("open oven")
            yield Oven(cellar)
            self.told.append("close oven")
            if broken == "close":
                raise OSError("it is stuck")

        @actor.handles
        async def bake(request: Bake, oven: Oven, call: Call) -> Nothing:
            return Nothing()


async def test_they_are_opened_in_the_order_of_declaration_and_closed_in_reverse():
    house = House()
    resources = Resources(house.actor, {})
    await resources.open()
    await resources.close()
    assert house.told == ["open cellar", "open oven", "close oven", "close cellar"]


async def test_a_handler_gets_what_it_wants_by_type():
    house = House()
    resources = Resources(house.actor, {})
    await resources.open()
    circumstances = call_from(None)
    given = resources.give(house.actor.requests["bake"].wants, circumstances)
    await resources.close()
    assert given["call"] is circumstances
    assert isinstance(given["oven"].cellar, Cellar)


async def test_when_one_cannot_be_opened_those_that_are_open_are_closed():
    house = House(broken="open")
    with pytest.raises(OSError, match="no gas"):
        await Resources(house.actor, {}).open()
    assert house.told == ["open cellar", "close cellar"]


async def test_one_that_cannot_be_closed_does_not_keep_the_others_open():
    house = House(broken="close")
    resources = Resources(house.actor, {})
    await resources.open()
    with pytest.raises(OSError, match="it is stuck"):
        await resources.close()
    assert house.told[-1] == "close cellar"


def test_what_nobody_makes_is_told_before_anything_is_opened():
    actor = Actor("baker", summary="bakes")

    @actor.handles
    async def bake(request: Bake, oven: Oven) -> Nothing:
        return Nothing()

    with pytest.raises(TypeError, match=r"baker\.bake wants oven"):
        Resources(actor, {}).check()


def test_a_resource_that_wants_what_nobody_makes_is_told_too():
    actor = Actor("baker", summary="bakes")

    @actor.resource
    async def oven(cellar: Cellar) -> AsyncIterator[Oven]:
        yield Oven(cellar)

    with pytest.raises(TypeError, match=r"baker\.Oven wants cellar"):
        Resources(actor, {}).check()


def test_what_is_given_needs_no_resource():
    actor = Actor("baker", summary="bakes")

    @actor.resource
    async def oven(settings: Settings) -> AsyncIterator[Oven]:
        yield Oven(Cellar())

    Resources(actor, {Settings: object()}).check()


async def test_a_resource_that_wants_a_later_one_is_told_by_name():
    """Opened in the order of declaration: the cellar comes too late."""
    actor = Actor("baker", summary="bakes")

    @actor.resource
    async def oven(cellar: Cellar) -> AsyncIterator[Oven]:
        yield Oven(cellar)

    @actor.resource
    async def cellar() -> AsyncIterator[Cellar]:
        yield Cellar()

    with pytest.raises(TypeError, match=r"resource Oven wants .*Cellar"):
        await Resources(actor, {}).open()
