"""What was asked and answered in a call, as it may be recorded: without secrets, and no longer than is useful."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import from_json

from bus.redaction import redacted_document
from schemas.message import HIDDEN, RECORDED, Message, Request, shown_fields

BYTES_MOST = 64 * 1024
"""Of a request or a reply; a longer one is left out, and the record says `truncated`."""


class Bodies(NamedTuple):
    """One call's, as they travelled; a streamed answer as its whole. Reading them is the recorder's work, not the request's."""

    kind: type[Request[Any]]
    request: bytes
    reply: bytes
    ok: bool
    """Otherwise the reply is an error."""

    @property
    def size(self) -> int:
        return len(self.request) + len(self.reply)

    def document(self) -> dict[str, Any]:
        """`request`, `reply`; `hidden`: something of the request is kept out, so that it cannot be asked again as it was."""
        made: dict[str, Any] = {"truncated": False}
        request = recorded(self.kind, self.request)
        if request is None:
            made["truncated"] = True
        else:
            made |= {"request": request, "hidden": holds(request, HIDDEN) and HIDDEN.encode() not in self.request}
        reply = recorded(self.kind.reply_type() if self.ok else None, self.reply)
        return made | ({"truncated": True} if reply is None else {"reply": reply})


def recorded(kind: type[Message] | None, body: bytes) -> Any:
    """One body as a document, with the fields that were in it; None when it is too long, or does not fit its class.

    What does not fit is left out because nobody knows which of its fields are secret. Without a class: an error.
    """
    if len(body) > BYTES_MOST:
        return None
    if kind is None:
        return redacted_document(from_json(body))
    try:
        message = kind.model_validate_json(body or b"{}")
    except ValidationError:
        return None
    document = message.model_dump(mode="json", by_alias=True, exclude_unset=True, context=RECORDED)
    return redacted_document(document, shown=shown_fields(kind))


def holds(value: Any, text: str) -> bool:
    """Whether a string of the document has the text in it."""
    if isinstance(value, dict):
        return any(holds(one, text) for one in value.values())
    if isinstance(value, list):
        return any(holds(one, text) for one in value)
    return isinstance(value, str) and text in value
