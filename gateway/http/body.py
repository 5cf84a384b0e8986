"""The body of a request: read within its clock and bound, then made into a message."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from gateway.http.settings import HttpSettings
from schemas.errors import Failure

M = TypeVar("M", bound=BaseModel)

JSON = "application/json"
_JSON_KIND = re.compile(r"\s*application/(json|[\w.-]+\+json)\s*(;.*)?", re.IGNORECASE)
BYTES_PER_SECOND = 64 * 1024
"""The slowest sender that is waited for."""
ERRORS_SHOWN = 8


async def read(request: web.BaseRequest, settings: HttpSettings) -> bytes:
    """The whole body. Raises Failure: compressed or no JSON, longer than allowed, or too slow."""
    content = request.content
    if content.is_eof() and content.at_eof():
        return b""
    _check_media(request.headers)
    most = int(settings.body_bytes)
    if content.is_eof():  # it has come with the head, as small ones do
        return _bounded(content.read_nowait(), most)
    announced = request.content_length or 0
    if announced > most:
        raise too_large(most)
    clock = settings.body_s + announced / BYTES_PER_SECOND
    try:
        async with asyncio.timeout(clock):
            return await _all(content, most)
    except TimeoutError:
        raise Failure("invalid", f"the body was not here after {clock:.1f} s", field="body") from None
    except (web.RequestPayloadError, ValueError) as error:
        raise Failure("invalid", f"the body cannot be read: {error}", field="body") from error


def message_of(kind: type[M], body: bytes, fixed: Mapping[str, Any] | None = None) -> M:
    """The body as a message; `fixed` fields come from elsewhere and may not be in it. Raises Failure("invalid")."""
    try:
        if not fixed:
            return kind.model_validate_json(body or b"{}", strict=True)
        return kind.model_validate({**_document(body, fixed), **fixed}, strict=True)
    except ValidationError as error:
        raise invalid(error) from None


def query_of(kind: type[M], request: web.BaseRequest) -> M:
    """The query string as a message; parameters that it does not know are not looked at. Raises Failure("invalid")."""
    known = {name: text for name, text in request.query.items() if name in kind.model_fields}
    try:
        return kind.model_validate_strings(known)
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError) -> Failure:
    """What pydantic refused, by field, without the values."""
    found = [
        {"field": ".".join(str(part) for part in line["loc"]) or "body", "message": line["msg"], "type": line["type"]}
        for line in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    first = found[0]
    return Failure("invalid", f"{first['field']}: {first['message']}", field=first["field"], errors=found[:ERRORS_SHOWN])


def too_large(most: int) -> Failure:
    return Failure("too_large", f"a body may have {most} bytes", max_bytes=most)


def _check_media(headers: Mapping[str, str]) -> None:
    coding = headers.get("Content-Encoding")
    if coding is not None and coding.strip().lower() not in ("", "identity"):
        raise Failure("unsupported_media", f"bodies are not taken in {coding}; send them as they are")
    kind = headers.get("Content-Type", JSON)
    if kind != JSON and not _JSON_KIND.fullmatch(kind):
        raise Failure("unsupported_media", f"bodies are {JSON}, not {kind}")


def _document(body: bytes, fixed: Mapping[str, Any]) -> dict[str, Any]:
    try:
        document = from_json(body) if body else {}
    except ValueError as error:
        raise Failure("invalid", f"the body is no JSON: {error}", field="body") from error
    if not isinstance(document, dict):
        raise Failure("invalid", "the body must be a JSON object", field="body")
    if twice := sorted(set(document) & set(fixed)):
        raise Failure("invalid", f"{twice[0]}: it is in the path, not in the body", field=twice[0])
    return document


async def _all(content: Any, most: int) -> bytes:
    data = bytearray()
    async for chunk in content.iter_any():
        data += chunk
        if len(data) > most:
            raise too_large(most)
    return bytes(data)


def _bounded(data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise too_large(most)
    return data
