"""CloudEvents at the door: those that are sent in, in either mode of the HTTP binding, and stored events given out as such."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from bus import cloudevents
from bus.cloudevents import CloudEvent, Malformed
from gateway.moment import rfc3339
from schemas.errors import Failure

if TYPE_CHECKING:
    from gateway.http.parts import StoredLike

ID_CHARS_MOST = 200
"""Of the id by which the log knows an event again; a longer one becomes its hash."""


ATTRIBUTES_BYTES_MOST = 8 * 1024
"""Of all attributes as headers: half of what the streams leave to headers beside a body."""


class CloudLine(BaseModel):
    """What a stored event is called in the world of CloudEvents. `malformed`: why it is none, although it is meant as one."""

    id: str
    source: str
    type: str
    malformed: str = ""


def sent(headers: Mapping[str, str], body: bytes) -> CloudEvent | None:
    """The CloudEvent in a request, None for a plain body. Raises Failure("invalid" | "too_large")."""
    if not cloudevents.meant(headers):
        return None
    media = headers.get("Content-Type", "")
    try:
        if media.strip().lower().startswith(cloudevents.MEDIA):
            event = cloudevents.read_structured(media, body)
        else:
            event = CloudEvent(cloudevents.checked(_in_headers(headers, media)), body)
        if not event.is_json:
            raise Malformed("datacontenttype", "the data of an event on this bus is a JSON object")
    except Malformed as error:
        raise Failure("invalid", f"malformed CloudEvent: {error}", field=error.attribute) from None
    if sum(len(name) + len(text) for name, text in cloudevents.binary(event).items()) > ATTRIBUTES_BYTES_MOST:
        raise Failure("too_large", f"the attributes may have {ATTRIBUTES_BYTES_MOST} bytes", max_bytes=ATTRIBUTES_BYTES_MOST)
    return event


def identity(subject: str, event: CloudEvent) -> str:
    """By what the log knows the same event again: source and id, as the specification has it, and where it is told."""
    text = cloudevents.encoded(f"{subject} {event.attributes['source']} {event.attributes['id']}")
    return text if len(text) <= ID_CHARS_MOST else hashlib.sha256(text.encode()).hexdigest()


def opened(stored: StoredLike) -> tuple[CloudLine, bytes]:
    """What a stored event is called, and its data."""
    try:
        event = cloudevents.read(stored.headers, stored.body)
    except Malformed as error:
        return CloudLine(**_own_names(stored), malformed=str(error)), stored.body
    if event is None:
        return CloudLine(**_own_names(stored)), stored.body
    return CloudLine(**{name: event.attributes[name] for name in ("id", "source", "type")}), event.data


def document(stored: StoredLike) -> dict[str, Any]:
    """A stored event in structured form. Beside its own attributes: where it is in the log, and its conversation."""
    try:
        event = cloudevents.read(stored.headers, stored.body)
    except Malformed as error:
        body = base64.b64encode(stored.body).decode()
        return {**_least(stored), "vxmalformed": str(error), "data_base64": body, **_place(stored)}
    if event is None:
        event = CloudEvent({**_least(stored), "datacontenttype": cloudevents.JSON}, stored.body)
    made = cloudevents.structured(event)
    for name, header in cloudevents.CONVERSATION.items():
        if (told := stored.headers.get(header)) and cloudevents.is_text(told):
            made.setdefault(name, told)
    return {**made, **_place(stored)}


def batch(stored: list[StoredLike]) -> bytes:
    """The body of `application/cloudevents-batch+json`."""
    return json.dumps([document(one) for one in stored], ensure_ascii=False).encode()


def _in_headers(headers: Mapping[str, str], media: str) -> dict[str, str]:
    """The HTTP binding differs from that of NATS in one point: the type of the data is the content type of the request."""
    attributes = cloudevents.read_attributes(headers)
    if "datacontenttype" in attributes:
        raise Malformed("datacontenttype", "over HTTP it is the header Content-Type and not a header of its own")
    return {**attributes, "datacontenttype": media or cloudevents.JSON}


def _own_names(stored: StoredLike) -> dict[str, str]:
    """Of an event that was published plain; the stream's name makes its number an id."""
    source, kind = cloudevents.origin(stored.subject)
    return {"id": f"VX11_EVENTS:{stored.sequence}", "source": source, "type": kind}


def _least(stored: StoredLike) -> dict[str, str]:
    return {"specversion": cloudevents.SPECVERSION, **_own_names(stored), "time": rfc3339(stored.at)}


def _place(stored: StoredLike) -> dict[str, str]:
    return {"vxsequence": str(stored.sequence), "vxsubject": cloudevents.encoded(stored.subject)}
