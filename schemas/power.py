"""The life of an actor: its record in VX11_ACTORS and the events that tell of each change."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict

from schemas.message import Event, Message

State = Literal["dormant", "waking", "adopting", "handover", "active", "draining", "failed"]
Gate = Literal["on_demand", "window", "closed"]
Policy = Literal["solo_madre", "full"]
Cause = Literal[
    "",
    "request",
    "event",
    "operator",
    "policy",
    "window",
    "gate",
    "idle",
    "code",
    "crash",
    "signal",
    "host",
    "server",
    "silence",
    "madre",
]
"""Why an actor changed; empty where the event does not say. `code`: its source was edited; `server`: the bus was away;
`silence`: its heartbeat was missed; `madre`: another madre took over."""


class ActorRecord(Message):
    """`VX11_ACTORS/<actor>`: what is known of one actor. madre writes it; an instance writes its claim, once.

    Times are RFC 3339 UTC; `idle_after` is in seconds, `last_wake_ms` in milliseconds. Fields that a newer version wrote
    are left out: an owner that cannot be read would be started a second time.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    actor: str
    state: State = "dormant"
    epoch: int = 0
    """Raised by each new madre; orders of a lower one are ignored."""
    owner: str = ""
    """The run that has claimed the actor, or empty."""
    instance: str = ""
    host: str = ""
    pid: int = 0
    born: float = 0.0
    """When the process `pid` began, in seconds, on a clock of its host; tells it from another one with that pid."""
    vacated: float = 0.0
    """When the last owner was gone, seconds since the epoch: what was sent later, none of them has begun."""
    since: str = ""
    idle_after: float = 300.0
    gate: Gate = "on_demand"
    wakes: int = 0
    last_wake_ms: float | None = None
    in_flight: int = 0
    held: int = 0
    reason: str = ""
    card_version: str = ""


class PowerEvent(Event):
    """Common to all: `id` is the activation, `run` the process that claimed it."""

    actor: str
    id: str = ""
    run: str = ""
    at: str = ""
    reason: str = ""
    cause: Cause = ""
    by: str = ""
    """Who asked: the id of a token or an actor's name; empty for a client that did not say."""
    about: str = ""
    """The verb that was asked for, the subject of the event, the id of the window."""
    request_id: str = ""


class Activate(PowerEvent):
    """The one imperative in the stream: hosts that can, start the actor. `revision` is what a claim must replace."""

    subject: ClassVar = "vx11.events.power.activate"
    summary: ClassVar = "{actor} is to wake: {reason}"

    revision: int
    epoch: int
    record: dict[str, object] = {}
    """The record of that revision, which the claim keeps but for its owner."""


class Waking(PowerEvent):
    subject: ClassVar = "vx11.events.power.waking"
    severity: ClassVar = "debug"
    summary: ClassVar = "{actor} is starting"

    pid: int = 0


class Active(PowerEvent):
    subject: ClassVar = "vx11.events.power.active"
    summary: ClassVar = "{actor} is awake"

    revision: int = 0
    epoch: int = 0
    stay: int = 0
    host: str = ""
    pid: int = 0
    born: float = 0.0


class Draining(PowerEvent):
    subject: ClassVar = "vx11.events.power.draining"
    summary: ClassVar = "{actor} finishes its work: {reason}"


class Slept(PowerEvent):
    subject: ClassVar = "vx11.events.power.slept"
    summary: ClassVar = "{actor} sleeps"

    left: float = 0.0
    """When it had left every subject with empty hands, seconds since the epoch."""


class Exited(PowerEvent):
    subject: ClassVar = "vx11.events.power.exited"
    summary: ClassVar = "a process of {actor} ended with {code}"

    pid: int = 0
    code: int | None = None
    """Exit status, negative for a signal; None when only the absence of the process was seen."""
    clean: bool = False
    """It drained, closed its resources and left by itself."""
    ended: float = 0.0
    """When its parent saw it end, seconds since the epoch; 0.0 when nobody did."""


class Failed(PowerEvent):
    subject: ClassVar = "vx11.events.power.failed"
    severity: ClassVar = "error"
    summary: ClassVar = "{actor} cannot be woken: {reason}"

    retry_after: float = 0.0


class Rested(PowerEvent):
    subject: ClassVar = "vx11.events.power.rested"
    summary: ClassVar = "{actor} may be woken again: {reason}"


class Recalled(PowerEvent):
    subject: ClassVar = "vx11.events.power.recalled"
    summary: ClassVar = "{actor} was called back while it was leaving"


class Adopting(PowerEvent):
    subject: ClassVar = "vx11.events.power.adopting"
    summary: ClassVar = "{actor} is asked whether it still lives: {reason}"


class Denied(PowerEvent):
    subject: ClassVar = "vx11.events.power.denied"
    severity: ClassVar = "warning"
    summary: ClassVar = "{actor} was asked for but may not wake: {reason}"
