"""The description: every route is in it, every status that a route can give, every reference leads somewhere."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gateway.http.openapi import codes
from gateway.http.routes import TABLE, Route
from tests.gateway.test_doors import path_of


@pytest.fixture
async def described(link) -> dict[str, Any]:
    reply = await link.get("/openapi.json", token=None)
    assert reply.headers["Content-Type"].startswith("application/json")
    return reply.json


def walk(node: Any):
    yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)


def operation(described: dict[str, Any], route: Route) -> dict[str, Any]:
    return described["paths"][route.path][route.method.lower()]


def test_every_route_is_described_and_nothing_else(described):
    assert described["openapi"] == "3.1.0"
    found = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    assert found == {(route.method, route.path) for route in TABLE}


def test_every_reference_leads_somewhere(described):
    known = {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}
    used = {node["$ref"] for node in walk(described) if isinstance(node, dict) and "$ref" in node}
    assert used <= known
    assert len(used) > 20


def test_every_operation_has_an_id_of_its_own(described):
    ids = [operation(described, route)["operationId"] for route in TABLE]
    assert len(set(ids)) == len(TABLE)


@pytest.mark.parametrize("route", TABLE, ids=lambda route: route.name)
def test_a_route_tells_its_statuses_parameters_and_guard(described, route):
    told = operation(described, route)
    assert set(told["responses"]) == {"200"} | {str(status) for code in codes(route) for status in route.manner.statuses(code)}
    in_path = {one["name"] for one in told["parameters"] if one["in"] == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", route.path))
    assert bool(told["security"]) is not route.is_open
    assert told.get("x-vx11-scope") == (None if route.is_open else route.scope)
    assert ("requestBody" in told) is (route.takes is not None or route.any_object)


def test_fields_from_the_path_are_not_asked_for_in_the_body(described):
    body = described["paths"]["/madre/power/gate/{name}"]["put"]["requestBody"]
    schema = body["content"]["application/json"]["schema"]
    assert (set(schema["properties"]), schema["required"], body["required"]) == ({"gate"}, ["gate"], True)
    apply = described["paths"]["/madre/power/policy/solo_madre/apply"]["post"]["requestBody"]
    assert apply["content"]["application/json"]["schema"]["properties"] == {}


def test_a_query_parameter_is_never_null(described):
    for parameter in described["paths"]["/operator/api/events"]["get"]["parameters"]:
        assert parameter["schema"].get("type") in {"string", "integer", "number"}, parameter


@pytest.mark.parametrize("route", TABLE, ids=lambda route: route.name)
async def test_what_a_route_answers_is_described(link, described, route):
    """With the right token and with none, with a body and with nonsense: no status that is not in the description."""
    told = set(operation(described, route)["responses"])
    for token in ("", None, "wrong"):
        for body in (None, {}, b"{", [1]):
            sent = body if route.has_body else None
            headers = {"Content-Type": "application/json"} if isinstance(sent, bytes) else {}
            reply = await link.ask(route.method, path_of(route), sent, token=token, headers=headers)
            assert str(reply.status) in told, (route.name, token, body, reply.text)
            if reply.status >= 400:
                route.manner.error.model_validate_json(reply.text, strict=True)
