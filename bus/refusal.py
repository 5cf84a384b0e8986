"""A failure as it is answered: the headers of ADR-32 and a document."""

from __future__ import annotations

import json

from pydantic import ValidationError

from bus import call
from bus.redaction import without_credentials
from schemas.errors import Failure

HEADER_CHARS = 300
PROBLEMS_TOLD, PROBLEMS_MOST = 3, 20
"""In the message, and in the document's list."""


def refusal(failure: Failure, correlation_id: str = "") -> tuple[dict[str, str], bytes]:
    """What is added to the answer's headers, and its body."""
    headers = {
        call.ERROR: without_credentials(f"{failure.code}: {failure.message}")[:HEADER_CHARS],
        call.ERROR_CODE: str(failure.status),
    }
    return headers, without_credentials(json.dumps(failure.document(correlation_id), default=str)).encode()


def invalid(error: ValidationError) -> Failure:
    """A validation error in words: which field, what is wrong; never the value."""
    problems = [
        {"field": ".".join(str(part) for part in e["loc"]) or "body", "problem": e["msg"]}
        for e in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    told = "; ".join(f"{p['field']}: {p['problem']}" for p in problems[:PROBLEMS_TOLD])
    return Failure("invalid", f"the body does not fit: {told}", problems=problems[:PROBLEMS_MOST])
