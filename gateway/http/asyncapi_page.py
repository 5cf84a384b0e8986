"""The AsyncAPI description as one page for people: no script, nothing loaded from anywhere, readable on a phone."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Iterator
from html import escape
from typing import Any

from gateway.http.fits import Schema

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
* { box-sizing: border-box; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1rem; border-block: 1px solid var(--line); padding: .6rem 0; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .5rem 0; padding: .4rem .7rem; }
summary { cursor: pointer; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { background: var(--soft); padding: .6rem; border-radius: .4rem; white-space: pre-wrap; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .2rem .5rem .2rem 0; border-top: 1px solid var(--line); }
.kind { display: inline-block; min-width: 4.5rem; opacity: .75; }
.wrong { border-left: .3rem solid #c33; padding-left: .6rem; }
small { opacity: .8; }
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DEPTH_MOST = 4
"""Fields inside fields that are unfolded."""


def page(document: Schema) -> str:
    """The whole page. Everything in it is escaped: summaries and names are other people's words."""
    info, actors = document["info"], document["info"]["x-vx11-actors"]
    by_tag: dict[str, list[str]] = {name: [] for name in actors}
    for key, operation in document["operations"].items():
        by_tag.setdefault(operation["tags"][0]["name"], []).append(key)
    links = "".join(f'<a href="#{escape(tag)}">{escape(tag)}</a>' for tag in by_tag)
    body = "".join(_section(document, tag, keys, actors.get(tag)) for tag, keys in by_tag.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>VX11 on the bus</title><style>{STYLE}</style></head><body>"
        f"<h1>VX11 on the bus</h1><p>{escape(info['description'])}</p>"
        f"<p><small>VX11 {escape(info['version'])} at nats://{escape(document['servers']['bus']['host'])}. "
        'The same for programs: <a href="asyncapi.json">asyncapi.json</a> (AsyncAPI 3.0). '
        'Over HTTP: <a href="openapi.json">openapi.json</a>.</small></p>'
        f"{_missing(info)}<nav>{links}</nav>{body}</body></html>"
    )


def _missing(info: Schema) -> str:
    names = ", ".join(info.get("x-vx11-missing", ()))
    return f'<p class="wrong">Nobody has said yet what {escape(names)} can do.</p>' if names else ""


def _section(document: Schema, tag: str, keys: list[str], actor: Schema | None) -> str:
    told = ""
    if actor:
        power = f"sleeps after {actor['idle_after']:g} s" if "idle_after" in actor else "is always awake"
        told = f"<p>{escape(actor['summary'])} <small>Version {escape(actor['version'])}, {power}.</small></p>"
        if actor["error"]:
            told += f'<p class="wrong">Cannot be loaded: {escape(actor["error"])}</p>'
    return (
        f'<section><h2 id="{escape(tag)}">{escape(tag)}</h2>{told}{"".join(_operation(document, key) for key in keys)}</section>'
    )


def _operation(document: Schema, key: str) -> str:
    operation = document["operations"][key]
    address = _at(document, operation["channel"]["$ref"])["address"]
    kind = "answers" if "reply" in operation else "hears" if operation["action"] == "receive" else "tells"
    parts = [_message(document, message["$ref"], kind) for message in operation["messages"]]
    parts += [_message(document, message["$ref"], "reply") for message in operation.get("reply", {}).get("messages", ())]
    return (
        f'<details><summary><span class="kind">{kind}</span> <code>{escape(address)}</code><br>'
        f"{escape(operation.get('summary', ''))}</summary>{_properties(operation)}{_command(document, operation, address)}"
        f"{''.join(parts)}</details>"
    )


def _properties(operation: Schema) -> str:
    told = [
        f"{name.removeprefix('x-vx11-')}: {value}" for name, value in operation.items() if name.startswith("x-vx11-") and value
    ]
    return f"<p><small>{escape('; '.join(told))}</small></p>"


def _command(document: Schema, operation: Schema, address: str) -> str:
    """What to type for trying it out with the stock client."""
    message = _at(document, _at(document, operation["messages"][0]["$ref"])["$ref"])
    payload = json.dumps(next((one["payload"] for one in message.get("examples", ())), {}))
    if operation["action"] == "send":
        return f"<pre>nats sub {escape(shlex.quote(address.replace('{actor}', '*')))}</pre>"
    words = f"{'req' if 'reply' in operation else 'pub'} {shlex.quote(address)} {shlex.quote(payload)}"
    return f"<pre>nats {escape(words)}</pre>"


def _message(document: Schema, ref: str, role: str) -> str:
    message = _at(document, _at(document, ref)["$ref"])
    if message["name"] == "error":
        return ""
    rows = "".join(_rows(document, _resolved(document, message["payload"]), "", 0))
    table = f"<table><tr><th>field</th><th>type</th><th>what</th></tr>{rows}</table>" if rows else "<p>No fields.</p>"
    named = "".join(f"<pre>{escape(json.dumps(one['payload'], indent=1))}</pre>" for one in message.get("examples", ()))
    title = {"reply": "Reply", "answers": "Request"}.get(role, "Event")
    return f"<h4>{title}: {escape(message['title'])}</h4>{table}{named}"


def _rows(document: Schema, schema: Schema, before: str, depth: int) -> Iterator[str]:
    required = schema.get("required", ())
    for name, one in schema.get("properties", {}).items():
        found = _resolved(document, one)
        told = escape(str(found.get("description", "")))
        if name not in required:
            told += (
                f" <small>default {escape(json.dumps(found.get('default')))}</small>"
                if "default" in one
                else " <small>optional</small>"
            )
        yield f"<tr><td><code>{escape(before + name)}</code></td><td>{escape(_type(document, one))}</td><td>{told}</td></tr>"
        inner = _resolved(document, found["items"]) if isinstance(found.get("items"), dict) else found
        if depth < DEPTH_MOST and "properties" in inner:
            yield from _rows(document, inner, f"{before}{name}{'[]' if inner is not found else ''}.", depth + 1)


def _type(document: Schema, schema: Schema, depth: int = 0) -> str:
    if depth > DEPTH_MOST:
        return "anything"
    found = _resolved(document, schema)
    if several := found.get("anyOf") or found.get("oneOf"):
        return " or ".join(_type(document, one, depth + 1) for one in several)
    if "enum" in found or "const" in found:
        return ", ".join(json.dumps(one) for one in found.get("enum", [found.get("const")]))
    if found.get("type") == "array":
        return f"list of {_type(document, found.get('items') or {}, depth + 1)}"
    bounds = [f"{word} {found[key]}" for key, word in _BOUNDS.items() if key in found]
    return " ".join((str(found.get("type", "anything")), *bounds))


_BOUNDS = {"minimum": "from", "maximum": "to", "minLength": "at least", "maxLength": "at most", "pattern": "like"}


def _resolved(document: Schema, schema: Schema) -> Schema:
    found = schema
    while "$ref" in found:
        found = _at(document, found["$ref"])
    return {**found, **{name: value for name, value in schema.items() if name != "$ref"}}


def _at(document: Schema, ref: str) -> Any:
    found: Any = document
    for token in ref.removeprefix("#/").split("/"):
        found = found[token]
    return found
