"""The declaration of an actor: a name, its handlers, its resources. Declaring opens nothing."""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints, overload

from schemas.message import ACTOR_NAME, RESERVED, Event, Message, Request, Streamed

F = TypeVar("F", bound=Callable[..., Any])

Recording = Literal["meta", "full"]
IDLE_AFTER_S = 300.0
RETRIES_S = (1.0, 2.0, 4.0, 30.0)
"""Waits before try 2, 3, 4, 5 of an event; after the last try it is dead."""
RETRIES_MOST = 9
"""Of so many the dead letter tells all tries, see `bus.dead.HISTORY_MOST`."""
CONCURRENCY = 64
"""Handlers of one instance that run at a time."""
QUEUE = 1_024
"""Requests that wait for a place in one instance; one more is answered `busy`."""


@dataclass(frozen=True)
class Handler:
    """A coroutine or generator that answers one message class, or hears one event class."""

    run: Callable[..., Any]
    message: type[Any]
    wants: dict[str, type]
    """Name and type of each further parameter: a resource, `Bus`, `Call` or `Settings`."""
    durable: bool = False

    @property
    def name(self) -> str:
        return str(getattr(self.run, "__name__", "handler"))

    @cached_property
    def streams(self) -> bool:
        return inspect.isasyncgenfunction(self.run)

    @cached_property
    def verb(self) -> str:
        """Of a request handler."""
        return str(self.message.verb_name())


@dataclass(frozen=True)
class Resource:
    """What an actor opens on waking and closes, in reverse order, on sleeping."""

    open: Callable[..., AsyncIterator[Any]]
    makes: type
    wants: dict[str, type]


@dataclass
class Actor:
    """A named role. `idle_after`: seconds without work until an instance may be put to sleep."""

    name: str
    summary: str
    idle_after: float = IDLE_AFTER_S
    concurrency: int = CONCURRENCY
    queue: int = QUEUE
    version: str = "1.0.0"
    retries: tuple[float, ...] = RETRIES_S
    """Seconds that an event waits before each further try by a durable handler."""
    record: Recording = "meta"
    """What is kept of each call: who asked what and how it ended, or the bodies, too, which golden replay needs."""
    dormant: bool = True
    """False for the few that are always awake and are not kept by madre."""
    requests: dict[str, Handler] = field(default_factory=dict)
    """Verb to handler."""
    events: list[Handler] = field(default_factory=list)
    resources: dict[type, Resource] = field(default_factory=dict)
    """In the order of declaration, which is the order of opening."""

    def __post_init__(self) -> None:
        if not ACTOR_NAME.fullmatch(self.name) or self.name in RESERVED:
            raise TypeError(f"{self.name!r} is no actor name: [A-Za-z0-9_-]+ and not one of {', '.join(sorted(RESERVED))}")
        if self.record not in get_args(Recording):
            raise TypeError(f"{self.name}: record is {self.record!r}; it is {' or '.join(get_args(Recording))}")
        if len(self.retries) > RETRIES_MOST or not all(0 < pause < math.inf for pause in self.retries):
            raise TypeError(f"{self.name}: retries are at most {RETRIES_MOST} pauses of more than 0 seconds, not {self.retries}")
        if not self.idle_after > 0:
            raise TypeError(f"{self.name}: idle_after must be more than 0 seconds")

    def handles(self, function: F) -> F:
        """Answer the request class that annotates the first parameter.

        Raises TypeError when the subject is another actor's, when the verb is taken, or when the return annotation
        is not the reply of the class.
        """
        message, wants, returned = _signature(function)
        where = f"{self.name}.{function.__name__}"
        if not issubclass(message, Request):
            raise TypeError(f"{where}: the first parameter must be a Request, not {message.__name__}")
        if message.addressee() != self.name:
            raise TypeError(f"{where}: {message.__name__} is addressed to {message.addressee()}, not to {self.name}")
        if message.verb_name() in self.requests:
            raise TypeError(f"{where}: {message.subject} has a handler already")
        _check_return(where, function, message, returned)
        self.requests[message.verb_name()] = Handler(function, message, wants)
        return function

    @overload
    def on(self, function: F) -> F: ...
    @overload
    def on(self, *, durable: bool = ...) -> Callable[[F], F]: ...
    def on(self, function: F | None = None, *, durable: bool = False) -> F | Callable[[F], F]:
        """Hear the event class that annotates the first parameter.

        Without `durable` only what happens while awake; with it everything, at least once, and it wakes the actor.
        """

        def register(function: F) -> F:
            message, wants, _ = _signature(function)
            if not issubclass(message, Event):
                raise TypeError(f"{self.name}.{function.__name__}: the first parameter must be an Event")
            if not inspect.iscoroutinefunction(function):
                raise TypeError(f"{self.name}.{function.__name__}: an event handler is a coroutine function")
            self.events.append(Handler(function, message, wants, durable))
            return function

        return register(function) if function is not None else register

    def resource(self, function: F) -> F:
        """Register an async generator that yields one value: what stands after the yield closes it."""
        hints = get_type_hints(function)
        returned = hints.pop("return", None)
        if not inspect.isasyncgenfunction(function) or get_origin(returned) not in (AsyncIterator, AsyncGenerator):
            raise TypeError(
                f"{self.name}.{function.__name__}: a resource is `async def f(...) -> AsyncIterator[T]` with one yield"
            )
        made = get_args(returned)[0]
        if made in self.resources:
            raise TypeError(f"{self.name}: two resources make a {made.__name__}")
        self.resources[made] = Resource(function, made, hints)
        return function

    @property
    def durables(self) -> list[Handler]:
        return [handler for handler in self.events if handler.durable]

    def durable_name(self, handler: Handler) -> str:
        """The consumer's name on VX11_EVENTS. Renaming the function is a migration."""
        return f"{self.name}__{handler.name}"


def _signature(function: Callable[..., Any]) -> tuple[type[Any], dict[str, type], Any]:
    hints = get_type_hints(function)
    returned = hints.pop("return", None)
    names = list(inspect.signature(function).parameters)
    if not names or names[0] not in hints:
        raise TypeError(f"{getattr(function, '__name__', function)}: the first parameter needs a message class as its annotation")
    message = hints.pop(names[0])
    if not (isinstance(message, type) and issubclass(message, Message)):
        raise TypeError(f"{getattr(function, '__name__', function)}: {message!r} is no message class")
    return message, hints, returned


def _check_return(where: str, function: Callable[..., Any], message: type[Request[Any]], returned: Any) -> None:
    reply = message.reply_type()
    if not inspect.isasyncgenfunction(function):
        if not inspect.iscoroutinefunction(function) or returned is not reply:
            raise TypeError(f"{where} must be `async def` and return {reply.__name__}, the reply of {message.__name__}")
        return
    if not issubclass(message, Streamed):
        raise TypeError(f"{where} is a generator, but {message.__name__} is no Streamed request")
    told = set(get_args(get_args(returned)[0])) if get_args(returned) else set()
    if told != {message.chunk_type(), reply}:
        raise TypeError(f"{where} must be annotated AsyncIterator[{message.chunk_type().__name__} | {reply.__name__}]")
