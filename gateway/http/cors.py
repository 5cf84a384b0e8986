"""Pages of other origins that may ask here: which, and the headers by which a browser learns it."""

from __future__ import annotations

import re

from aiohttp import web

from gateway.http.answer import COMMON, Whole
from gateway.http.settings import ANY_ORIGIN, HttpSettings

ALLOWED = "Access-Control-Allow-Origin"
METHODS = "GET, POST"
KEPT_S = 600
"""So long a browser need not ask again."""
EXPOSED = "X-Correlation-Id, X-Request-Id, X-Vx11-Wake-Ms, X-Vx11-Provider, Retry-After, X-Should-Retry"
"""What a page may read of an answer, beside the body."""
HEADER_NAMES = re.compile(r"[A-Za-z0-9_, -]{1,2048}")


def allowed(settings: HttpSettings, origin: str) -> bool:
    return origin in settings.origins or ANY_ORIGIN in settings.origins


def headers(settings: HttpSettings, request: web.BaseRequest) -> dict[str, str]:
    """Tell the browser of a welcome page that the page may read this. Without configured origins nothing is said."""
    if not settings.origins:
        return {}
    origin = request.headers.get("Origin")
    if origin is None or not allowed(settings, origin):
        return {"Vary": "Origin"}
    told = ANY_ORIGIN if ANY_ORIGIN in settings.origins else origin
    return {"Vary": "Origin", ALLOWED: told, "Access-Control-Expose-Headers": EXPOSED}


def preflight(settings: HttpSettings, request: web.BaseRequest) -> Whole | None:
    """Yes to the question of a welcome page's browser; None when it is none. Needs no token: browsers send none."""
    told = request.headers
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in told:
        return None
    if not allowed(settings, told.get("Origin", "")):
        return None
    said = {**COMMON, "Access-Control-Allow-Methods": METHODS, "Access-Control-Max-Age": str(KEPT_S)}
    if HEADER_NAMES.fullmatch(wanted := told.get("Access-Control-Request-Headers", "")):
        said["Access-Control-Allow-Headers"] = wanted
    return Whole(b"", said)
