"""An error as an operator wants it: what happened, why, and what to type next. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.errors import Failure

FAULT, POLICY = "✖", "▣"
SHOWN = frozenset({"why", "next", "reason", "recommended_action", "retry_after", "correlation_id", "wake_ms"})
"""Details that have a place of their own in what is told."""
NOISE = frozenset(
    {"status", "status_code", "detail", "service", "name", "actor", "path", "available_endpoints", "problems", "errors"}
) | frozenset({"budget", "of", "limit", "used", "needed", "resets_at"})
"""Details that repeat what the message says, or are too long for a line."""

Next = tuple[str, str]
"""What to type, and what that does."""


@dataclass(frozen=True)
class Told:
    """`what` is true alone; `why` may be empty; `next` is what can be done, the best first."""

    glyph: str
    what: str
    why: str = ""
    next: tuple[Next, ...] = ()


def explain(failure: Failure, *, actor: str = "") -> Told:
    """`actor`: whom the command was about, when the failure does not say so itself."""
    details = failure.details
    name = _text(details, "service", "actor", "name") or actor
    what = failure.message or failure.code.replace("_", " ")
    why = _text(details, "why", "reason") or _rest(details)
    glyph = POLICY if failure.code == "off_by_policy" else FAULT
    return Told(glyph, _sentence(what), "" if why == what else why, tuple(_next(failure, name)))


def _next(failure: Failure, name: str) -> list[Next]:
    """What the failure itself advises, else what its code suggests."""
    given = [(str(command), str(meaning)) for command, meaning in failure.details.get("next", [])]
    if given:
        return given
    return _by_code(failure, name) or [(advised, "") for advised in [_text(failure.details, "recommended_action")] if advised]


def _by_code(failure: Failure, name: str) -> list[Next]:
    correlation = _text(failure.details, "correlation_id")
    logs: Next = (
        f"vx11 logs {name}".rstrip(),
        f"look for {correlation}" if correlation else "what its processes printed",
    )
    wait = failure.details.get("retry_after")
    again = f"try again in {float(wait):g} s" if isinstance(wait, int | float) else "try again"
    table: dict[str, list[Next]] = {
        "off_by_policy": [
            (f"vx11 window open {name or 'NAME'} --for 30m", "open it for half an hour"),
            (f"vx11 gate {name or 'NAME'} on_demand", "let it wake by itself again"),
        ],
        "auth_required": [("export VX11_TOKEN=...", "the token printed at the first start, or: vx11 token new")],
        "forbidden": [("vx11 token ls", "which tokens there are, and what each may do")],
        "not_found": [("vx11 status", "which actors there are")],
        "endpoint_not_found": [("echo $VX11_URL", "is it the gateway's address? (usually port 8000)")],
        "invalid": [("vx11 COMMAND --help", "what it takes")],
        "over_budget": [("vx11 usage", "who has used how much, and what is left")],
        "busy": [(again, "it has more work than it takes on at a time")],
        "waking": [(again, "it was still waking"), ("vx11 status", "see whether it woke")],
        "timeout": [("vx11 status", "who is awake, and what each one does"), logs],
        "unavailable": [("vx11 doctor", "which part does not answer"), logs],
        "crashed": [logs, ("vx11 status", "whether it came back")],
        "internal": [logs],
        "storage_full": [("vx11 doctor", "how much space is left")],
        "conflict": [("vx11 status", "how things stand now")],
    }
    return table.get(failure.code, [])


def understood(error: Exception) -> Failure | None:
    """The failure behind an exception that a command may raise; None when it is a fault of the program."""
    if isinstance(error, Failure):
        return error
    if hasattr(error, "errors") and type(error).__module__.startswith("pydantic"):
        return Failure("invalid", said_wrongly(error.errors()))
    if isinstance(error, PermissionError):
        return Failure("forbidden", f"{error.filename}: permission denied")
    return None


def said_wrongly(errors: list[dict[str, Any]]) -> str:
    """The findings of pydantic as one sentence."""
    return "; ".join(
        f"{'.'.join(str(part) for part in error.get('loc', ())) or 'the value'}: {error.get('msg', 'is wrong')}"
        for error in errors
    )


def _text(details: Mapping[str, Any], *names: str) -> str:
    return next((str(details[name]) for name in names if details.get(name)), "")


def _rest(details: Mapping[str, Any]) -> str:
    """The remaining details, so that nothing an actor said of its failure is swallowed."""
    kept = {key: value for key, value in details.items() if key not in SHOWN | NOISE and value not in (None, "", [], {})}
    return ", ".join(f"{key}: {value}" for key, value in kept.items())


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", ":")) else f"{text}."
