"""What a route is, and what a table of them must hold: default deny."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel

from gateway.http import plain
from gateway.http.answer import Response
from gateway.http.body import message_of
from gateway.http.exchange import EVENT_STREAM, Exchange
from gateway.http.manner import OWN, Manner
from gateway.http.settings import Misconfigured
from gateway.tokens import SCOPES
from schemas.errors import Failure
from schemas.message import ACTOR_NAME, Request

OPEN = "open"
"""The scope of what needs no token."""

Compose = Callable[[Exchange], Awaitable[BaseModel | bytes | Response]]


@dataclass(frozen=True)
class Route:
    """One address. Without a scope the gateway does not start."""

    method: str
    path: str
    name: str
    scope: str
    compose: Compose
    summary: str
    answers: Any = None
    """The class of the 200 body; None for what is no JSON, or any JSON."""
    media: tuple[str, ...] = ("application/json",)
    takes: type[BaseModel] | None = None
    """The class of the body."""
    any_object: bool = False
    """The body is some object, which a card judges."""
    fixed: frozenset[str] = frozenset()
    """Fields of `takes` that come from the path or from here, not from the body."""
    query: type[BaseModel] | None = None
    fails: tuple[str, ...] = ()
    """Codes beyond those that every route has."""
    control: bool = False
    """Also on the loopback alias of the control plane."""
    only_looks: Callable[[bytes], bool] | None = None
    """Bodies with which a POST needs no token on the alias."""
    stores: bool = False
    """What is sent there has to be stored: while the disk has too little room it is refused."""
    message: type[Request[Any]] | None = None
    """What is asked of the bus, when that is all."""
    manner: Manner = OWN
    """How its failures are told."""
    deep: bool = False
    """Its parameter may have slashes in it."""

    @property
    def is_open(self) -> bool:
        return self.scope == OPEN

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.path)

    @property
    def methods(self) -> tuple[str, ...]:
        """HEAD is GET without the body; of an event stream nothing would be left."""
        return ("GET", "HEAD") if self.method == "GET" and self.media != (EVENT_STREAM,) else (self.method,)

    @property
    def has_body(self) -> bool:
        return self.method in ("POST", "PUT")

    def named(self, path: str) -> dict[str, str] | None:
        """The parameters in `path`, None when it is another address."""
        found = self._form.fullmatch(path)
        return {name: unquote(text) for name, text in found.groupdict().items()} if found else None

    @cached_property
    def _form(self) -> re.Pattern[str]:
        part = ".+" if self.deep else "[^/]+"
        return re.compile(re.sub(r"\\{(\w+)\\}", rf"(?P<\1>{part})", re.escape(self.path)))


def asks(
    method: str,
    path: str,
    name: str,
    message: type[Request[Any]],
    summary: str,
    *,
    fixed: Mapping[str, Any] | None = None,
    shape: Callable[[Any], BaseModel] | None = None,
    answers: type[BaseModel] | None = None,
    scope: str = "power",
    control: bool = True,
) -> Route:
    """A route that is one request on the bus: path and body become its fields, its reply the body.

    `fixed` fields are always the same; `shape` turns the reply into the class `answers`.
    """
    given = dict(fixed or {})
    parameters = frozenset(re.findall(r"{(\w+)}", path))

    async def compose(x: Exchange) -> BaseModel | bytes:
        asked = message_of(message, x.body, given | _named(x))
        if shape is None:
            return (await x.send(asked)).body
        return shape(await x.reply(asked))

    return Route(
        method,
        path,
        name,
        scope,
        compose,
        summary,
        answers=answers or message.reply_type(),
        takes=message if method != "GET" else None,
        fixed=parameters | frozenset(given),
        fails=("not_found", "conflict", "crashed", "waking", "off_by_policy", "storage_full"),
        control=control,
        message=message,
    )


def _named(x: Exchange) -> dict[str, str]:
    """The fields in the path. Raises Failure("not_found") for a name that no actor can have."""
    found = dict(x.named)
    for text in found.values():
        if not ACTOR_NAME.fullmatch(text):
            raise Failure("not_found", f"there is no actor {text!r}", actor=text)
    return found


JSON_OR_STREAM = ("application/json", EVENT_STREAM)
ACTOR_FAILS = ("not_found", "conflict", "crashed", "waking", "off_by_policy", "not_installed", "over_budget", "storage_full")


def nowhere(routes: tuple[Route, ...], manner: Manner = OWN) -> Route:
    """What takes the requests that no route of a door has taken, in an area with this manner."""
    elsewhere = plain.nowhere(routes)

    async def compose(x: Exchange) -> Response:
        return manner.preflight(x) or await elsewhere(x)

    return Route("*", "*", "nowhere", OPEN, compose, "No such address.", manner=manner)


def check(routes: tuple[Route, ...]) -> None:
    """Default deny. Raises Misconfigured for a route without a scope that exists, and for two that are alike."""
    for route in routes:
        if route.scope != OPEN and route.scope not in SCOPES:
            raise Misconfigured(f"the route {route.method} {route.path} has no scope: {route.scope!r}")
    for kind in ("name", "address"):
        seen = [route.name if kind == "name" else f"{route.method} {route.path}" for route in routes]
        if twice := sorted({one for one in seen if seen.count(one) > 1}):
            raise Misconfigured(f"two routes have the same {kind}: {', '.join(twice)}")
