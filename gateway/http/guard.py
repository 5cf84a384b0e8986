"""Who may come in: the token in the headers, the scopes behind it, and where a request may come from."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from bus import call as calls
from gateway.tokens import SCOPES, Token, TokenFile, digest, id_of
from schemas.errors import Failure

log = logging.getLogger("vx11.gateway")

TOKEN = "X-VX11-Token"  # noqa: S105 - the name of a header
"""The field that a failure names when the token itself is at fault."""
OWN_ID = "env"
"""The id of a VX11_TOKEN that has not our form."""
CALLERS_KEPT = 256
NOBODY = digest("")
"""What an unknown id is compared with, so that it takes as long as a known one."""
LOOK_S = 0.05
"""So late a revoked token may be noticed, in seconds: a look at the file for each request costs a tenth of a fast one."""
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})

Find = Callable[[str], Token | None]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the id of the token, never the token."""

    id: str
    scopes: frozenset[str]

    @property
    def headers(self) -> Mapping[str, str]:
        """What a message to the bus says of who asks."""
        return _headers(self.id, self.scopes)

    def may(self, scope: str) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def needs(self, scope: str) -> None:
        """Raises Failure("forbidden") without the scope."""
        if not self.may(scope):
            raise Failure("forbidden", f"this token has not the scope {scope}", scope=scope)


@lru_cache(CALLERS_KEPT)
def _headers(ident: str, scopes: frozenset[str]) -> Mapping[str, str]:
    return {calls.CALLER: ident, calls.SCOPES: " ".join(sorted(scopes))}


@lru_cache(CALLERS_KEPT)
def _caller(ident: str, scopes: tuple[str, ...]) -> Caller:
    return Caller(ident, frozenset(scopes))


ANYONE = Caller("", frozenset())
OPERATOR = Caller("off", frozenset(SCOPES))
"""Everybody, while the guard is off."""


def presented(tokens: Sequence[str], authorizations: Sequence[str]) -> str:
    """The one token that the headers X-VX11-Token and Authorization carry.

    Raises Failure("auth_required") when there is none, Failure("invalid") when there are two that differ.
    """
    if len(tokens) == 1 and not authorizations and (only := tokens[0].strip()):
        return only
    found = {token.strip() for token in tokens if token.strip()}
    for authorization in authorizations:
        scheme, _, rest = authorization.strip().partition(" ")
        if scheme.lower() == "bearer" and rest.strip():
            found.add(rest.strip())
    if len(found) > 1:
        raise Failure("invalid", "two different tokens came with this request", field=TOKEN)
    if not found:
        raise Failure("auth_required", "a token is needed: the header X-VX11-Token, or Authorization: Bearer")
    return found.pop()


def admitted(text: str, find: Find, now: float) -> Caller:
    """The caller behind a token. Raises Failure("forbidden") for one that is wrong, revoked or expired."""
    token = find(id_of(text) or OWN_ID)
    right = hmac.compare_digest(digest(text), token.hash if token else NOBODY)
    if token is None or not right:
        raise Failure("forbidden", "this token is not known here", field=TOKEN)
    check_good(token, now)
    return _caller(token.id, token.scopes)


def check_good(token: Token, now: float) -> None:
    """Raises Failure("forbidden") for a token that has been revoked or has expired."""
    if token.revoked:
        raise Failure("forbidden", f"the token {token.id} has been revoked", field=TOKEN)
    if token.expired(now):
        raise Failure("forbidden", f"the token {token.id} expired at {token.expires}", field=TOKEN)


def near(host: str, origins: Sequence[str], *, own_pages: bool = False) -> None:
    """Raises Failure("forbidden") unless the request was meant for this machine by a program on it, not by a web page.

    A page of elsewhere can make a browser send requests to loopback; it cannot hide its Origin, nor, after rebinding
    a name, the Host. `own_pages`: what this very door has served may ask.
    """
    name = host.rsplit(":", 1)[0] if host.count(":") == 1 or (host.startswith("[") and not host.endswith("]")) else host
    if name.lower() not in LOCAL_NAMES:
        raise Failure("forbidden", f"the Host {host!r} is not this machine")
    if any(not own_pages or origin != f"http://{host}" for origin in origins):
        raise Failure("forbidden", "requests of web pages are not served here")


class KeyRing:
    """The tokens that are good now: the file, read again when it has changed, and VX11_TOKEN.

    A VX11_TOKEN whose id the file knows has no say of its own: revoking it there revokes it.
    """

    def __init__(self, file: TokenFile, own: str = "") -> None:
        self._file = file
        self._own = Token(id_of(own) or OWN_ID, digest(own), SCOPES) if own else None
        self._seen: tuple[int, int, int] | None = None
        self._tokens = file.read()
        self._looked_at = 0.0

    def find(self, ident: str) -> Token | None:
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S or ident not in self._tokens:
            self._looked_at = now
            self._refresh()
        if ident in self._tokens:
            return self._tokens[ident]
        return self._own if self._own and self._own.id == ident else None

    def check(self, caller: Caller, now: float) -> None:
        """Raises Failure("forbidden") when the token that a caller came in with is no longer good."""
        token = self.find(caller.id)
        if token is None:
            raise Failure("forbidden", f"the token {caller.id} is not known any more", field=TOKEN)
        check_good(token, now)

    def _refresh(self) -> None:
        try:
            found = self._file.path.stat()
        except FileNotFoundError:
            self._seen, self._tokens = None, {}
            return
        seen = (found.st_mtime_ns, found.st_ino, found.st_size)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._tokens = self._file.read()
        except Failure as failure:
            log.warning("the tokens stay as they were: %s", failure.message)
