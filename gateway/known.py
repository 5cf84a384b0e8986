"""The messages of the built-in schemas: every event by its subject, and the verbs of the keeper, which has no card."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

import schemas
from schemas.message import Event, Message, Request

KEEPER = "keeper"

M = TypeVar("M", bound=Message)


@cache
def known_events() -> Mapping[str, type[Event]]:
    """Every event class by its subject."""
    return {kind.subject: kind for kind in _all(Event) if "subject" in kind.__dict__}


@cache
def keeper_verbs() -> Mapping[str, type[Request[Any]]]:
    """Every request that is addressed to the keeper, by its verb."""
    told: Iterator[type[Request[Any]]] = _all(Request)
    return {kind.verb_name(): kind for kind in told if kind.__dict__.get("subject", "").startswith(f"vx11.{KEEPER}.")}


def _all(base: type[M]) -> Iterator[type[M]]:
    for module in pkgutil.iter_modules(schemas.__path__):
        importlib.import_module(f"schemas.{module.name}")
    return _below(base)


def _below(kind: type[M]) -> Iterator[type[M]]:
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)
