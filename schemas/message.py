"""The message classes: requests with one reply type, streamed requests, events."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Final, Generic, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, PlainSerializer, SerializationInfo

ACTOR_NAME = re.compile(r"[A-Za-z0-9_-]+")
VERB_NAME = re.compile(r"[a-z][a-z0-9_]*")
RESERVED = frozenset({"power", "inst", "events", "calls", "jobs", "dlq", "sandbox", "hb", "host", "replay"})
"""Second subject tokens that no actor may have as its name."""
FACTS_OF = ("power", "dlq")
"""Of these, what events may be about: the life of an actor, and the tries of an event."""

Severity = str
SEVERITIES = ("debug", "info", "warning", "error")

HIDDEN = "***"
"""What stands in the place of a secret."""
RECORDED: Final = {"recorded": True}
"""The serialization context of whatever is kept: with it, and by identity, a `Secret` is written as HIDDEN."""


def _secret(value: str, info: SerializationInfo) -> str:
    return HIDDEN if info.context is RECORDED and value else value


class _Mark:
    """What tells a `Secret` from other strings; JSON schemas say `secret: true`."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "secret": True}


Secret = Annotated[str, _Mark(), PlainSerializer(_secret, return_type=str)]
"""A string that is never recorded, logged or shown; also inside others: `Secret | None`, `list[Secret]`."""


class Message(BaseModel):
    """An immutable value that travels as one JSON document; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)  # JSON has neither

    volatile: ClassVar[tuple[str, ...]] = ()
    """Fields that say something else each time, as moments, ids and durations do: golden replay does not compare them."""

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        secret = secret_fields(type(self))
        return [(name, HIDDEN if name in secret and value else value) for name, value in super().__repr_args__()]


ReplyT = TypeVar("ReplyT", bound=Message)
ChunkT = TypeVar("ChunkT", bound=Message)


class Nothing(Message):
    """The reply of a verb that has nothing to say but that it was done."""


class Request(Message, Generic[ReplyT]):
    """A request that expects one reply of type `ReplyT`."""

    subject: ClassVar[str]
    timeout: ClassVar[float] = 30.0
    """Seconds; the deadline when the caller brings none."""
    idempotent: ClassVar[bool] = False
    """May be asked again after a crash: executing it twice does what executing it once does."""
    scope: ClassVar[str] = "command"
    """What a token needs at the HTTP door."""
    passive: ClassVar[bool] = False
    """A look: does not reset the idle clock of the actor that answers."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "subject" in cls.__dict__:
            check_subject(cls.__name__, cls.subject, parts=3)

    @classmethod
    def reply_type(cls) -> type[Message]:
        """The class of the answer. Raises TypeError for a class that names none."""
        return _argument(cls, -1)

    @classmethod
    def addressee(cls) -> str:
        return cls.subject.split(".")[1]

    @classmethod
    def verb_name(cls) -> str:
        return cls.subject.split(".")[2]


class Streamed(Request[ReplyT], Generic[ChunkT, ReplyT]):
    """A request whose answer may come as chunks of `ChunkT`, the whole reply being the last frame.

    Its handler is a generator that yields chunks and, last, one `ReplyT`. A caller that did not ask for a stream
    gets the `ReplyT` alone.
    """

    @classmethod
    def chunk_type(cls) -> type[Message]:
        return _argument(cls, 0)


class Event(Message):
    """A fact in the past tense. Fields that are not declared are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    subject: ClassVar[str]
    severity: ClassVar[Severity] = "info"
    summary: ClassVar[str] = ""
    """One line for people, a `str.format` template over the fields."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "subject" in cls.__dict__:
            check_subject(cls.__name__, cls.subject, parts=4)
            if cls.severity not in SEVERITIES:
                raise TypeError(f"{cls.__name__}.severity is {cls.severity!r}; one of {', '.join(SEVERITIES)}")

    def told(self) -> str:
        """The summary with its fields filled in; the class name when it has none."""
        return self.summary.format(**self.model_dump(mode="json", context=RECORDED)) if self.summary else type(self).__name__


def check_subject(owner: str, subject: str, *, parts: int) -> None:
    """Raise TypeError unless `subject` is `vx11.<actor>.<verb>` (3 parts) or `vx11.events.<actor>.<fact>` (4)."""
    tokens = subject.split(".")
    shape = "vx11.<actor>.<verb>" if parts == 3 else "vx11.events.<actor>.<fact>"
    event = parts == 4
    if len(tokens) != parts or tokens[0] != "vx11" or (tokens[1] == "events") != event:
        raise TypeError(f"{owner}.subject is {subject!r}; it must look like {shape}")
    actor, verb = tokens[-2:]
    if not ACTOR_NAME.fullmatch(actor) or (actor in RESERVED and not (event and actor in FACTS_OF)):
        raise TypeError(f"{owner}.subject names the actor {actor!r}, which is reserved or has other than [A-Za-z0-9_-]")
    if not VERB_NAME.fullmatch(verb):
        raise TypeError(f"{owner}.subject ends in {verb!r}; verbs and facts match {VERB_NAME.pattern}")


def secret_fields(model: type[BaseModel]) -> frozenset[str]:
    """Names of the fields of `model` that are, or hold, a `Secret`."""
    return frozenset(name for name, field in model.model_fields.items() if _holds_secret(field.annotation, field.metadata))


def _holds_secret(annotation: Any, metadata: Iterable[Any] = ()) -> bool:
    more = getattr(annotation, "__metadata__", ())
    marked = any(isinstance(one, _Mark) for one in (*metadata, *more))
    return marked or any(_holds_secret(one) for one in get_args(annotation))


def shown_fields(model: type[BaseModel]) -> frozenset[str]:
    """Names of the fields that are no secrets, whatever they are called: `Field(json_schema_extra={"secret": False})`."""
    return frozenset(
        field.alias or name
        for name, field in model.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("secret") is False
    )


def _argument(cls: type[BaseModel], index: int) -> type[Message]:
    for base in cls.__mro__:
        meta = getattr(base, "__pydantic_generic_metadata__", {})
        args = meta.get("args") or get_args(base)
        if args and isinstance(args[index], type) and issubclass(args[index], Message):
            found: type[Message] = args[index]
            return found
    raise TypeError(f"{cls.__name__} must name its reply: class {cls.__name__}(Request[SomeReply])")
