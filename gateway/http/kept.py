"""What the keeper says of the event log, by its heartbeats."""

from __future__ import annotations

import json
import time
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from bus.wire import Msg
from gateway.moment import rfc3339

HEARTBEATS = "vx11.hb.keeper.*"
SILENT_S = 10.0
"""Five heartbeats missed."""

State = Literal["opening", "checking", "whole", "broken", "closed", "silent", "unknown"]
"""`closed`: the keeper cannot open its file, or not read on or write. `silent`: it was heard before, and is not any more.
`unknown`: never heard."""
BAD = frozenset({"broken", "closed", "silent"})


class Kept(BaseModel):
    """The event log, as the keeper last told of it."""

    model_config = ConfigDict(frozen=True)

    state: State = "unknown"
    reason: str = ""
    observed_at: str = ""

    @property
    def bad(self) -> bool:
        return self.state in BAD


NEVER_HEARD = Kept()


class KeeperHeard:
    """`heard` takes heartbeats; `now` says how it stands."""

    def __init__(self) -> None:
        self._told = NEVER_HEARD
        self._at = 0.0

    def heard(self, msg: Msg) -> None:
        try:
            document = json.loads(msg.data)
            state, reason = document["state"], str(document.get("reason", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # nobody else may send one, see bus/users.py; what cannot be read tells nothing
        if state in get_args(State):
            self._told, self._at = Kept(state=state, reason=reason, observed_at=rfc3339(time.time())), time.monotonic()

    def now(self) -> Kept:
        if self._at and time.monotonic() - self._at > SILENT_S:
            at = self._told.observed_at
            return Kept(state="silent", reason=f"the keeper was last heard at {at}", observed_at=at)
        return self._told
