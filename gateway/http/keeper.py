"""The keeper's verbs through the door: it has no card, being no actor, but its messages are known."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import schemas
from gateway.http.body import message_of
from gateway.http.exchange import Exchange
from schemas.errors import Failure
from schemas.message import Request

KEEPER = "keeper"


async def ask(x: Exchange, verb: str) -> bytes:
    """Its answer as it came. The token needs the scope of the verb, too."""
    kind = verbs().get(verb)
    if kind is None:
        raise Failure("not_found", f"the keeper has no verb {verb}", verbs=sorted(verbs()))
    x.caller.needs(kind.scope)
    return (await x.send(message_of(kind, x.body))).body


@cache
def verbs() -> Mapping[str, type[Request[Any]]]:
    """Every request of the built-in schemas that is addressed to it."""
    for module in pkgutil.iter_modules(schemas.__path__):
        importlib.import_module(f"schemas.{module.name}")
    return {kind.verb_name(): kind for kind in _below(Request) if kind.__dict__.get("subject", "").startswith(f"vx11.{KEEPER}.")}


def _below(kind: type[Request[Any]]) -> Iterator[type[Request[Any]]]:
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)
