"""The card of an actor: what it says of itself, awake or asleep."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from schemas.message import ACTOR_NAME, VERB_NAME, Message


class Verb(Message):
    """One request class. `request`, `reply` and `chunk` are JSON schemas."""

    name: str = Field(pattern=rf"^{VERB_NAME.pattern}$")
    subject: str
    summary: str = ""
    timeout: float = 30.0
    idempotent: bool = False
    scope: str = "command"
    passive: bool = False
    request: dict[str, Any] = {}
    reply: dict[str, Any] = {}
    chunk: dict[str, Any] | None = None
    """Present when the verb can stream."""
    secret: list[str] = []


class Heard(Message):
    """One event class that the actor hears; `durable` names its consumer, empty when it hears only while awake."""

    subject: str
    durable: str = ""
    schema_: dict[str, Any] = {}


class Card(Message):
    """`card_version` changes with every change of the actor's source."""

    name: str = Field(pattern=rf"^{ACTOR_NAME.pattern}$", max_length=64)
    summary: str
    version: str = "1.0.0"
    card_version: str = ""
    idle_after: float = 300.0
    verbs: list[Verb] = []
    events: list[Heard] = []
    built_in: bool = True
    error: str = ""
    """Why the actor cannot be loaded; then it has no verbs."""

    def verb(self, name: str) -> Verb | None:
        return next((v for v in self.verbs if v.name == name), None)


class DescribeReply(Message):
    """The answer of the verb `describe` that every actor has."""

    card: Card
    state: str
    instance: str = ""
