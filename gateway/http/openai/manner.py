"""Failures in OpenAI's shape and statuses, so that its clients raise what they would raise there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from gateway.http import cors
from gateway.http.answer import BEARER, Whole, failure_headers
from gateway.http.exchange import Exchange
from gateway.http.guard import TOKEN
from gateway.http.manner import Manner
from schemas.errors import CODES, Failure

REQUEST_ID = "X-Request-Id"
"""Where its clients look for the id that they tell of a failure."""
FAULT, REFUSED, SERVER = "invalid_request_error", "permission_error", "server_error"


class Said(NamedTuple):
    status: int
    type: str
    code: str


WRONG_KEY = Said(401, FAULT, "invalid_api_key")
TOO_LONG = Said(400, FAULT, "context_length_exceeded")
NO_MODEL = Said(404, FAULT, "model_not_found")
SAID = {
    "invalid": Said(400, FAULT, "invalid_value"),
    "auth_required": WRONG_KEY,
    "forbidden": Said(403, REFUSED, "insufficient_permissions"),
    "off_by_policy": Said(403, REFUSED, "off_by_policy"),
    "endpoint_not_found": Said(404, FAULT, "unknown_url"),
    "busy": Said(429, "requests", "rate_limit_exceeded"),
    "over_budget": Said(429, "insufficient_quota", "insufficient_quota"),
}
"""Where OpenAI has a word of its own; all others keep our status and our code."""
FINAL = frozenset({"over_budget", "off_by_policy", "not_installed", "conflict", "storage_full"})
"""Asking again at once is of no use, though the status alone would make a client do so."""


class Error(BaseModel):
    """`vx11`: our own code, the conversation, and what else is known."""

    message: str
    type: str
    param: str | None
    code: str
    vx11: dict[str, Any]


class ErrorAnswer(BaseModel):
    """Every error under /v1."""

    error: Error


class OpenAi(Manner):
    """Under /v1."""

    error = ErrorAnswer

    def failure(self, failure: Failure, correlation_id: str) -> Whole:
        headers, status = failure_headers(failure), said(failure).status
        if failure.code in FINAL:
            headers["X-Should-Retry"] = "false"
        if status == WRONG_KEY.status:
            headers["WWW-Authenticate"] = BEARER
        return Whole(_document(failure, correlation_id), headers, status=status)

    def event(self, failure: Failure, correlation_id: str) -> tuple[str, bytes]:
        return "", _document(failure, correlation_id)

    def statuses(self, code: str) -> tuple[int, ...]:
        plain = SAID[code].status if code in SAID else CODES[code].status
        more = {"forbidden": (WRONG_KEY.status,), "too_large": (TOO_LONG.status,)}
        return (plain, *more.get(code, ()))

    def headers(self, x: Exchange) -> Mapping[str, str]:
        return {REQUEST_ID: x.correlation_id, **cors.headers(x.parts.settings, x.request)}

    def foreign(self, x: Exchange) -> Sequence[str]:
        return [origin for origin in super().foreign(x) if not cors.allowed(x.parts.settings, origin)]

    def preflight(self, x: Exchange) -> Whole | None:
        return cors.preflight(x.parts.settings, x.request)


OPENAI = OpenAi()


def said(failure: Failure) -> Said:
    """What OpenAI says for it."""
    code, details = failure.code, failure.details
    if code == "forbidden" and details.get("field") == TOKEN:
        return WRONG_KEY
    if code == "too_large" and "max_bytes" not in details:
        return TOO_LONG
    if code == "not_found" and "model" in details:
        return NO_MODEL
    status = CODES[code].status
    return SAID.get(code) or Said(status, SERVER if status >= 500 else FAULT, code)


def _document(failure: Failure, correlation_id: str) -> bytes:
    kind = said(failure)
    error = {
        "message": failure.message,
        "type": kind.type,
        "param": "model" if kind is NO_MODEL else failure.details.get("field"),
        "code": kind.code,
        "vx11": {**failure.details, "error": failure.code, "correlation_id": correlation_id},
    }
    return json.dumps({"error": error}, default=str).encode()
