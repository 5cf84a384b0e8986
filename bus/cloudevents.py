"""CloudEvents 1.0: read and written as message headers (binary mode) and as one JSON document (structured mode).

Pure. The NATS binding puts every attribute into a header `ce-<name>`, `ce-datacontenttype` included.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, from_json, to_json

from bus.moment import rfc3339_now

SPECVERSION = "1.0"
MEDIA = "application/cloudevents"
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
JSON = "application/json"
PREFIX = "ce-"
EVENTS = "vx11.events."
POWER = "vx11.events.power."
INTEGER_MOST = 2**31
SHOWN_CHARS = 60
CONVERSATION = {"vxcorrelationid": "correlation_id", "traceparent": "traceparent", "tracestate": "tracestate"}
"""Extensions and the headers that say the same. On the bus VX11's own events have the headers only, which is shorter."""

_CORE = frozenset({"id", "source", "type", "specversion", "datacontenttype", "dataschema", "subject", "time"})
_NAME = re.compile(r"[a-z0-9]+")
_URI_REFERENCE = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d):(\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(\s*;.*)?", re.ASCII)
_JSON_TYPE = re.compile(r"[^/;]+/([^;]+\+)?json\s*(;.*)?", re.IGNORECASE)
_NEVER = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef]")
_TO_ENCODE = re.compile(r"[^\x21\x23\x24\x26-\x7e]")
_QUOTED = re.compile(r'\s*"((?:[^"\\]|\\.)*)"\s*', re.DOTALL)


class Malformed(ValueError):
    """This is meant as a CloudEvent and is none. `attribute`: where it is wrong, `data` for the body."""

    def __init__(self, attribute: str, why: str) -> None:
        super().__init__(f"{attribute}: {why}")
        self.attribute, self.why = attribute, why


class CloudEvent(NamedTuple):
    """`attributes`: as canonical strings, all but specversion; `data`: as it would be the body of a binary message."""

    attributes: Mapping[str, str]
    data: bytes = b""

    @property
    def is_json(self) -> bool:
        return is_json(self.attributes.get("datacontenttype", JSON))


def meant(headers: Mapping[str, str] | None) -> bool:
    """Whether a message with these headers is meant as a CloudEvent."""
    return headers is not None and any(name[:3].lower() == PREFIX or _is_structured(name, text) for name, text in headers.items())


def read(headers: Mapping[str, str], body: bytes) -> CloudEvent | None:
    """The CloudEvent in a NATS message, None for a plain message. Raises Malformed."""
    if any(_is_structured(name, text) for name, text in headers.items()):
        return read_structured(_content_type(headers), body)
    found = read_attributes(headers)
    return CloudEvent(checked(found), body) if found else None


def read_attributes(headers: Mapping[str, str]) -> dict[str, str]:
    """The attributes in `ce-*` headers, decoded and not yet judged. Raises Malformed."""
    found: dict[str, str] = {}
    for header, text in headers.items():
        if header[:3].lower() != PREFIX:
            continue
        name = header[3:].lower()
        if name in found:
            raise Malformed(name, "it is there twice")
        found[name] = decoded(name, text)
    return found


def read_structured(content_type: str, body: bytes) -> CloudEvent:
    """The CloudEvent in a JSON document. Raises Malformed, also for other formats and for a batch."""
    media = content_type.partition(";")[0].strip().lower()
    if media != STRUCTURED:
        raise Malformed("data", f"{STRUCTURED} is read, one event in each message, and not {shown(media)}")
    try:
        document = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Malformed("data", f"the body is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise Malformed("data", "the body is no JSON object")
    attributes = {
        name: _canonical(name, value)
        for name, value in document.items()
        if name not in ("data", "data_base64") and value is not None
    }
    return CloudEvent(checked(attributes), _data_in(document, attributes.get("datacontenttype", JSON)))


def checked(attributes: Mapping[str, str]) -> dict[str, str]:
    """The same without specversion. Raises Malformed for what breaks the specification."""
    if (version := attributes.get("specversion")) != SPECVERSION:
        raise Malformed("specversion", f"it must be {SPECVERSION}" + (f", not {shown(version)}" if version else ""))
    for name in ("id", "source", "type"):
        if not attributes.get(name):
            raise Malformed(name, "it is required and must not be empty")
    for name, value in attributes.items():
        if not _NAME.fullmatch(name) or name == "data":
            raise Malformed(shown(name), "an attribute's name has a-z and 0-9 only, and is not data")
        if not is_text(value):
            raise Malformed(name, "it has control characters or halves of characters")
    _check_forms(attributes)
    return {name: value for name, value in attributes.items() if name != "specversion"}


def binary(event: CloudEvent) -> dict[str, str]:
    """The headers of the binary mode on NATS; the body is `event.data`."""
    return {PREFIX + "specversion": SPECVERSION} | {PREFIX + name: encoded(text) for name, text in event.attributes.items()}


def structured(event: CloudEvent) -> dict[str, Any]:
    """The document of the structured mode."""
    made: dict[str, Any] = {"specversion": SPECVERSION, **event.attributes}
    if not event.data:
        return made
    try:
        made["data"] = from_json(event.data, allow_inf_nan=False) if event.is_json else event.data.decode()
    except ValueError:
        made["data_base64"] = base64.b64encode(event.data).decode()
    return made


def opened(headers: Mapping[str, str] | None, body: bytes) -> tuple[Mapping[str, str], bytes]:
    """The headers and the body that a handler is to see: of a structured event its attributes as headers, and its data.

    Raises pydantic.ValidationError for a malformed CloudEvent, and for one whose data is no JSON.
    """
    if headers is None or not meant(headers):
        return headers or {}, body
    try:
        event = read(headers, body)
        if event is None:
            return headers, body
        if not event.is_json:
            raise Malformed("datacontenttype", f"VX11 handles {JSON}, not {shown(event.attributes['datacontenttype'])}")
    except Malformed as error:
        raise _as_validation_error(error) from None
    plain = {name: text for name, text in headers.items() if not _is_structured(name, text) and name[:3].lower() != PREFIX}
    told = {header: event.attributes[name] for name, header in CONVERSATION.items() if name in event.attributes}
    return {**told, **plain, **binary(event)}, event.data


def stamped(subject: str, headers: dict[str, str], ident: str) -> dict[str, str]:
    """`headers` of an event with its attributes added, unless it is a CloudEvent already or no event at all."""
    if subject.startswith(EVENTS) and not meant(headers):
        headers |= _known(subject)
        headers["ce-id"] = encoded(ident)
        headers["ce-time"] = rfc3339_now()
    return headers


def origin(subject: str) -> tuple[str, str]:
    """Source and type of an event of VX11's own. The actor of a power event is its last token."""
    tokens = subject.split(".")
    actor = tokens[4] if subject.startswith(POWER) and len(tokens) > 4 else tokens[2]
    return f"/vx11/{quote(actor, safe='')}", encoded(".".join(("dev.vx11", *tokens[2:4])))


def encoded(text: str) -> str:
    """A header's value: percent-encoded where the binding wants it."""
    return _TO_ENCODE.sub(_percent, text)


def decoded(name: str, text: str) -> str:
    """The value of a header: unquoted, then percent-decoded once. Raises Malformed for what is no UTF-8."""
    if quoted := _QUOTED.fullmatch(text):
        text = re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)
    if "%" not in text and text.isascii():
        return text
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeError:
        raise Malformed(name, "it is no UTF-8") from None


