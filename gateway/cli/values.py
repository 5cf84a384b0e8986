"""`key=value` words as the fields of a request, read by the JSON schema on the actor's card. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from schemas.errors import Failure

TRUE = frozenset({"true", "yes", "on", "1"})
FALSE = frozenset({"false", "no", "off", "0"})
NULL = frozenset({"null", "none"})

Schema = Mapping[str, Any]


def fields(words: Sequence[str], schema: Schema, *, verb: str) -> dict[str, Any]:
    """The request of `words`. Raises Failure("invalid"), naming the fields that there are."""
    made: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise _wrong(verb, schema, f"{word!r} is no key=value")
        if key in made:
            raise _wrong(verb, schema, f"{key} is given twice")
        made[key] = _field(key, text, schema, verb)
    return made


def check_complete(document: Mapping[str, Any], schema: Schema, *, verb: str) -> None:
    """Raise Failure("invalid") when a required field is missing."""
    missing = [name for name in schema.get("required", []) if name not in document]
    if missing:
        raise _wrong(verb, schema, f"{verb} needs {' and '.join(missing)}")


def usage(verb: str, schema: Schema) -> str:
    """The command that would be right, for instance `vx11 call greeter.greet name=TEXT`."""
    names = schema.get("required", []) or list(schema.get("properties", {}))
    return " ".join(["vx11 call", verb, *(f"{name}={_example(_field_schema(name, schema), schema)}" for name in names)])


def _field(key: str, text: str, schema: Schema, verb: str) -> Any:
    known = schema.get("properties", {})
    if key not in known and not schema.get("additionalProperties", False):
        close = get_close_matches(key, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise _wrong(verb, schema, f"{verb} has no field {key!r}{hint}")
    try:
        return read(text, _field_schema(key, schema), schema)
    except ValueError as error:
        raise _wrong(verb, schema, f"{key}: {error}") from None


def read(text: str, schema: Schema, root: Schema) -> Any:
    """One value. Raises ValueError when none of the types that the schema allows can be read from it."""
    kinds = _alternatives(schema, root)
    if not kinds:
        return _json_or_text(text)
    problems: list[str] = []
    for kind in kinds:
        try:
            return _read_as(text, kind, root)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError("; ".join(dict.fromkeys(problems)))


def _read_as(text: str, schema: Schema, root: Schema) -> Any:
    if "const" in schema or "enum" in schema:
        return _choice(text, schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "null":
            return _null(text)
        case "boolean":
            return _boolean(text)
        case "integer":
            return _number(text, whole=True)
        case "number":
            return _number(text, whole=False)
        case "array":
            return _array(text, schema, root)
        case "object":
            return _object(text)
        case "string":
            return text
    return _json_or_text(text)


def _choice(text: str, choices: Sequence[Any]) -> Any:
    for choice in choices:
        if text == str(choice):
            return choice
    raise ValueError(f"{text!r} is none of {', '.join(str(choice) for choice in choices)}")


def _null(text: str) -> None:
    if text.lower() not in NULL:
        raise ValueError(f"{text!r} is not null")


def _boolean(text: str) -> bool:
    if text.lower() not in TRUE | FALSE:
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() in TRUE


_WHOLE = re.compile(r"[+-]?\d+")


def _number(text: str, *, whole: bool) -> float | int:
    clean = text.strip()
    if _WHOLE.fullmatch(clean):
        return int(clean)
    if whole:
        raise ValueError(f"{text!r} is no whole number")
    try:
        number = float(clean)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is a number that JSON cannot carry")
    return number


def _array(text: str, schema: Schema, root: Schema) -> list[Any]:
    """JSON, or values separated by commas."""
    if text.lstrip().startswith("["):
        found = _json(text)
        if isinstance(found, list):
            return found
    items = schema.get("items", {})
    kinds = {kind.get("type") for kind in _alternatives(items, root)}
    if kinds & {"object", "array"}:
        raise ValueError(f"{text!r} is no JSON list")
    return [read(part.strip(), items, root) for part in text.split(",")] if text else []


def _object(text: str) -> dict[str, Any]:
    found = _json(text)
    if not isinstance(found, dict):
        raise ValueError(f"{text!r} is no JSON object")  # noqa: TRY004 - it is what was typed that is wrong
    return found


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no JSON: {error}") from None


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _field_schema(name: str, schema: Schema) -> Schema:
    found: Schema = schema.get("properties", {}).get(name, {})
    return found


def _alternatives(schema: Schema, root: Schema) -> list[Schema]:
    """The schemas that a value may follow, references resolved, text last because it takes everything."""
    if "$ref" in schema:
        return _alternatives(_resolve(str(schema["$ref"]), root), root)
    found: list[Schema] = []
    for key in ("anyOf", "oneOf", "allOf"):
        for part in schema.get(key, []):
            found += _alternatives(part, root)
    if not found and ("enum" in schema or "const" in schema or isinstance(schema.get("type"), str)):
        found = [schema]
    if not found and isinstance(schema.get("type"), list):
        found = [{**schema, "type": kind} for kind in schema["type"]]
    return sorted(found, key=lambda kind: kind.get("type") == "string" and "enum" not in kind and "const" not in kind)


def _resolve(reference: str, root: Schema) -> Schema:
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part, {}) if isinstance(found, Mapping) else {}
    return found if isinstance(found, Mapping) else {}


def _example(schema: Schema, root: Schema) -> str:
    kinds = _alternatives(schema, root)
    kind = kinds[0] if kinds else {}
    if "enum" in kind:
        return "|".join(str(choice) for choice in kind["enum"])
    names = {
        "integer": "NUMBER",
        "number": "NUMBER",
        "boolean": "true|false",
        "array": "A,B",
        "object": "JSON",
        "string": "TEXT",
    }
    return names.get(str(kind.get("type")), "VALUE")


def _wrong(verb: str, schema: Schema, what: str) -> Failure:
    known = schema.get("properties", {})
    required = set(schema.get("required", []))
    why = "it takes " + ", ".join(name if name in required else f"[{name}]" for name in known) if known else "it takes no fields"
    return Failure(
        "invalid",
        what,
        why=why,
        next=[[usage(verb, schema), "as many fields as you like"] if known else [f"vx11 call {verb}", ""]],
    )
