"""Why a provider did not answer, and whose move is next."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import Literal

Blame = Literal["provider", "setup", "caller", "nobody"]
"""`provider`: down, slow or broken, counts against its circuit. `setup`: key, URL or model, for the operator to mend.
`caller`: this request can never be answered. `nobody`: the caller's own deadline was too short to tell."""

SAID_MAX_CHARS = 300
SETUP_STATUSES = frozenset({401, 402, 403, 404, 405})
TRANSIENT_STATUSES = frozenset({408, 429})
"""Of the 4xx, those that are not the caller's fault."""
SLOW_STATUS = 408
"""The one of the 4xx that is said after the work has begun."""
TOO_LONG_STATUS = 413
WINDOW_STATUSES = frozenset({400, 422, 500})
"""With which servers say that a conversation is too long for the model."""
HINTS = {
    401: "it refused the key",
    402: "its account has no credit",
    403: "it refused the key",
    404: "it does not know the model or the path; most base URLs end in /v1",
    405: "it does not know the path; most base URLs end in /v1",
    408: "it timed out",
    413: "the conversation is too long for it",
    429: "too many requests, or the quota is used up",
}
KEY_FORM = re.compile(r"\b(sk|key|pk)-[A-Za-z0-9_*-]{6,}")
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


class ProviderFailed(Exception):
    """`reason`: a fact that may be recorded. `retry_after`: seconds of rest that the provider asked for.

    `said`: its own words, in which the prompt may stand: they go to the caller and nowhere else. `too_long`: the
    conversation does not fit into the model's window. `unspent`: surely nothing was generated, so nothing is to be paid.
    """

    def __init__(
        self,
        reason: str,
        *,
        blame: Blame = "provider",
        said: str = "",
        retry_after: float = 0.0,
        too_long: bool = False,
        unspent: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.blame = blame
        self.said = said
        self.retry_after = retry_after
        self.too_long = too_long
        self.unspent = unspent

    @property
    def told(self) -> str:
        """The reason with the provider's own words."""
        return f"{self.reason}: {self.said}" if self.said else self.reason


def of_status(
    status: int, *, said: str = "", retry_after: str = "", wall_now: float = 0.0, too_long: bool = False
) -> ProviderFailed:
    """What an HTTP status other than 200 means. `wall_now`: seconds since the epoch. `too_long`: so its words say."""
    if 300 <= status < 400:
        reason = f"HTTP {status}: it redirects, which is not followed; configure the final URL"
        return ProviderFailed(reason, blame="setup", unspent=True)
    too_long = status == TOO_LONG_STATUS or (too_long and status in WINDOW_STATUSES)
    hint = HINTS[TOO_LONG_STATUS] if too_long else HINTS.get(status, "")
    reason = f"HTTP {status}, {hint}" if hint else f"HTTP {status}"
    rest = seconds_of_rest(retry_after, wall_now) if status in (429, 503) else 0.0
    refused = 400 <= status < 500 and status != SLOW_STATUS
    blame: Blame = "caller" if too_long else _blame(status)
    return ProviderFailed(reason, blame=blame, said=said, retry_after=rest, too_long=too_long, unspent=refused)


def seconds_of_rest(retry_after: str, wall_now: float) -> float:
    """The header's seconds or date as seconds from now; 0.0 when it is missing, past or cannot be read."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - wall_now)
    except (ValueError, OverflowError):
        return 0.0


def quoted(text: str, key: str = "") -> str:
    """A provider's words fit for a message: one line, bounded, without the key or what looks like one."""
    shown = text.replace(key, "***") if key else text
    shown = UNPRINTABLE.sub(" ", KEY_FORM.sub("***", shown)).strip()
    return shown if len(shown) <= SAID_MAX_CHARS else shown[: SAID_MAX_CHARS - 1] + "…"


def _blame(status: int) -> Blame:
    if status in SETUP_STATUSES:
        return "setup"
    return "caller" if 400 <= status < 500 and status not in TRANSIENT_STATUSES else "provider"
