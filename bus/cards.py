"""The card of an actor, made from its declaration."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Collection
from pathlib import Path

from bus.actor import Actor
from schemas.card import Card, Heard, Verb
from schemas.message import Message, Request, Streamed, secret_fields


def card_of(actor: Actor, *, card_version: str = "", built_in: bool = True) -> Card:
    """What the actor says of itself. JSON schemas are those of pydantic."""
    verbs = [verb_of(handler.message) for _, handler in sorted(actor.requests.items())]
    heard = [
        Heard(
            subject=handler.message.subject,
            durable=actor.durable_name(handler) if handler.durable else "",
            schema_=handler.message.model_json_schema(),
        )
        for handler in actor.events
    ]
    return Card(
        name=actor.name,
        summary=actor.summary,
        version=actor.version,
        card_version=card_version,
        idle_after=actor.idle_after,
        verbs=verbs,
        events=heard,
        built_in=built_in,
    )


def verb_of(kind: type[Request[Message]]) -> Verb:
    return Verb(
        name=kind.verb_name(),
        subject=kind.subject,
        summary=inspect.getdoc(kind) or "",
        timeout=kind.timeout,
        idempotent=kind.idempotent,
        scope=kind.scope,
        passive=kind.passive,
        request=kind.model_json_schema(),
        reply=kind.reply_type().model_json_schema(),
        chunk=kind.chunk_type().model_json_schema() if issubclass(kind, Streamed) else None,
        secret=sorted(secret_fields(kind)),
    )


def loaded_files(roots: list[Path], before: Collection[str] = ()) -> list[Path]:
    """Source files under `roots` that this process has imported: what a change of must be noticed.

    Not those of the modules `before`: they came with the image that processes are forked from, and only a restart of it
    reads them again.
    """
    found = set()
    for key, module in list(sys.modules.items()):
        name = getattr(module, "__file__", None)
        if name and key not in before and any(Path(name).is_relative_to(root) for root in roots):
            found.add(Path(name))
    return sorted(found)


def version_of(files: list[Path]) -> str:
    """A short hash over the contents of `files`; changes with every change of the source."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file).encode())
        digest.update(file.read_bytes() if file.exists() else b"gone")
    return digest.hexdigest()[:12]
