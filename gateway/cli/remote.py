"""The way to the system: the bus on this machine, or the gateway of another; commands do not care which."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from schemas.errors import Failure

if TYPE_CHECKING:
    from bus.settings import Settings
    from schemas.card import Card
    from schemas.message import Message, Request
    from schemas.usage import Usage

    R = TypeVar("R", bound=Message)
    K = TypeVar("K")

MADRE = "madre"


@dataclass(frozen=True)
class Reply:
    """A good answer, or a piece of one. `wake_ms`: how long the actor took to wake for it, 0 when it was awake."""

    document: dict[str, Any]
    wake_ms: int = 0
    last: bool = True


class Remote(Protocol):
    """What asks. Every method raises schemas.errors.Failure."""

    where: str
    """Address of what is asked, for messages."""
    conversation: str
    """The correlation id of all that is asked; empty for one of its own each time."""

    async def ask(self, subject: str, document: Mapping[str, Any], *, timeout: float, idempotent: bool = False) -> Reply:
        """One request, one answer within `timeout` seconds."""

    def stream(self, subject: str, document: Mapping[str, Any], *, timeout: float) -> AsyncIterator[Reply]:
        """The pieces as they come; the one with `last` set is the whole answer."""

    async def usage(self, days: int) -> Usage:
        """What the language models have cost in the last days. Nobody is asked, so nobody wakes."""


async def request(remote: Remote, message: Request[R], *, timeout: float | None = None) -> R:
    """The typed request. A reply that this version does not understand is `internal`."""
    kind = type(message)
    document = message.model_dump(mode="json", by_alias=True)
    reply = await remote.ask(kind.subject, document, timeout=timeout or kind.timeout, idempotent=kind.idempotent)
    try:
        read: R = kind.reply_type().model_validate(reply.document)  # type: ignore[assignment]
    except ValueError as error:
        raise Failure(
            "internal", f"the answer of {kind.subject} is not what this version of vx11 understands", why=str(error)
        ) from error
    return read


async def request_each(
    remote: Remote, of: Iterable[K], message: Callable[[K], Request[R]]
) -> tuple[list[R], list[tuple[K, Failure]]]:
    """One after the other; a failure does not keep the others from it. The replies, and who failed of what."""
    good: list[R] = []
    failed: list[tuple[K, Failure]] = []
    for one in of:
        try:
            good.append(await request(remote, message(one)))
        except Failure as failure:
            failed.append((one, failure))
    return good, failed


async def card_of(remote: Remote, actor: str) -> Card:
    """What an actor says of itself. madre is asked, so that nobody wakes; she describes herself, the keeper's verbs are known."""
    from gateway.known import KEEPER
    from schemas.card import DescribeReply
    from schemas.madre import GetActor

    if actor == KEEPER:
        return _card_of_the_keeper()
    if actor == MADRE:
        try:
            reply = await remote.ask("vx11.madre.describe", {}, timeout=GetActor.timeout, idempotent=True)
            return DescribeReply.model_validate(reply.document).card
        except Failure as failure:
            if failure.code != "not_found":  # a gateway passes on what is on a card, and describe is on none
                raise
    return (await request(remote, GetActor(name=actor))).card


def _card_of_the_keeper() -> Card:
    """It is no actor that madre could tell of."""
    from bus.cards import verb_of
    from gateway.known import KEEPER, keeper_verbs
    from schemas.card import Card

    return Card(name=KEEPER, summary="looks after the log", verbs=[verb_of(kind) for _, kind in sorted(keeper_verbs().items())])


def open_remote(settings: Settings) -> AbstractAsyncContextManager[Remote]:
    """`VX11_URL` names a gateway; else the bus of the VX11 that runs on this home."""
    if settings.get("VX11_URL"):
        from gateway.cli.http_remote import open_http

        return open_http(settings.get("VX11_URL"), settings.get("VX11_TOKEN"))
    from gateway.cli.bus_remote import open_bus

    return open_bus(settings)


def read_object(body: bytes | str, where: str) -> dict[str, Any]:
    """One JSON object. Raises Failure("internal") for anything else: then the other side is not what it should be."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Failure("internal", f"{where} answered something that is no JSON object")
    return document
