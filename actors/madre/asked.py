"""Who or what has wanted a change, so that the events of it can say why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from actors.madre.effects import Held
from bus import call
from schemas.power import Cause

SENDERS: Mapping[str, Cause] = {"SIGTERM": "signal", "its host stops": "host"}
"""Reasons with which an instance and a host ask for a sleep themselves (`bus.instance`, `bus.host`)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """`by`: the token id or the actor that asked, as its headers say; `about`: the verb, the subject, the window."""

    cause: Cause = ""
    by: str = ""
    about: str = ""
    request_id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The conversation that it belongs to."""

    @property
    def fields(self) -> dict[str, str]:
        """What an event tells of it."""
        return {"cause": self.cause, "by": self.by, "about": self.about, "request_id": self.request_id}


def by_request(held: Held) -> Asked:
    return Asked("request", held.headers.get(call.CALLER, ""), held.verb, held.request_id, held.headers)


def now(cause: Cause, about: str = "", headers: Mapping[str, str] | None = None) -> Asked:
    """By the message with these headers, else by the call that one is inside of, else by nobody."""
    inside = call.current.get()
    if headers:
        return Asked(cause, headers.get(call.CALLER, ""), about, headers=headers)
    if inside:
        return Asked(cause, inside.caller, about, inside.request_id, inside.headers())
    return Asked(cause, about=about)
