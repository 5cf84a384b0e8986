"""The recorded calls of one actor, each with what was asked inside it, from the stream of call records."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from bus.client import Bus
from bus.eventlog import EventLog, sequence_of
from bus.streams import CALLS
from bus.wire import Msg

Document = dict[str, Any]

PAGE = 500
NOT_THE_CODES = frozenset({"timeout", "cancelled", "busy", "crashed", "waking", "off_by_policy", "invalid", "endpoint_not_found"})
"""Answers that no handler gave: another moment, not another code, would change them."""
WITHOUT_BODY, HIDDEN, TRUNCATED, NO_HANDLER = (
    "recorded without its bodies",
    "has a secret in it, which is not recorded",
    "is too long, or did not fit, and was recorded in part",
    "was not answered by a handler",
)
NO_RECORD = "is none of ours"
NAMED = ("correlation_id", "traceparent", "parent", "caller", "subject", "received_at", "code")
"""What every record says, in words."""


@dataclass
class Recording:
    """`calls`, oldest first, that can be asked again; `left_out`: why others cannot, and how many."""

    calls: list[Document] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


async def recording_of(bus: Bus, actor: str, *, since: str = "", correlation_id: str = "", limit: int) -> Recording:
    """The newest `limit`. `since`: RFC 3339. Raises Failure("unavailable") when the stream cannot be read."""
    log = EventLog(bus, CALLS, "vx11.calls.>")
    made, kept = Recording(), deque[Document](maxlen=limit)
    after = await log.first_since(since) - 1 if since else 0
    if after < 0:  # nothing is that young
        return made
    async for msg in _messages(log, f"vx11.calls.{actor}.*", after):
        one = _record(msg)
        if "event" in one or (correlation_id and one.get("correlation_id") != correlation_id):
            continue  # the handling of an event is recorded, too, and has no answer
        if why := _unfit(one):
            made.left_out[why] += 1
        else:
            kept.append({**one, "sequence": sequence_of(msg), "verb": one["subject"].rsplit(".", 1)[1], "inside": []})
    made.calls = list(kept)
    await _find_inside(log, made.calls)
    return made


async def _messages(log: EventLog, subject: str, after: int) -> AsyncIterator[Msg]:
    while page := await log.page(after, PAGE, subject=subject):
        for msg in page:
            yield msg
        after = sequence_of(page[-1])


def _record(msg: Msg) -> Document:
    """What the message says; empty when it is no record of ours: other programs may write there, too."""
    try:
        one = json.loads(msg.data)
    except ValueError:
        return {}
    known = isinstance(one, dict) and all(isinstance(one.get(name), str) for name in NAMED)
    return one if known else {}


def _unfit(one: Document) -> str:
    """Why a call cannot be asked again; empty when it can."""
    if not one:
        return NO_RECORD
    if one["code"] in NOT_THE_CODES:
        return NO_HANDLER
    if one.get("truncated"):
        return TRUNCATED
    if "request" not in one or "reply" not in one:
        return WITHOUT_BODY
    return HIDDEN if one.get("hidden") else ""


async def _find_inside(log: EventLog, calls: list[Document]) -> None:
    """Add to each call the calls that its handling has made, in their order: their records came after it had begun."""
    if not calls:
        return
    by_span = {one["traceparent"][36:52]: one for one in calls}
    first = await log.first_since(min(one["received_at"] for one in calls))
    async for msg in _messages(log, ">", max(0, first - 1)):
        one = _record(msg)
        outer = by_span.get(one.get("parent", ""))
        if outer is not None and "request" in one and "reply" in one:
            outer["inside"].append({key: one[key] for key in ("subject", "request", "reply", "code", "received_at")})
    for outer in calls:
        outer["inside"].sort(key=lambda one: one["received_at"])
