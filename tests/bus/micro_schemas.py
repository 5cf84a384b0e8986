"""What ADR-32 says of the three answers of a NATS service, as JSON schemas: its field lists, nothing of ours."""

from __future__ import annotations

from typing import Any

NAME = r"^[a-zA-Z0-9_-]+$"
SEMVER = (
    r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$"
)
RFC3339 = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$"

STRING = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
METADATA = {"type": "object", "additionalProperties": STRING}


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    """All of these and nothing else: a field that ADR-32 does not know is read by no tool."""
    return {"type": "object", "properties": properties, "required": sorted(properties), "additionalProperties": False}


def _answer(kind: str, **more: Any) -> dict[str, Any]:
    common = {
        "type": {"const": f"io.nats.micro.v1.{kind}_response"},
        "name": {"type": "string", "pattern": NAME},
        "id": {"type": "string", "minLength": 1},
        "version": {"type": "string", "pattern": SEMVER},
        "metadata": METADATA,
    }
    return {"$schema": "http://json-schema.org/draft-07/schema#", **_closed(common | more)}


_ENDPOINT = {"name": {"type": "string", "pattern": NAME}, "subject": {**STRING, "minLength": 1}, "queue_group": STRING}

PING = _answer("ping")

INFO = _answer(
    "info",
    description=STRING,
    endpoints={"type": "array", "items": _closed(_ENDPOINT | {"metadata": METADATA})},
)

STATS = _answer(
    "stats",
    started={"type": "string", "pattern": RFC3339},
    endpoints={
        "type": "array",
        "items": _closed(
            _ENDPOINT
            | {
                "num_requests": COUNT,
                "num_errors": COUNT,
                "last_error": STRING,
                "processing_time": COUNT,
                "average_processing_time": COUNT,
            }
        ),
    },
)

SCHEMAS = {"PING": PING, "INFO": INFO, "STATS": STATS}
