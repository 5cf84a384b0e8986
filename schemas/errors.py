"""What can go wrong, as codes; how the code looks as an HTTP status or as an exit code is in the same table."""

from __future__ import annotations

from typing import Any, NamedTuple


class Code(NamedTuple):
    """One row of the table."""

    status: int
    """HTTP status, also the number in `Nats-Service-Error-Code`."""
    exit: int
    """Exit code of the command line (sysexits.h where one fits)."""
    executed: bool
    """False: the request was surely not executed, so the same id may be sent again plainly."""


CODES: dict[str, Code] = {
    "invalid": Code(400, 65, False),
    "auth_required": Code(401, 77, False),
    "forbidden": Code(403, 77, False),
    "off_by_policy": Code(403, 77, False),
    "not_found": Code(404, 66, True),
    "endpoint_not_found": Code(404, 64, False),
    "method_not_allowed": Code(405, 64, False),
    "conflict": Code(409, 73, True),
    "too_large": Code(413, 65, False),
    "unsupported_media": Code(415, 65, False),
    "busy": Code(429, 75, False),
    "over_budget": Code(429, 75, False),
    "cancelled": Code(499, 75, True),
    "internal": Code(500, 70, True),
    "not_installed": Code(501, 69, False),
    "crashed": Code(502, 70, True),
    "unavailable": Code(503, 69, False),
    "waking": Code(503, 75, False),
    "timeout": Code(504, 75, True),
    "storage_full": Code(507, 74, False),
}


class Failure(Exception):
    """An answer that is an error, known by its code. Raise it in a handler to give it to the caller.

    `details` become fields of the error document (JSON values), for instance `retry_after` in seconds.
    """

    def __init__(self, code: str, message: str, **details: Any) -> None:
        if code not in CODES:
            raise ValueError(f"{code!r} is no error code of schemas/errors.py")
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.details = details

    @property
    def status(self) -> int:
        return CODES[self.code].status

    def document(self, correlation_id: str = "") -> dict[str, Any]:
        """The error document as it travels."""
        return {"error": self.code, "message": self.message, "correlation_id": correlation_id, **self.details}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Failure:
        """The failure that another process answered; a code that this version does not know becomes `internal`."""
        rest = {k: v for k, v in document.items() if k not in ("error", "message", "code")}
        code = str(document.get("error", "internal"))
        message = str(document.get("message", ""))
        return cls(code, message, **rest) if code in CODES else cls("internal", f"{code}: {message}", **rest)
