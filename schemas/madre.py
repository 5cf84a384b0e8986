"""What can be asked of madre, the control plane."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, JsonValue

from schemas.card import Card
from schemas.message import Event, Message, Nothing, Request
from schemas.power import Gate, Policy, State

Mode = Literal["solo_madre", "windowed", "full"]


class ActorStatus(Message):
    """One actor as madre sees it. `idle_s`: seconds without work, None when it is not awake. `observed_at`: RFC 3339."""

    name: str
    state: State
    summary: str = ""
    instance: str = ""
    host: str = ""
    pid: int = 0
    since: str = ""
    idle_s: float | None = None
    idle_after: float = 0.0
    gate: Gate = "on_demand"
    gate_pinned: bool = False
    """The gate was closed by the environment; the API cannot change it."""
    allowed: bool = True
    """Gate, window and policy would let it wake now."""
    wakes: int = 0
    last_wake_ms: float | None = None
    in_flight: int = 0
    held: int = 0
    reason: str = ""
    card_version: str = ""
    observed_at: str = ""


class Window(Message):
    """A time in which `services` may wake and stay awake. `ttl_remaining_sec` is None for mode `hold`."""

    window_id: str
    services: list[str]
    mode: Literal["ttl", "hold"] = "ttl"
    ttl_sec: float | None = None
    ttl_remaining_sec: float | None = None
    reason: str = ""
    created_at: str = ""
    deadline: str | None = None


class Moved(Message):
    """What really happened to one actor that was told to wake or sleep."""

    service: str
    from_: State = Field(alias="from")
    to: State
    elapsed_ms: float
    error: str | None = None

    model_config = {"populate_by_name": True}


class ActorList(Message):
    actors: list[ActorStatus]
    policy: Policy
    mode: Mode
    windows: list[Window]


class ListActors(Request[ActorList]):
    """Every actor that exists, with its state."""

    subject: ClassVar = "vx11.madre.list_actors"
    timeout: ClassVar = 2.0
    idempotent: ClassVar = True
    scope: ClassVar = "read"
    passive: ClassVar = True


class ActorDetail(Message):
    status: ActorStatus
    card: Card


class GetActor(Request[ActorDetail]):
    """One actor: state and card."""

    subject: ClassVar = "vx11.madre.get_actor"
    timeout: ClassVar = 2.0
    idempotent: ClassVar = True
    scope: ClassVar = "read"
    passive: ClassVar = True

    name: str


class Wake(Request[Moved]):
    """Wake an actor and answer once it is awake."""

    subject: ClassVar = "vx11.madre.wake"
    idempotent: ClassVar = True
    scope: ClassVar = "power"

    name: str
    reason: str = "asked to wake"


class Sleep(Request[Moved]):
    """Let an actor finish its work and sleep; answers once it sleeps."""

    subject: ClassVar = "vx11.madre.sleep"
    timeout: ClassVar = 60.0
    idempotent: ClassVar = True
    scope: ClassVar = "power"

    name: str
    reason: str = "asked to sleep"
    recall: bool = True
    """A request that comes meanwhile calls the instance back; False: it waits for the next instance."""


class Restart(Request[Moved]):
    """Sleep, then wake with the code of today."""

    subject: ClassVar = "vx11.madre.restart"
    timeout: ClassVar = 60.0
    idempotent: ClassVar = True
    scope: ClassVar = "power"

    name: str
    reason: str = "asked to restart"


class SetGate(Request[ActorStatus]):
    """Say whether an actor may wake: on demand, only in a window, or not at all. Survives a restart."""

    subject: ClassVar = "vx11.madre.set_gate"
    idempotent: ClassVar = True
    scope: ClassVar = "power"

    name: str
    gate: Gate


class WindowOpened(Message):
    window: Window
    woken: list[Moved]


TTL_BY_MODE: dict[str, JsonValue] = {
    "if": {"properties": {"mode": {"const": "hold"}}, "required": ["mode"]},
    "then": {"properties": {"ttl_sec": {"type": "null"}}},
    "else": {"properties": {"ttl_sec": {"type": "number"}}, "required": ["ttl_sec"]},
}


class OpenWindow(Request[WindowOpened]):
    """Wake `services` and keep them awake for `ttl_sec` seconds (mode `ttl`) or until closed (mode `hold`)."""

    model_config = ConfigDict(json_schema_extra=TTL_BY_MODE)

    subject: ClassVar = "vx11.madre.open_window"
    scope: ClassVar = "power"

    services: list[str] = Field(min_length=1)
    ttl_sec: float | None = Field(default=None, gt=0, le=604_800)
    mode: Literal["ttl", "hold"] = "ttl"
    reason: str = ""


class WindowClosed(Message):
    window: Window
    slept: list[Moved]


class CloseWindow(Request[WindowClosed]):
    """Close a window; without an id, the only one open. Its services sleep once they have finished."""

    subject: ClassVar = "vx11.madre.close_window"
    timeout: ClassVar = 60.0
    idempotent: ClassVar = True
    scope: ClassVar = "power"

    window_id: str | None = None


class WindowList(Message):
    windows: list[Window]


class ListWindows(Request[WindowList]):
    subject: ClassVar = "vx11.madre.list_windows"
    timeout: ClassVar = 2.0
    idempotent: ClassVar = True
    scope: ClassVar = "read"
    passive: ClassVar = True


class PolicyState(Message):
    """`active`: nothing but the three is awake (solo_madre), or everything that may be is (full)."""

    policy: Policy
    mode: Mode
    active: bool
    running: list[str]
    expected: list[str]


class GetPolicy(Request[PolicyState]):
    subject: ClassVar = "vx11.madre.get_policy"
    timeout: ClassVar = 2.0
    idempotent: ClassVar = True
    scope: ClassVar = "read"
    passive: ClassVar = True


class PolicyApplied(Message):
    status: Literal["ok", "partial", "failed"]
    policy: Policy
    executed: list[Moved]


class ApplyPolicy(Request[PolicyApplied]):
    """solo_madre: put every other actor to sleep. full: wake all and keep them awake. Survives a restart."""

    subject: ClassVar = "vx11.madre.apply_policy"
    timeout: ClassVar = 60.0
    idempotent: ClassVar = True
    scope: ClassVar = "power"

    policy: Policy


class Maintained(Message):
    """`checks`: name to finding. Parts that come with the vault are listed in `missing`, not pretended."""

    status: Literal["ok", "partial", "failed"]
    checks: dict[str, str]
    counts: dict[str, int]
    missing: list[str]
    elapsed_ms: float


class RunMaintenance(Request[Maintained]):
    """Look after the stores. Without `apply` nothing is changed."""

    subject: ClassVar = "vx11.madre.run_maintenance"
    timeout: ClassVar = 60.0
    idempotent: ClassVar = True
    scope: ClassVar = "power"

    apply: bool = False
    reason: str = ""


class Transition(Message):
    at: str
    what: str
    reason: str = ""


class Step(Message):
    """One change in the life of an actor, from the event log. `what`: the state it came to, or `crashed` or `denied`.

    `reason` says it in words; `by` and `about` as in a power event; `took_ms` since the wake or the drain began.
    """

    sequence: int
    at: str
    what: str
    cause: str = ""
    explained: bool = True
    """False: the events do not say why."""
    reason: str = ""
    by: str = ""
    about: str = ""
    request_id: str = ""
    correlation_id: str = ""
    took_ms: float | None = None
    run: str = ""


class Explanation(Message):
    """Why an actor is in its state: a sentence, what this madre has seen of it, and its last steps; oldest first."""

    actor: str
    state: State
    sentence: str
    transitions: list[Transition]
    steps: list[Step] = []


class Explain(Request[Explanation]):
    subject: ClassVar = "vx11.madre.explain"
    timeout: ClassVar = 2.0
    idempotent: ClassVar = True
    scope: ClassVar = "read"
    passive: ClassVar = True

    name: str
    limit: int = Field(default=20, ge=1, le=200)
    """So many steps at most."""


class Lease(Message):
    lease_id: str
    actor: str
    expires_at: str


class RenewLease(Request[Lease]):
    """Keep an actor awake for `ttl_sec` seconds from now; with `lease_id` prolong that lease."""

    subject: ClassVar = "vx11.madre.renew_lease"
    idempotent: ClassVar = True
    scope: ClassVar = "power"

    actor: str
    ttl_sec: float = Field(default=60.0, gt=0, le=86_400)
    lease_id: str | None = None
    reason: str = ""


class DropLease(Request[Nothing]):
    subject: ClassVar = "vx11.madre.drop_lease"
    idempotent: ClassVar = True
    scope: ClassVar = "power"

    lease_id: str


class MadreChatReply(Message):
    """`understood`: False when she only says what she understands; `nearest` is most like it. `pending`: she asks for a yes."""

    response: str
    understood: bool
    pending: bool = False
    nearest: list[str] = []
    action: dict[str, Any] | None = None


class Chat(Request[MadreChatReply]):
    """The operator's assistant: a closed list of phrases in English and Spanish. Not a language model."""

    subject: ClassVar = "vx11.madre.chat"
    scope: ClassVar = "chat"

    message: str = Field(min_length=1, max_length=4000)
    session_id: str = ""