def is_text(value: str) -> bool:
    """Whether an attribute may say it."""
    if value.isascii():
        return value.isprintable()
    return _NEVER.search(value) is None and not any(ord(char) & 0xFFFE == 0xFFFE for char in value)


def shown(text: str) -> str:
    """Other people's words in a reason: on one line, and not for long."""
    return encoded(text[:SHOWN_CHARS])


def is_json(media: str) -> bool:
    return media == JSON or _JSON_TYPE.fullmatch(media) is not None


@lru_cache(512)
def _known(subject: str) -> dict[str, str]:
    source, kind = origin(subject)
    return {"ce-specversion": SPECVERSION, "ce-source": source, "ce-type": kind, "ce-datacontenttype": JSON}


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))


def _is_structured(name: str, text: str) -> bool:
    return len(name) == len("Content-Type") and name.lower() == "content-type" and text.strip().lower().startswith(MEDIA)


def _content_type(headers: Mapping[str, str]) -> str:
    return next((text for name, text in headers.items() if name.lower() == "content-type"), "")


def _canonical(name: str, value: Any) -> str:
    """The string of an attribute in a JSON document. Raises Malformed."""
    if isinstance(value, str):
        return value
    if name not in _CORE and isinstance(value, bool):
        return "true" if value else "false"
    if name not in _CORE and isinstance(value, int) and -INTEGER_MOST <= value < INTEGER_MOST:
        return str(value)
    raise Malformed(name, "it must be a string" if name in _CORE else "it is no string, boolean or integer of 32 bits")


def _data_in(document: Mapping[str, Any], media: str) -> bytes:
    if "data_base64" in document:
        return _base64_data(document)
    if "data" not in document:
        return b""
    data = document["data"]
    return data.encode() if isinstance(data, str) and not is_json(media) else to_json(data)


def _base64_data(document: Mapping[str, Any]) -> bytes:
    if "data" in document:
        raise Malformed("data", "there are both data and data_base64")
    try:
        return base64.b64decode(document["data_base64"], validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Malformed("data_base64", "it is no base64") from None


def _check_forms(attributes: Mapping[str, str]) -> None:
    if not _URI_REFERENCE.fullmatch(attributes["source"]):
        raise Malformed("source", "it is no URI reference")
    if (schema := attributes.get("dataschema")) is not None and not (_URI.fullmatch(schema) and _URI_REFERENCE.fullmatch(schema)):
        raise Malformed("dataschema", "it is no absolute URI")
    if (media := attributes.get("datacontenttype")) is not None and not _MEDIA_TYPE.fullmatch(media):
        raise Malformed("datacontenttype", "it is no media type")
    if attributes.get("subject") == "":
        raise Malformed("subject", "it must not be empty")
    if (moment := attributes.get("time")) is not None and not _is_moment(moment):
        raise Malformed("time", "it is no RFC 3339 moment like 2026-01-02T03:04:05Z")


def _is_moment(text: str) -> bool:
    if (found := _MOMENT.fullmatch(text)) is None:
        return False
    day, minute, second, _, offset = found.groups()
    try:
        datetime.fromisoformat(f"{day}T{minute}:{'59' if second == '60' else second}{offset.upper()}")
    except ValueError:
        return False
    return True


def _as_validation_error(error: Malformed) -> ValidationError:
    """What becomes a dead letter with its reason, as a body does that does not fit."""
    kind = PydanticCustomError("cloudevent", "malformed CloudEvent: {why}", {"why": error.why})
    return ValidationError.from_exception_data("CloudEvent", [InitErrorDetails(type=kind, loc=(error.attribute,), input=None)])
