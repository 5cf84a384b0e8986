"""The route table: every address of the gateway, who may use it, and what answers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel

from gateway.http import calls, chat, events, intent, numbers, plain, power, sse, views
from gateway.http.answer import Response
from gateway.http.body import message_of
from gateway.http.exchange import EVENT_STREAM, Exchange
from gateway.http.settings import Misconfigured
from gateway.tokens import SCOPES
from schemas import madre
from schemas.errors import Failure
from schemas.message import ACTOR_NAME, Request
from schemas.operator_backend import ChatReply

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
    message: type[Request[Any]] | None = None
    """What is asked of the bus, when that is all."""

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
        return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.path)))


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


_JSON_OR_STREAM = ("application/json", EVENT_STREAM)
_ACTOR_FAILS = ("not_found", "conflict", "crashed", "waking", "off_by_policy", "not_installed", "storage_full")

_LOOKS = (
    Route("GET", "/health", "health", OPEN, plain.live, "The process lives.", plain.State, control=True),
    Route("GET", "/health/live", "health_live", OPEN, plain.live, "The process lives.", plain.State, control=True),
    Route("GET", "/health/ready", "health_ready", OPEN, plain.ready, "Requests get through.", plain.State, control=True),
    Route("GET", "/", "page", OPEN, plain.page, "What this is.", media=("text/plain",)),
    Route("GET", "/openapi.json", "openapi", OPEN, plain.openapi, "This description."),
    Route("GET", "/vx11/status", "vx11_status", OPEN, views.vx11_status, "How the whole is.", views.Vx11Status),
    Route(
        "GET",
        "/operator/api/status",
        "operator_status",
        "read",
        views.operator_status,
        "How each part is.",
        views.OperatorStatus,
    ),
    Route("GET", "/operator/api/config", "config", "read", plain.config, "Every effective setting.", plain.Config),
    Route(
        "GET",
        "/operator/api/metrics",
        "operator_metrics",
        "read",
        numbers.operator_metrics,
        "The numbers of now.",
        numbers.Metrics,
        query=numbers.MetricQuery,
    ),
    Route(
        "GET",
        "/operator/capabilities",
        "capabilities",
        "read",
        views.capabilities,
        "What can be used.",
        views.Capabilities,
    ),
    Route(
        "POST",
        "/operator/capabilities",
        "capabilities_post",
        "read",
        views.capabilities,
        "The same.",
        views.Capabilities,
    ),
    Route("GET", "/api/map", "map", "read", views.map_, "Who is there and who speaks with whom.", views.Map),
    Route(
        "GET",
        "/metrics",
        "metrics",
        "read",
        numbers.prometheus,
        "The numbers, for Prometheus.",
        media=("text/plain",),
        control=True,
    ),
)

_EVENTS = (
    Route(
        "GET",
        "/operator/api/events",
        "events",
        "read",
        sse.events,
        "What happened; as an event stream what happens.",
        events.EventPage,
        media=_JSON_OR_STREAM,
        query=events.EventQuery,
    ),
    Route(
        "POST",
        "/operator/api/events/sse-token",
        "sse_token",
        "read",
        sse.make_token,
        "A token for EventSource.",
        sse.SseToken,
    ),
    Route(
        "GET",
        "/operator/api/events/stream",
        "events_stream",
        OPEN,
        sse.stream_by_token,
        "What happens, for a one-use token.",
        media=(EVENT_STREAM,),
        query=sse.StreamQuery,
        fails=("auth_required", "forbidden"),
    ),
    Route(
        "POST",
        "/events/{actor}/{fact}",
        "publish",
        "command",
        calls.publish,
        "Publish an event.",
        calls.Published,
        any_object=True,
        fails=("not_found", "storage_full"),
    ),
)

_WORK = (
    Route(
        "POST",
        "/operator/api/chat",
        "chat",
        "chat",
        chat.chat,
        "Say something.",
        ChatReply,
        media=_JSON_OR_STREAM,
        takes=chat.ChatBody,
        fails=_ACTOR_FAILS,
    ),
    Route(
        "POST",
        "/vx11/intent",
        "intent",
        "chat",
        intent.submit,
        "Submit work.",
        intent.Intent,
        takes=intent.IntentBody,
        fails=_ACTOR_FAILS,
    ),
    Route(
        "GET",
        "/vx11/result/{id}",
        "result",
        "chat",
        intent.result,
        "What became of it.",
        intent.Intent,
        fails=("not_found",),
    ),
    Route(
        "POST",
        "/call/{actor}/{verb}",
        "call",
        "command",
        calls.call,
        "Ask any verb of any actor.",
        any_object=True,
        media=_JSON_OR_STREAM,
        fails=_ACTOR_FAILS,
    ),
)

_POWER = (
    Route(
        "GET",
        "/madre/power/status",
        "power_status",
        "power",
        power.status,
        "Who is awake.",
        power.PowerStatus,
        control=True,
    ),
    Route(
        "GET",
        "/madre/power/policy/solo_madre/status",
        "policy_status",
        "power",
        power.policy_status,
        "Whether only the three are awake.",
        power.PolicyStatus,
        control=True,
    ),
    asks(
        "POST",
        "/madre/power/policy/solo_madre/apply",
        "policy_apply",
        madre.ApplyPolicy,
        "Put all others to sleep.",
        fixed={"policy": "solo_madre"},
    ),
    *(
        Route(
            "POST",
            path,
            name,
            "power",
            power.post_task,
            "Look after the stores.",
            power.PostTask,
            takes=madre.RunMaintenance,
            fails=("crashed", "storage_full"),
            control=True,
            only_looks=power.only_looks,
        )
        for path, name in (("/madre/power/maintenance/post_task", "post_task"), ("/madre/post_task", "post_task_alias"))
    ),
    asks("POST", "/madre/power/service/{name}/wake", "wake", madre.Wake, "Wake an actor."),
    asks("POST", "/madre/power/service/{name}/sleep", "sleep", madre.Sleep, "Let an actor finish and sleep."),
    asks("POST", "/madre/power/service/{name}/restart", "restart", madre.Restart, "Sleep, then wake."),
    asks("GET", "/madre/power/window", "windows", madre.ListWindows, "Open windows."),
    asks(
        "POST",
        "/madre/power/window/open",
        "window_open",
        madre.OpenWindow,
        "Wake services and keep them awake.",
        shape=power.opened,
        answers=power.WindowBody,
    ),
    asks(
        "POST",
        "/madre/power/window/close",
        "window_close",
        madre.CloseWindow,
        "Let the services of a window sleep.",
        shape=power.closed,
        answers=power.WindowBody,
    ),
    asks("PUT", "/madre/power/gate/{name}", "gate", madre.SetGate, "Say whether an actor may wake."),
)

TABLE: tuple[Route, ...] = _LOOKS + _EVENTS + _WORK + _POWER


def nowhere(routes: tuple[Route, ...]) -> Route:
    """What takes the requests that no route of a door has taken."""
    return Route("*", "*", "nowhere", OPEN, plain.nowhere(routes), "No such address.")


def check(routes: tuple[Route, ...]) -> None:
    """Default deny. Raises Misconfigured for a route without a scope that exists, and for two that are alike."""
    for route in routes:
        if route.scope != OPEN and route.scope not in SCOPES:
            raise Misconfigured(f"the route {route.method} {route.path} has no scope: {route.scope!r}")
    for kind in ("name", "address"):
        seen = [route.name if kind == "name" else f"{route.method} {route.path}" for route in routes]
        if twice := sorted({one for one in seen if seen.count(one) > 1}):
            raise Misconfigured(f"two routes have the same {kind}: {', '.join(twice)}")
