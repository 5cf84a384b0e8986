"""A card's JSON schema as a validator: it must never refuse what the actor itself would take."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from gateway.http.fits import validator
from gateway.known import known_events
from schemas import madre, operator_backend, switch
from schemas.message import Message, Request

REQUESTS = [
    kind
    for module in (madre, operator_backend, switch)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Request) and "subject" in kind.__dict__
]
WORDS = ["", "a", "switch", "active", "on_demand", "ttl", "hold", "full", "user", "hi", "x" * 65, "../x", "7"]


def takes(check, document: bytes) -> bool:
    try:
        check(document)
    except ValidationError:
        return False
    return True


def json_values() -> st.SearchStrategy[Any]:
    plain = st.none() | st.booleans() | st.integers(-5, 100_000) | st.floats(-1, 3, allow_nan=False) | st.sampled_from(WORDS)
    return st.recursive(
        plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3)
    )


@st.composite
def documents(draw) -> tuple[type[Message], bytes]:
    """A request class and a document with some of its fields, right and wrong, and now and then one too many."""
    kind = draw(st.sampled_from(REQUESTS))
    names = [*kind.model_fields, "one_too_many"]
    fields = draw(st.dictionaries(st.sampled_from(names), json_values() | st.just([{"role": "user", "content": "hi"}])))
    return kind, TypeAdapter(dict[str, Any]).dump_json(fields)


@given(documents())
def test_it_judges_as_the_class_itself_does(made):
    kind, document = made
    told = validator(kind.model_json_schema())
    assert takes(told.validate_json, document) is takes(kind.model_validate_json, document)


@pytest.mark.parametrize("kind", list(known_events().values()), ids=lambda kind: kind.__name__)
def test_an_event_class_keeps_what_it_does_not_know(kind):
    told = validator(kind.model_json_schema())
    required = [name for name, field in kind.model_fields.items() if field.is_required()]
    assert takes(told.validate_json, b'{"more": 1}') is (not required)


class Node(Message):
    name: str
    below: list[Node] = []


def test_a_schema_that_refers_to_itself_is_followed():
    told = validator(Node.model_json_schema())
    assert takes(told.validate_json, b'{"name": "a", "below": [{"name": "b", "below": [{"name": "c"}]}]}')
    assert not takes(told.validate_json, b'{"name": "a", "below": [{"name": "b", "below": [{"nome": "c"}]}]}')


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"$ref": "https://elsewhere/schema"},
        {"type": ["object", "null"]},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}},
        {"type": "object", "properties": {"a": {"not": {}}}},
        {"type": "object", "properties": []},
        {"allOf": [{"type": "object"}, {"required": ["b"]}]},
    ],
)
def test_what_is_not_understood_is_let_through(schema):
    """Cards of actors of one's own may say more than pydantic writes; the actor has the last word."""
    assert takes(validator(schema).validate_json, b'{"a": "x"}')
