"""Answers as HTTP: JSON bodies, errors in their one shape, the headers that every answer carries."""

from __future__ import annotations

import json
import math
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from schemas.errors import CODES, Failure

JSON = "application/json"
TEXT = "text/plain"
COMMON = {"Server": "vx11", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
COMMON_JSON = {**COMMON, "Content-Type": JSON}
ASK_AGAIN_S = 1
"""What Retry-After says when the failure does not know better."""
_RETRY = frozenset({"busy", "waking", "unavailable"})
_OWN = frozenset({"error", "detail", "message", "status_code", "correlation_id"})


def json_response(body: BaseModel | bytes, *, status: int = 200) -> web.Response:
    """Bytes are one JSON document already and pass as they are."""
    data = body if isinstance(body, bytes) else body.model_dump_json(by_alias=True).encode()
    return web.Response(body=data, status=status, headers=COMMON_JSON)


def text_response(text: str, *, content_type: str = TEXT) -> web.Response:
    return web.Response(text=text, content_type=content_type, charset="utf-8", headers=COMMON)


def failure_document(failure: Failure, correlation_id: str) -> dict[str, Any]:
    """The error body. `error` and `detail` both carry the code, for old clients that read either."""
    document = {
        "error": failure.code,
        "detail": failure.code,
        "message": failure.message,
        "status_code": failure.status,
        "correlation_id": correlation_id,
        **{name: value for name, value in failure.details.items() if name not in _OWN},
    }
    if failure.code == "off_by_policy":
        document.setdefault("service", "")
        document.setdefault("recommended_action", "open a window for it, or set its gate to on_demand")
        document["status"] = "OFF_BY_POLICY"
    return document


def failure_response(failure: Failure, correlation_id: str) -> web.Response:
    body = json.dumps(failure_document(failure, correlation_id), default=str).encode()
    response = web.Response(body=body, status=failure.status, headers=COMMON_JSON)
    if failure.code in _RETRY:
        response.headers["Retry-After"] = str(_whole_seconds(failure.details.get("retry_after")))
    if failure.code == "auth_required":
        response.headers["WWW-Authenticate"] = 'Bearer realm="vx11"'
    if failure.code == "method_not_allowed":
        response.headers["Allow"] = ", ".join(failure.details.get("allow", ()))
    return response


def _whole_seconds(told: object) -> int:
    return max(ASK_AGAIN_S, math.ceil(told)) if isinstance(told, (int, float)) and math.isfinite(told) else ASK_AGAIN_S


def status_codes(*codes: str) -> frozenset[int]:
    return frozenset(CODES[code].status for code in codes)
