"""The AsyncAPI 3.0 description of what can be said on the bus, made of the cards: awake or asleep is no difference."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from bus import call as calls
from bus.supervisor import VERSION
from gateway.http.cards import describe_of
from gateway.http.fits import Schema
from gateway.http.observed import CORE
from gateway.http.samples import example
from schemas.card import Card, DescribeReply, Heard, Verb
from schemas.dead import Tried
from schemas.errors import CODES
from schemas.message import Event

JSON = "application/json"
STREAM = "VX11_EVENTS"
TRAITS = "#/components/messageTraits/"
CORRELATION_ID = {"location": f"$message.header#/{calls.CORRELATION}", "description": "one id for a whole conversation"}
POWER_TOKENS = {"actor": "whose life it is about"}
TOKENS = {Tried.subject: {"consumer": "who tried", "message": "what was tried: its number in the log, and when it came"}}
"""What stands after the fact in the subjects of events, and what it means."""
_DEFS = "#/$defs/"
_VALUES = frozenset({"default", "const", "enum", "examples"})
_BY_NAME = frozenset({"properties", "patternProperties"})
_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "string", "pattern": "^[0-9]{1,15}$"}
_CONVERSATION: Schema = {
    calls.CORRELATION: {"type": "string", "pattern": f"^{calls.CORRELATION_FORM.pattern}$"},
    calls.TRACEPARENT: {"type": "string", "description": "W3C trace context"},
    calls.TRACESTATE: _TEXT,
}
_REQUEST: Schema = {
    **_CONVERSATION,
    calls.REQUEST_ID: {"type": "string", "description": "one request and its repeats; answered once"},
    calls.DEADLINE: {**_NUMBER, "description": "ms since the epoch; later it is not begun"},
    calls.STREAM: {"const": "1", "description": "answer in pieces, where x-vx11-chunks is true"},
    calls.PASSIVE: {"const": "1", "description": "a look: keeps nobody awake"},
}
_REPLY: Schema = {
    calls.CORRELATION: _CONVERSATION[calls.CORRELATION],
    calls.WAKE_MS: {**_NUMBER, "description": "how long the caller waited for the actor to wake"},
    calls.SEQ: {**_NUMBER, "description": "of a streamed answer: its place, from 0"},
    calls.END: {"enum": ["ok", "error"], "description": "on the last message of a streamed answer"},
}
_ERROR: Schema = {
    **_REPLY,
    calls.ERROR: {"type": "string", "description": "code and message; its presence says that this is an error"},
    calls.ERROR_CODE: {"enum": sorted({str(code.status) for code in CODES.values()})},
}
_EVENT: Schema = {
    **_CONVERSATION,
    "Nats-Msg-Id": {"type": "string", "description": "stored once within the stream's duplicate window"},
    **{f"ce-{name}": {"type": "string"} for name in ("specversion", "id", "source", "type", "time", "datacontenttype")},
}
_ERROR_BODY: Schema = {
    "type": "object",
    "properties": {"error": {"enum": sorted(CODES)}, "message": _TEXT, calls.CORRELATION: _TEXT},
    "required": ["error", "message"],
}
ABOUT = (
    "What VX11's actors answer and hear on NATS. An actor that sleeps is described like one that is awake: a request wakes it. "
    "Requests and events are JSON documents; a plain `nats req` or `nats pub` needs no headers at all."
)


def document(cards: Iterable[Card], told: Mapping[str, type[Event]], *, host: str, missing: Iterable[str] = ()) -> Schema:
    """`told`: event classes by subject. `missing`: actors whose card is not to be had."""
    made = Description(told, host=host)
    for card in cards:
        made.add(card)
    return made.finished(missing)


class Description:
    """Grows card by card, `finished` is called once. Every key names its actor first, so that those of two never meet."""

    def __init__(self, told: Mapping[str, type[Event]], *, host: str) -> None:
        self._told = told
        self._schemas: dict[str, Schema] = {"error": _ERROR_BODY}
        self._messages: dict[str, Schema] = {}
        self._channels: dict[str, Schema] = {}
        self._operations: dict[str, Schema] = {}
        traits = {"request": _REQUEST, "reply": _REPLY, "error": _ERROR, "event": _EVENT}
        self._whole: Schema = {
            "asyncapi": "3.0.0",
            "info": {"title": "VX11", "version": VERSION, "description": ABOUT, "x-vx11-actors": {}},
            "defaultContentType": JSON,
            "servers": {"bus": {"host": host, "protocol": "nats", "description": "Loopback; one nkey for each user."}},
            "channels": self._channels,
            "operations": self._operations,
            "components": {
                "schemas": self._schemas,
                "messages": self._messages,
                "messageTraits": {
                    name: {"headers": {"type": "object", "properties": headers}} for name, headers in traits.items()
                },
            },
        }
        failed = {"error": "unavailable", "message": "nobody answers", calls.CORRELATION: "conversation-1"}
        self._message("error", {"$ref": "#/components/schemas/error"}, "error", "Every failure", [_named_example(failed)])

    def add(self, card: Card) -> None:
        """An actor's verbs and what it hears. One that cannot be loaded has nothing but its name, and why."""
        shown = {"summary", "version", "card_version", "built_in", "error"} | (set() if card.name in CORE else {"idle_after"})
        self._whole["info"]["x-vx11-actors"][card.name] = card.model_dump(include=shown)
        for verb in card.verbs:
            self._verb(card.name, verb)
        for heard in card.events:
            self._heard(card.name, heard)

    def finished(self, missing: Iterable[str] = ()) -> Schema:
        """With what is said of all of them."""
        self._add_describe()
        for subject, kind in sorted(self._told.items()):
            self._sent(subject, kind)
        if left_out := sorted(missing):
            self._whole["info"]["x-vx11-missing"] = left_out
        return self._whole

    def _add_describe(self) -> None:
        """The verb that every actor has and no card names."""
        told = describe_of("{actor}").model_copy(
            update={"summary": "What the actor is.", "request": {"type": "object"}, "reply": DescribeReply.model_json_schema()}
        )
        self._verb("any", told)
        names = list(self._whole["info"]["x-vx11-actors"])
        self._channels["any.describe"]["parameters"] = {
            "actor": {"description": "whom to ask", **({"enum": names} if names else {})}
        }
        del self._operations["any.describe"]["bindings"]

    def _verb(self, actor: str, verb: Verb) -> None:
        key = f"{actor}.{verb.name}"
        self._channels[key] = {"address": verb.subject, "messages": {}}
        self._channels[f"{key}.reply"] = {
            "address": None,
            "title": f"the reply subject that the caller of {key} chose",
            "messages": {},
        }
        parts = [("reply", verb.reply)] + ([("chunk", verb.chunk)] if verb.chunk is not None else [])
        answers = [self._said(f"{key}.reply", f"{key}.{name}", schema, "reply") for name, schema in parts]
        answers.append(self._in_channel(f"{key}.reply", "error"))
        self._operations[key] = {
            "action": "receive",
            "channel": _ref("channels", key),
            "summary": verb.summary.split("\n\n")[0],
            "tags": [{"name": actor}],
            "messages": [self._said(key, f"{key}.request", verb.request, "request")],
            "reply": {"channel": _ref("channels", f"{key}.reply"), "messages": answers},
            "bindings": {"nats": {"queue": actor, "bindingVersion": "0.1.0"}},
            "x-vx11-timeout": verb.timeout,
            "x-vx11-idempotent": verb.idempotent,
            "x-vx11-scope": verb.scope,
            "x-vx11-passive": verb.passive,
            "x-vx11-chunks": verb.chunk is not None,
            "x-vx11-http": f"POST /call/{verb.subject.split('.')[1]}/{verb.name}",
        }

    def _heard(self, actor: str, heard: Heard) -> None:
        fact = heard.subject.removeprefix("vx11.events.")
        key = f"{actor}.hears.{fact}"
        self._channels[key] = {"address": heard.subject, "messages": {}, "x-vx11-stream": STREAM}
        self._operations[key] = {
            "action": "receive",
            "channel": _ref("channels", key),
            "summary": f"Hears {fact}, {'also what came while it slept' if heard.durable else 'while it is awake'}.",
            "tags": [{"name": actor}],
            "messages": [self._said(key, key, heard.schema_ or {"type": "object"}, "event")],
            "x-vx11-durable": heard.durable,
            "x-vx11-stream": STREAM,
        }

    def _sent(self, subject: str, kind: type[Event]) -> None:
        """What a part of the house says in the past tense, in the name of the one in the subject."""
        who, fact = subject.split(".")[2:4]
        key, more = f"{who}.tells.{fact}", POWER_TOKENS if who == "power" else TOKENS.get(subject, {})
        self._channels[key] = {
            "address": ".".join((subject, *(f"{{{name}}}" for name in more))),
            "messages": {},
            "parameters": {name: {"description": told} for name, told in more.items()},
            "x-vx11-stream": STREAM,
        }
        self._operations[key] = {
            "action": "send",
            "channel": _ref("channels", key),
            "summary": (kind.__doc__ or kind.__name__).split("\n\n")[0],
            "tags": [{"name": who}],
            "messages": [self._said(key, key, kind.model_json_schema(), "event")],
            "x-vx11-stream": STREAM,
            "x-vx11-severity": kind.severity,
        }

    def _said(self, channel: str, key: str, schema: Schema, trait: str) -> Schema:
        """A message with its schema, in a channel."""
        self._message(key, self._schema(key, schema), trait, schema.get("title", key), _examples(schema))
        return self._in_channel(channel, key)

    def _in_channel(self, channel: str, key: str) -> Schema:
        self._channels[channel]["messages"][key] = _ref("components", "messages", key)
        return _ref("channels", channel, "messages", key)

    def _message(self, key: str, payload: Schema, trait: str, title: str, examples: list[Schema] | None = None) -> None:
        self._messages[key] = {
            "name": key,
            "title": title,
            "contentType": JSON,
            "correlationId": CORRELATION_ID,
            "traits": [{"$ref": TRAITS + trait}],
            "payload": payload,
        } | ({"examples": examples} if examples else {})

    def _schema(self, key: str, schema: Schema) -> Schema:
        """Put a schema and its definitions among the components."""
        for name, one in schema.get("$defs", {}).items():
            self._schemas[f"{key}.{_plain(name)}"] = _moved(one, key)
        self._schemas[key] = _moved({name: value for name, value in schema.items() if name != "$defs"}, key)
        return _ref("components", "schemas", key)


