"""The declaration of an actor: what it registers, and each mistake that is told at import instead of at the first request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from bus import Actor, Bus, Call, Settings
from schemas.message import RESERVED, Event, Message, Request, Streamed


class Loaf(Message):
    grams: int = 0


class Crumb(Message):
    n: int = 0


class Bake(Request[Loaf]):
    subject: ClassVar = "vx11.baker.bake"


class Slice(Streamed[Crumb, Loaf]):
    subject: ClassVar = "vx11.baker.slice"


class Mill(Request[Loaf]):
    subject: ClassVar = "vx11.miller.mill"


class Sold(Event):
    subject: ClassVar = "vx11.events.shop.sold"


class Oven: ...


class Cellar: ...


@pytest.fixture
def actor() -> Actor:
    return Actor("baker", summary="bakes")


def test_a_handler_is_found_by_its_verb_and_stays_the_function_that_it_was(actor):
    """A unit test calls it as it stands."""

    async def anything(request: Bake, oven: Oven, bus: Bus, call: Call, settings: Settings) -> Loaf:
        return Loaf()

    assert actor.handles(anything) is anything
    handler = actor.requests["bake"]
    assert (handler.run, handler.message, handler.streams, handler.durable) == (anything, Bake, False, False)
    assert handler.wants == {"oven": Oven, "bus": Bus, "call": Call, "settings": Settings}


def test_a_generator_streams(actor):
    @actor.handles
    async def slice_(request: Slice) -> AsyncIterator[Crumb | Loaf]:
        yield Crumb()
        yield Loaf()

    assert actor.requests["slice"].streams


def test_a_streamed_request_may_be_answered_whole(actor):
    @actor.handles
    async def slice_(request: Slice) -> Loaf:
        return Loaf()

    assert not actor.requests["slice"].streams


async def no_annotation(request): ...


async def nothing() -> Loaf: ...


async def no_message(request: int) -> Loaf: ...


async def no_request(request: Loaf) -> Loaf: ...


async def others(request: Mill) -> Loaf: ...


async def wrong_reply(request: Bake) -> Crumb: ...


async def no_reply(request: Bake): ...


def no_coroutine(request: Bake) -> Loaf: ...


async def stream_of_what_has_none(request: Bake) -> AsyncIterator[Crumb | Loaf]:
    yield Loaf()


async def stream_of_other_pieces(request: Slice) -> AsyncIterator[Loaf]:
    yield Loaf()


async def stream_of_foreign_pieces(request: Slice) -> AsyncIterator[Oven | Loaf]:
    yield Loaf()


async def stream_without_annotation(request: Slice):
    yield Loaf()


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (no_annotation, "the first parameter needs a message class"),
        (nothing, "the first parameter needs a message class"),
        (no_message, "is no message class"),
        (no_request, "must be a Request, not Loaf"),
        (others, "addressed to miller, not to baker"),
        (wrong_reply, "return Loaf"),
        (no_reply, "return Loaf"),
        (no_coroutine, "must be `async def`"),
        (stream_of_what_has_none, "Bake is no Streamed request"),
        (stream_of_other_pieces, r"AsyncIterator\[Crumb \| Loaf\]"),
        (stream_of_foreign_pieces, r"AsyncIterator\[Crumb \| Loaf\]"),
        (stream_without_annotation, r"AsyncIterator\[Crumb \| Loaf\]"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_handler_is_refused_with_what_it_should_be(actor, function, told):
    with pytest.raises(TypeError, match=told):
        actor.handles(function)
    assert actor.requests == {}


def test_a_verb_has_one_handler(actor):
    async def one(request: Bake) -> Loaf: ...
    async def two(request: Bake) -> Loaf: ...

    actor.handles(one)
    with pytest.raises(TypeError, match="has a handler already"):
        actor.handles(two)


def test_events_are_heard_while_awake_or_durably(actor):
    @actor.on
    async def look(event: Sold) -> None: ...

    @actor.on()
    async def see(event: Sold) -> None: ...

    @actor.on(durable=True)
    async def count(event: Sold, oven: Oven) -> None: ...

    assert [(h.name, h.durable) for h in actor.events] == [("look", False), ("see", False), ("count", True)]
    assert [actor.durable_name(handler) for handler in actor.durables] == ["baker__count"]
    assert actor.events[2].wants == {"oven": Oven}


def test_only_events_are_heard_and_only_by_coroutines(actor):
    async def request(request: Bake) -> None: ...
    def plain(event: Sold) -> None: ...

    with pytest.raises(TypeError, match="must be an Event"):
        actor.on(request)
    with pytest.raises(TypeError, match="is a coroutine function"):
        actor.on(durable=True)(plain)
    assert actor.events == []


def test_resources_are_known_by_what_they_make_in_the_order_of_declaration(actor):
    @actor.resource
    async def cellar(settings: Settings) -> AsyncIterator[Cellar]:
        yield Cellar()

    @actor.resource
    async def oven(cellar: Cellar) -> AsyncIterator[Oven]:
        yield Oven()

    assert list(actor.resources) == [Cellar, Oven]
    assert actor.resources[Oven].wants == {"cellar": Cellar}


def test_a_resource_is_a_generator_that_says_what_it_makes(actor):
    async def coroutine() -> Oven: ...

    async def silent():
        yield Oven()

    def plain() -> AsyncIterator[Oven]: ...

    for function in (coroutine, silent, plain):
        with pytest.raises(TypeError, match="a resource is"):
            actor.resource(function)


def test_two_resources_of_one_type_would_be_a_guess(actor):
    async def one() -> AsyncIterator[Oven]:
        yield Oven()

    actor.resource(one)
    with pytest.raises(TypeError, match="two resources make a Oven"):
        actor.resource(one)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "ñ", "a*", ">", "$SRV", *sorted(RESERVED)])
def test_a_name_that_is_no_subject_token_or_is_taken_is_refused(name):
    with pytest.raises(TypeError, match="is no actor name"):
        Actor(name, summary="x")


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_an_actor_needs_time_to_be_idle(seconds):
    with pytest.raises(TypeError, match="idle_after"):
        Actor("baker", summary="x", idle_after=seconds)
