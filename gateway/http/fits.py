"""A JSON schema as a validator: the part of the language that pydantic writes, checked by pydantic's own engine.

What is not understood is let through: the actor validates too, and better too little refused here than too much.
"""

from __future__ import annotations

import logging
from typing import Any

from pydantic_core import SchemaError, SchemaValidator, core_schema

log = logging.getLogger("vx11.gateway")

Schema = dict[str, Any]
_STRING = {"minLength": "min_length", "maxLength": "max_length", "pattern": "pattern"}
_NUMBER = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
}
_LIST = {"minItems": "min_length", "maxItems": "max_length"}
_DEFS = "#/$defs/"


def validator(schema: Schema) -> SchemaValidator:
    """Of a whole document; `$ref` is followed into its `$defs`."""
    try:
        definitions: list[Any] = [{**_core(one), "ref": name} for name, one in schema.get("$defs", {}).items()]
        core = _core(schema)
        return SchemaValidator(core_schema.definitions_schema(core, definitions) if definitions else core)
    except (SchemaError, TypeError, ValueError, AttributeError) as error:
        log.warning("a schema that cannot be followed lets everything through: %s", error)
        return SchemaValidator(core_schema.any_schema())


def _core(schema: Schema) -> Any:
    if "$ref" in schema:
        ref = str(schema["$ref"])
        return (
            core_schema.definition_reference_schema(ref.removeprefix(_DEFS))
            if ref.startswith(_DEFS)
            else core_schema.any_schema()
        )
    if "const" in schema:
        return core_schema.literal_schema([schema["const"]])
    if "enum" in schema:
        return core_schema.literal_schema(list(schema["enum"]))
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return core_schema.union_schema([_core(one) for one in schema[several]])
    if len(schema.get("allOf", ())) == 1:
        return _core(schema["allOf"][0])
    return _of_type(schema)


def _of_type(schema: Schema) -> Any:
    match schema.get("type"):
        case "string":
            return core_schema.str_schema(**_given(schema, _STRING))
        case "integer":
            return core_schema.int_schema(**_given(schema, _NUMBER))
        case "number":
            return core_schema.float_schema(**_given(schema, _NUMBER))
        case "boolean":
            return core_schema.bool_schema()
        case "null":
            return core_schema.none_schema()
        case "array":
            items = schema.get("items")
            return core_schema.list_schema(_core(items) if isinstance(items, dict) else None, **_given(schema, _LIST))
        case "object":
            return _object(schema)
    return core_schema.any_schema()


def _object(schema: Schema) -> Any:
    more = schema.get("additionalProperties", True)
    if "properties" not in schema and more is not False:
        return core_schema.dict_schema(core_schema.str_schema(), _core(more) if isinstance(more, dict) else None)
    required = set(schema.get("required", ()))
    fields = {
        name: core_schema.typed_dict_field(_core(one), required=name in required)
        for name, one in schema.get("properties", {}).items()
    }
    extra = core_schema.any_schema() if more is True else _core(more) if isinstance(more, dict) else None
    return core_schema.typed_dict_schema(fields, extra_behavior="allow" if extra else "forbid", extras_schema=extra)


def _given(schema: Schema, names: dict[str, str]) -> dict[str, Any]:
    return {ours: schema[theirs] for theirs, ours in names.items() if theirs in schema}
