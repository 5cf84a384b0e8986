"""What is a secret, and what is shown in its place: the one rule for logs, records, events and error messages.

Four things give a secret away:

- its class: a field marked `Secret` (schemas/message.py);
- its value: what this process was told as a secret (`know`): a token, a key, the password in a URL;
- its form: our tokens, NKey seeds, `sk-...`, `Bearer ...`, a raw database key, a password in a URL;
- its name: `token=...`, `"password": "..."`.

Logs: value, form, name. Records: all four. Error messages: value and form. Stored events: the class, the value, and of the
forms only our own two, which cannot be anything else; the rest of an event is what its sender has to say, and is not touched.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from schemas.message import HIDDEN, RECORDED, Event

_DISTINCT = re.compile(r"(?=.*\d).{12,}|.{24,}", re.DOTALL)
"""What else is told as a secret may be a word that means other things, too, the name of an actor for instance."""

_WORD = r"(?:token|key|secret|password|passwd|passphrase|authorization|cookie|credential|credentials|seed|nk)"
_NAME = re.compile(rf"(?:.*[^A-Za-z])?(?i:{_WORD})|.*[a-z](?=[A-Z])(?i:{_WORD})", re.DOTALL)
"""The last word of a name says what it is: `api_key`, `VX11_OURS` and `apiKey` are secrets, `token_id` and `monkey` are not."""
_VALUE = r"""(?:\\+"[^"]*"?|"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|(?i:bearer|basic)\s+[^\s"',;]+|[^\s"',;&)}\]]+)"""
_NAMED = re.compile(
    r"((?i:cookie|authorization)\s*:\s*)[^\r\n\"']+"  # a header is secret up to its end
    rf"|((?:(?<![A-Za-z])(?i:{_WORD})|(?<=[a-z])(?=[A-Z])(?i:{_WORD}))\\*[\"']?\s*[=:]\s*){_VALUE}",
)
_OURS = r"vx11_(?<!\wvx11_)[0-9a-f]{8}_[A-Za-z0-9_-]{20,}"
_SEED = r"S(?<!\wS)[UANOCX][A-Z0-9]{56}\b"
"""They begin with a letter, and look back behind it: what begins with a `\\b` is looked for ten times as slowly."""
_MARKS = ("vx11_", "sk-", "pk-", "earer ", "x'", "://")
"""One of them is in every text that has one of the forms: a look at all forms costs thirty times as much."""
_FORMS = re.compile(
    rf"{_OURS}|\b[sp]k-[A-Za-z0-9_-]{{16,}}|(?<=[Bb]earer )[^\s\"',;]+|x'[0-9A-Fa-f]{{64}}'|(?<=://)[^/@\s\"'?#]+(?=@)"
)
_SEEDS = re.compile(_SEED)
_OUR_TOKENS, _OUR_SEEDS = (re.compile(form.encode()) for form in (_OURS, _SEED))

_HIDDEN = HIDDEN.encode()
SECRETS = "vx11_secrets"
"""Attribute of a log record."""

_known: dict[str, bytes] = {}
"""As text and as bytes, the longest first."""


def know(values: Iterable[str]) -> None:
    """From now on these are hidden wherever this process, or one that it forks, writes."""
    for value in values:
        if _DISTINCT.fullmatch(value):
            _known.update((form, form.encode("utf-8", "surrogatepass")) for form in (value, json.dumps(value)[1:-1]))
    ordered = sorted(_known.items(), key=lambda one: len(one[0]), reverse=True)
    _known.clear()
    _known.update(ordered)


def know_settings(variables: Mapping[str, str]) -> None:
    """Know what an environment tells in variables whose names say that it is secret, and the passwords in its URLs."""
    for name, text in variables.items():
        if names_a_secret(name) or name.endswith("_HEADERS"):
            know([text, *(part.partition("=")[2] for part in text.split(","))])
        know(found.rpartition(":")[2] for found in re.findall(r"://([^/@\s]+)@", text))


def names_a_secret(name: str) -> bool:
    """Whether what is called so must not be shown."""
    return _NAME.fullmatch(name) is not None


def without_credentials(text: str) -> str:
    """A text for people, without known secrets and what has the form of one."""
    for value in _known:
        if value in text:
            text = text.replace(value, HIDDEN)
    if any(mark in text for mark in _MARKS):
        text = _FORMS.sub(HIDDEN, text)
    return _SEEDS.sub(HIDDEN, text)


def redacted(text: str) -> str:
    """A text for a log: also without what is called a secret in it."""
    return _NAMED.sub(rf"\1\2{HIDDEN}", without_credentials(text))


def redacted_document(value: Any, *, secret: bool = False, shown: Collection[str] = ()) -> Any:
    """A JSON document for a record: every string that is secret, or under a name of one, is hidden; numbers are none.

    `shown`: names that are no secrets here.
    """
    if isinstance(value, str):
        return HIDDEN if secret and value else without_credentials(value)
    if isinstance(value, dict):
        return {
            name: redacted_document(one, secret=secret or (name not in shown and names_a_secret(name)))
            for name, one in value.items()
        }
    if isinstance(value, list):
        return [redacted_document(one, secret=secret) for one in value]
    return value


def hidden_by(schema: Mapping[str, Any], value: Any, defs: Mapping[str, Any] | None = None) -> Any:
    """A JSON document without the strings that its JSON schema calls secret."""
    defs = schema.get("$defs", {}) if defs is None else defs
    if ref := schema.get("$ref"):
        return hidden_by(defs.get(ref.rpartition("/")[2], {}), value, defs)
    if schema.get("secret") and isinstance(value, str):
        return HIDDEN if value else value
    for one in (part for of in ("anyOf", "oneOf", "allOf") for part in schema.get(of, ())):
        value = hidden_by(one, value, defs)
    if isinstance(value, dict):
        fields, others = schema.get("properties", {}), schema.get("additionalProperties")
        other = others if isinstance(others, dict) else {}
        return {name: hidden_by(fields.get(name, other), one, defs) for name, one in value.items()}
    if isinstance(value, list) and isinstance(items := schema.get("items"), dict):
        return [hidden_by(items, one, defs) for one in value]
    return value


def redacted_event(body: bytes) -> bytes:
    """The body of an event as it may be stored: the same bytes, but for secrets that cannot be anything else."""
    for value in _known.values():
        if value in body:
            body = body.replace(value, _HIDDEN)
    return _OUR_SEEDS.sub(_HIDDEN, _OUR_TOKENS.sub(_HIDDEN, body))


def stored(event: Event) -> bytes:
    """An event as it goes into the log."""
    return redacted_event(event.model_dump_json(by_alias=True, context=RECORDED).encode())


def secrets_of(message: BaseModel) -> dict[str, list[str]]:
    """What a log record about this message is to have as its `extra`: the values of its `Secret` fields, at any depth."""
    found: list[str] = []
    _collect(message.model_dump(mode="json"), message.model_dump(mode="json", context=RECORDED), found)
    return {SECRETS: sorted(found, key=len, reverse=True)}


def _collect(value: Any, shown: Any, found: list[str]) -> None:
    if isinstance(value, dict):
        for name, one in value.items():
            _collect(one, shown[name], found)
    elif isinstance(value, list):
        for one, also in zip(value, shown, strict=True):
            _collect(one, also, found)
    elif value != shown:
        found.append(value)


class Redacting(logging.Formatter):
    """Of every root logger: whatever a library, a traceback or an actor has to say."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in getattr(record, SECRETS, ()):
            text = text.replace(secret, HIDDEN)
        return redacted(text)


def redact_last_resort() -> None:
    """For a process that sets up no logging: what Python then writes to standard error by itself."""
    if logging.lastResort:
        logging.lastResort.setFormatter(Redacting())
