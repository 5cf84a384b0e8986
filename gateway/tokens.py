"""Tokens: how they look, and the file that keeps their hashes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gateway.moment import epoch, rfc3339
from schemas.errors import Failure

SCOPES = ("read", "chat", "command", "jobs", "power", "admin")
"""What a token may be good for; `admin` stands for all."""
FORM = re.compile(r"vx11_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
ID_BYTES = 4
SECRET_BYTES = 32
"""256 random bits need no slow hash."""
FILE = "tokens.json"
FIRST = "tokens.env"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Token:
    """One line of the file. `hash`: SHA-256 of the whole token, hex. Moments are RFC 3339; empty means never."""

    id: str
    hash: str
    scopes: tuple[str, ...]
    created: str = ""
    expires: str = ""
    revoked: str = ""
    note: str = ""

    def expired(self, now: float) -> bool:
        return bool(self.expires) and epoch(self.expires) <= now


def digest(text: str) -> str:
    """Of any text: what came in a header and was no UTF-8 has surrogates in it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def id_of(text: str) -> str:
    """The public id inside a token; empty when it has another form than ours."""
    found = FORM.fullmatch(text)
    return found[1] if found else ""


def made(scopes: Collection[str], *, ttl_s: float | None, note: str, now: float) -> tuple[Token, str]:
    """A new token and its text, which is nowhere else. Raises Failure("invalid") for a scope that does not exist."""
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise Failure(
            "invalid",
            f"no such scope: {', '.join(unknown) or 'none given'}; there are {', '.join(SCOPES)}",
            field="scopes",
        )
    ident = secrets.token_hex(ID_BYTES)
    text = f"vx11_{ident}_{secrets.token_urlsafe(SECRET_BYTES)}"
    expires = rfc3339(now + ttl_s) if ttl_s is not None else ""
    kept = tuple(scope for scope in SCOPES if scope in scopes)
    return Token(ident, digest(text), kept, rfc3339(now), expires, note=note), text


class TokenFile:
    """`<home>/tokens.json`, readable by its owner only, replaced whole at each change."""

    def __init__(self, home: Path) -> None:
        self.path = home / FILE
        self.first = home / FIRST

    def read(self) -> dict[str, Token]:
        """Id to token; empty when there is no file. Raises Failure("invalid") when it cannot be understood."""
        try:
            document = json.loads(self.path.read_text())
            tokens = [_token(line) for line in document["tokens"]]
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            raise Failure("invalid", f"{self.path} cannot be understood: {error}") from error
        return {token.id: token for token in tokens}

    def new(self, scopes: Collection[str] = SCOPES, *, ttl_s: float | None = None, note: str = "") -> tuple[Token, str]:
        """Add a token; its text is returned once and never stored."""
        token, text = made(scopes, ttl_s=ttl_s, note=note, now=time.time())
        self._change(lambda tokens: tokens | {token.id: token})
        return token, text

    def revoke(self, ident: str) -> Token:
        """Make a token useless and keep its line. Raises Failure("not_found")."""
        moment = rfc3339(time.time())

        def struck(tokens: dict[str, Token]) -> dict[str, Token]:
            if ident not in tokens:
                raise Failure("not_found", f"there is no token {ident}")
            return tokens | {ident: replace(tokens[ident], revoked=tokens[ident].revoked or moment)}

        return self._change(struck)[ident]

    def ensure(self) -> str:
        """At the first start make the token that may do everything; its text, or empty when there is a file already."""
        with self._locked():
            if self.path.exists():
                return ""
            token, text = made(SCOPES, ttl_s=None, note="first start", now=time.time())
            _write_secret(self.first, f"VX11_TOKEN={text}\n")
            self._write({token.id: token})
            return text

    def _change(self, change: Callable[[dict[str, Token]], dict[str, Token]]) -> dict[str, Token]:
        with self._locked():
            tokens = change(self.read())
            self._write(tokens)
            return tokens

    def _write(self, tokens: dict[str, Token]) -> None:
        lines = [asdict(token) for token in tokens.values()]
        _write_secret(self.path, json.dumps({"version": VERSION, "tokens": lines}, indent=1) + "\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, also across processes."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _token(line: dict[str, object]) -> Token:
    fields = {name: str(line.get(name, "")) for name in ("id", "hash", "created", "expires", "revoked", "note")}
    scopes = line["scopes"]
    if not isinstance(scopes, list) or not set(scopes) <= set(SCOPES):
        raise ValueError(f"the scopes of {fields['id']} are {scopes!r}")
    if fields["expires"]:
        epoch(fields["expires"])
    return Token(scopes=tuple(scopes), **fields)


def _write_secret(path: Path, text: str) -> None:
    """Replace `path` whole or not at all, mode 0600 from the first byte on."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
