"""How an area of addresses speaks: in VX11's own way, unless the area is somebody else's protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, JsonValue

from gateway.http.answer import Whole, failure_document, failure_response
from schemas.errors import CODES, Failure

if TYPE_CHECKING:
    from gateway.http.exchange import Exchange

NONE: Mapping[str, str] = {}


class ErrorBody(BaseModel):
    """Every error. `error` and `detail` both carry the code; further fields by code."""

    error: str = Field(json_schema_extra={"enum": list[JsonValue](sorted(CODES))})
    detail: str
    message: str
    status_code: int
    correlation_id: str


class Manner:
    """VX11's own. Another one overrides what it does otherwise."""

    error: type[BaseModel] = ErrorBody
    """The class of the body of every failure."""

    def failure(self, failure: Failure, correlation_id: str) -> Whole:
        """A failure as the answer."""
        return failure_response(failure, correlation_id)

    def event(self, failure: Failure, correlation_id: str) -> tuple[str, bytes]:
        """A failure in the middle of an event stream: the name of the event, and its data."""
        return "error", json.dumps(failure_document(failure, correlation_id), default=str).encode()

    def statuses(self, code: str) -> tuple[int, ...]:
        """What a failure of this code may look like."""
        return (CODES[code].status,)

    def headers(self, x: Exchange) -> Mapping[str, str]:  # noqa: ARG002 - for those who override it
        """What every answer here carries, beside the headers of all answers."""
        return NONE

    def foreign(self, x: Exchange) -> Sequence[str]:
        """The origins of the request that are not welcome by configuration."""
        return x.request.headers.getall("Origin", ())

    def preflight(self, x: Exchange) -> Whole | None:  # noqa: ARG002 - for those who override it
        """The answer to a browser that asks whether a page may ask; None when it did not, or may not."""
        return None


OWN = Manner()
