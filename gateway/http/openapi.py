"""The OpenAPI 3.1 description, made of the route table and the classes of bodies and answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from bus.supervisor import VERSION
from schemas.message import ACTOR_NAME

if TYPE_CHECKING:
    from gateway.http.routes import Route

Schema = dict[str, Any]
BEARER = "Authorization: Bearer carries the same token; two that differ are refused"
REF = "#/components/schemas/{model}"
JSON = "application/json"
EVERY = ("invalid", "busy", "internal")
"""Codes that any request may end with."""
GUARDED = ("auth_required", "forbidden")
WITH_BODY = ("too_large", "unsupported_media")
ASKS = ("unavailable", "timeout")
"""Of whatever is not answered by the gateway alone."""
NAMES = {
    "name": ACTOR_NAME.pattern,
    "actor": ACTOR_NAME.pattern,
    "verb": "[a-z][a-z0-9_]*",
    "model": ".+",
    "fact": "[a-z][a-z0-9_]*",
    "id": "[^/]+",
    "sequence": "[1-9][0-9]{0,17}",
}


def document(routes: tuple[Route, ...]) -> bytes:
    """The description as JSON."""
    refs, definitions = _schemas(routes)
    paths: dict[str, Schema] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, refs)
    return json.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "VX11", "version": VERSION, "summary": "tentaculo_link, the single HTTP entrypoint"},
            "paths": paths,
            "components": {
                "schemas": definitions,
                "securitySchemes": {
                    "token": {"type": "apiKey", "in": "header", "name": "X-VX11-Token", "description": BEARER},
                },
            },
        }
    ).encode()


def codes(route: Route) -> list[str]:
    """Every error code that the route can end with."""
    found = [*EVERY, *route.fails]
    if not route.is_open:
        found += GUARDED
    if route.has_body:
        found += WITH_BODY
    if route.name not in ("health", "health_live", "page", "openapi"):
        found += ASKS
    return sorted(set(found))


def _schemas(routes: tuple[Route, ...]) -> tuple[dict[tuple[type[BaseModel], JsonSchemaMode], Schema], Schema]:
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = []
    for route in routes:
        wanted.append((route.manner.error, "serialization"))
        if isinstance(route.answers, type):
            wanted.append((route.answers, "serialization"))
        if route.takes is not None:
            wanted.append((route.takes, "validation"))
    refs, whole = models_json_schema(list(dict.fromkeys(wanted)), ref_template=REF)
    return {(kind, mode): refs[kind, mode] for kind, mode in wanted}, whole["$defs"]


def _operation(route: Route, refs: dict[tuple[type[BaseModel], JsonSchemaMode], Schema]) -> Schema:
    made: Schema = {
        "operationId": route.name,
        "summary": route.summary,
        "security": [] if route.is_open else [{"token": []}],
        "parameters": [*_path(route), *_query(route)],
        "responses": {"200": _good(route, refs), **_bad(route, refs)},
    }
    if not route.is_open:
        made["x-vx11-scope"] = route.scope
    if route.takes is not None or route.any_object:
        made["requestBody"] = _body(route)
    return made


def _good(route: Route, refs: dict[tuple[type[BaseModel], JsonSchemaMode], Schema]) -> Schema:
    json_schema = refs[route.answers, "serialization"] if isinstance(route.answers, type) else {}
    schemas = {JSON: json_schema, "text/plain": {"type": "string"}, "text/html": {"type": "string"}}
    content = {media: {"schema": schemas[media]} if media in schemas else {} for media in route.media}
    headers = {
        "X-Correlation-Id": {"schema": {"type": "string"}, "description": "the conversation"},
        "X-Vx11-Wake-Ms": {
            "schema": {"type": "integer"},
            "description": "how long this request waited for an actor to wake",
        },
    }
    return {"description": route.summary, "content": content, "headers": headers}


def _bad(route: Route, refs: dict[tuple[type[BaseModel], JsonSchemaMode], Schema]) -> Schema:
    by_status: dict[str, list[str]] = {}
    for code in codes(route):
        for status in route.manner.statuses(code):
            by_status.setdefault(str(status), []).append(code)
    schema = refs[route.manner.error, "serialization"]
    return {
        status: {"description": ", ".join(found), "content": {JSON: {"schema": schema}}}
        for status, found in sorted(by_status.items())
    }


def _path(route: Route) -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": f"^{NAMES[name]}$"}}
        for name in route.parameters
    ]


def _query(route: Route) -> list[Schema]:
    if route.query is None:
        return []
    properties = route.query.model_json_schema()["properties"]
    return [{"name": name, "in": "query", "required": False, "schema": _plain(schema)} for name, schema in properties.items()]


def _plain(schema: Schema) -> Schema:
    """A parameter is there or not, it is never null."""
    real = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default", "title") or value is not None}
    if len(real) == 1:
        rest = {**{name: value for name, value in rest.items() if name != "anyOf"}, **real[0]}
    return rest


def _body(route: Route) -> Schema:
    """The body, less the fields that come from elsewhere; any object where a card decides."""
    if route.takes is None:
        return {"required": False, "content": {JSON: {"schema": {"type": "object"}}}}
    whole = route.takes.model_json_schema(ref_template=REF)
    whole.pop("$defs", None)
    required = [name for name in whole.get("required", ()) if name not in route.fixed]
    schema = {**whole, "properties": {k: v for k, v in whole.get("properties", {}).items() if k not in route.fixed}}
    schema.pop("required", None)
    if required:
        schema["required"] = required
    return {"required": bool(required), "content": {JSON: {"schema": schema}}}