def _examples(schema: Schema) -> list[Schema]:
    """None where none can be made up."""
    try:
        found = example(schema)
    except (LookupError, re.error):
        return []
    return [_named_example(found)] if isinstance(found, dict) else []


def _named_example(payload: Schema) -> Schema:
    return {"name": "least", "summary": "with the required fields only", "payload": payload}


def _moved(schema: Schema, key: str) -> Schema:
    """A copy whose references lead to the components, in the words of AsyncAPI's own schemas."""
    made: Schema = {}
    for name, value in schema.items():
        if name in _VALUES:
            made[name] = value
        elif name in _BY_NAME and isinstance(value, dict):
            made[name] = {one: _moved(inner, key) if isinstance(inner, dict) else inner for one, inner in value.items()}
        elif name == "$ref" and isinstance(value, str) and value.startswith(_DEFS):
            made[name] = f"#/components/schemas/{key}.{_plain(value.removeprefix(_DEFS))}"
        elif name == "discriminator" and isinstance(value, dict):
            made[name] = value.get("propertyName", "")
        elif isinstance(value, dict):
            made[name] = _moved(value, key)
        elif isinstance(value, list):
            made[name] = [_moved(one, key) if isinstance(one, dict) else one for one in value]
        else:
            made[name] = value
    return made


def _plain(name: str) -> str:
    """A key of a component has no other characters."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _ref(*path: str) -> dict[str, Any]:
    return {"$ref": "#/" + "/".join(path)}
