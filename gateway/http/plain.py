"""The small answers: health, configuration, the page at `/`, and what is said of an address that is none."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from pydantic import BaseModel

from bus.supervisor import VERSION
from gateway.http.answer import Whole, json_response, text_response
from gateway.http.exchange import Exchange
from gateway.moment import rfc3339
from schemas.errors import Failure

if TYPE_CHECKING:
    from gateway.http.routes import Route

PAGE = """VX11 {version}: one gateway, one bus, everything else asleep.

This is tentaculo_link, the gateway. The operator console is not built yet.

  GET  /vx11/status            how it is, without a token
  POST /operator/api/chat      say something
  POST /v1/chat/completions    the same for any OpenAI client: base_url=http://.../v1, the token as its key
  POST /call/{{actor}}/{{verb}}    ask any actor anything it answers
  GET  /operator/api/events    what happened; with Accept: text/event-stream what happens
  GET  /madre/power/status     who is awake, and why
  GET  /openapi.json           everything, exactly
  GET  /asyncapi               what can be said on the bus; /asyncapi.json for programs

All but the status and /health want the header X-VX11-Token. The first token is in tokens.env in the data folder.
"""


class State(BaseModel):
    status: str


class SettingLine(BaseModel):
    name: str
    value: str
    source: str


class ConfigData(BaseModel):
    """`solo_madre_default`: the policy in force is solo_madre; null while madre does not say."""

    single_entrypoint: bool
    entrypoint: str
    solo_madre_default: bool | None
    token_guard_enforced: bool
    correlation_id_enabled: bool
    endpoints: list[str]
    settings: list[SettingLine]
    timestamp: str


class Config(BaseModel):
    ok: bool
    data: ConfigData


async def live(_: Exchange) -> State:
    return State(status="ok")


async def ready(x: Exchange) -> State:
    """Raises Failure("unavailable") while requests would not get through."""
    if x.parts.stopping.is_set() or not x.parts.bus.connected:
        raise Failure("unavailable", "not ready", status="not_ready")
    return State(status="ready")


async def page(_: Exchange) -> Whole:
    return text_response(PAGE.format(version=VERSION))


async def openapi(x: Exchange) -> Whole:
    return json_response(x.parts.documents["openapi"])


async def config(x: Exchange) -> Config:
    look = await x.parts.observed.look()
    settings = x.parts.settings
    return Config(
        ok=True,
        data=ConfigData(
            single_entrypoint=True,
            entrypoint=str(settings.public._replace(port=x.parts.ports["tentaculo_link"])),
            solo_madre_default=look.policy == "solo_madre" if look.known else None,
            token_guard_enforced=x.parts.guarded,
            correlation_id_enabled=True,
            endpoints=[f"{route.method} {route.path}" for route in x.parts.routes],
            settings=[SettingLine(**line._asdict()) for line in settings.effective()],
            timestamp=rfc3339(time.time()),
        ),
    )


def nowhere(routes: tuple[Route, ...]) -> Callable[[Exchange], Awaitable[Whole]]:
    """What answers for addresses that are not in `routes`."""

    async def compose(x: Exchange) -> Whole:
        path = x.request.rel_url.raw_path
        allow = sorted({method for route in routes if route.named(path) is not None for method in route.methods})
        if allow:
            raise Failure("method_not_allowed", f"{path} takes {', '.join(allow)}", path=path, allow=allow)
        endpoints = [f"{route.method} {route.path}" for route in routes]
        raise Failure("endpoint_not_found", f"there is nothing at {path}", path=path, available_endpoints=endpoints)

    return compose
