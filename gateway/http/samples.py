"""An example of what a JSON schema wants, small and valid; none where that cannot be made up."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic_core import ValidationError

from gateway.http.fits import Schema, validator

DEPTH_MOST = 8
WORDS = (
    "hello", "echo", "conversation-1", "2026-01-02T03:04:05.678Z", "vx11.echo.say", "abc123", "a", "1", "on_demand",
    "b1f0a7de-6f3a-4c59-9a0e-5f1f6a3c2d10", "0123456789abcdef",
)  # fmt: skip
"""Texts that are tried where a pattern wants to be met."""
NOT_FOLLOWED = frozenset({"if", "not", "dependentRequired", "dependentSchemas", "patternProperties", "prefixItems", "contains"})
"""Words of a schema that may ask for more than is seen here."""
_DEFS = "#/$defs/"


def example(schema: Schema) -> Any:
    """A value that the schema takes, with its required fields only. Raises LookupError when none was found."""
    made = _made(schema, schema.get("$defs", {}), 0)
    try:
        validator(schema).validate_json(json.dumps(made))
    except ValidationError:
        raise LookupError("no example was found") from None
    return made


def _made(schema: Schema, defs: Mapping[str, Schema], depth: int) -> Any:
    if depth > DEPTH_MOST:
        raise LookupError("the schema goes too deep")
    if "$ref" in schema:
        return _made(defs[str(schema["$ref"]).removeprefix(_DEFS)], defs, depth + 1)
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if unknown := NOT_FOLLOWED & schema.keys():
        raise LookupError(f"{', '.join(unknown)} is not followed")
    for several in ("anyOf", "oneOf", "allOf"):
        if schema.get(several):
            return _made(schema[several][0], defs, depth + 1)
    return _of_type(schema, defs, depth)


def _of_type(schema: Schema, defs: Mapping[str, Schema], depth: int) -> Any:
    match schema.get("type"):
        case "string":
            return _text(schema)
        case "integer" | "number":
            return _number(schema)
        case "boolean":
            return True
        case "null":
            return None
        case "array":
            return [_made(schema.get("items") or {}, defs, depth + 1)] * int(schema.get("minItems", 0))
        case _:
            required = schema.get("required", ())
            return {name: _made(one, defs, depth + 1) for name, one in schema.get("properties", {}).items() if name in required}


def _text(schema: Schema) -> str:
    pattern, least, most = schema.get("pattern", ""), schema.get("minLength", 0), schema.get("maxLength", 1_000)
    for word in WORDS:
        text = word.ljust(least, "a")[:most]
        if re.search(pattern, text):
            return text
    raise LookupError(f"no word fits {pattern}")


def _number(schema: Schema) -> float:
    least = float(schema.get("minimum", schema.get("exclusiveMinimum", 0) + ("exclusiveMinimum" in schema)))
    found = max(least, min(1.0, float(schema.get("maximum", 1))))
    return int(found) if found.is_integer() else found