class Recognised(Message):
    """`hers`: she answers it in `chat`. `dropped`: what she had asked a yes for in this session and does not do now."""

    hers: bool
    dropped: str = ""


class Recognise(Request[Recognised]):
    """Whether a message is madre's beyond doubt: an order with names, or the answer to her question, which else is dropped."""

    subject: ClassVar = "vx11.madre.recognise"
    idempotent: ClassVar = True
    scope: ClassVar = "chat"
    passive: ClassVar = True

    message: str = Field(min_length=1, max_length=4000)
    session_id: str = ""
    asked: bool = False
    """Her last word in this session was a question, whether or not she remembers it."""


class Register(Request[Nothing]):
    """A host says that it can start this actor. From then on madre stands in for it."""

    subject: ClassVar = "vx11.madre.register"
    idempotent: ClassVar = True
    scope: ClassVar = "admin"
    passive: ClassVar = True

    card: Card
    host: str


class MadreStarted(Event):
    """A new madre has taken over; what the last one held is asked again by its callers."""

    subject: ClassVar = "vx11.events.madre.started"
    summary: ClassVar = "madre is here, epoch {epoch}"

    epoch: int
    run: str
    at: float = 0.0
    """Seconds since the epoch. What was sent later is in her hands; what was sent before, its caller asks again."""
