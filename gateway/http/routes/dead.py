"""Routes of the dead letters: what could not be handled, and what becomes of it."""

from __future__ import annotations

from gateway.http import dead
from gateway.http.routes.route import Route
from schemas.dead import DeadDropped, DeadLetter, DeadList, DeadRetried, DropDead, ListDead, RetryDead

FAILS = ("not_found", "crashed")
ACTED = (*FAILS, "conflict", "busy", "waking", "off_by_policy", "storage_full")
NUMBER = frozenset({"sequence"})

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/operator/api/dlq",
        "dlq",
        "read",
        dead.list_letters,
        "What could not be handled, the oldest first.",
        DeadList,
        query=ListDead,
        fails=FAILS,
        message=ListDead,
    ),
    Route(
        "GET",
        "/operator/api/dlq/{sequence}",
        "dlq_letter",
        "read",
        dead.show,
        "One dead letter, and a piece of its body.",
        DeadLetter,
        query=dead.Piece,
        fails=FAILS,
    ),
    Route(
        "POST",
        "/operator/api/dlq/{sequence}/retry",
        "dlq_retry",
        "command",
        dead.retry,
        "Give it back to the handler that could not take it.",
        DeadRetried,
        takes=RetryDead,
        fixed=NUMBER,
        fails=ACTED,
        message=RetryDead,
    ),
    Route(
        "POST",
        "/operator/api/dlq/{sequence}/drop",
        "dlq_drop",
        "command",
        dead.drop,
        "Remove it for good, and say why.",
        DeadDropped,
        takes=DropDead,
        fixed=NUMBER,
        fails=ACTED,
        message=DropDead,
    ),
)
