"""Who may wake, and who may sleep: gates, windows, leases and the policy. Pure: the time is passed in."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, get_args

from schemas.errors import Failure
from schemas.madre import Mode, Window
from schemas.power import Gate
from schemas.power import Policy as PolicyName

log = logging.getLogger("vx11.madre.policy")

GATES = ("on_demand", "window", "closed")


@dataclass
class OpenedWindow:
    """`ends`: seconds since the epoch, None for mode `hold`."""

    window_id: str
    services: list[str]
    reason: str
    created: float
    ends: float | None
    ttl_sec: float | None

    def shown(self, now: float) -> Window:
        left = None if self.ends is None else round(max(0.0, self.ends - now), 1)
        return Window(
            window_id=self.window_id,
            services=self.services,
            mode="hold" if self.ends is None else "ttl",
            ttl_sec=self.ttl_sec,
            ttl_remaining_sec=left,
            reason=self.reason,
            created_at=rfc3339(self.created),
            deadline=None if self.ends is None else rfc3339(self.ends),
        )


@dataclass
class KeepAwake:
    """A lease: the actor is not put to sleep before `ends`."""

    lease_id: str
    actor: str
    ends: float


@dataclass
class Policy:
    """`pins`: gates that the environment closed. `defaults`: gates that it set otherwise."""

    name: PolicyName = "solo_madre"
    gates: dict[str, Gate] = field(default_factory=dict)
    defaults: dict[str, Gate] = field(default_factory=dict)
    pins: frozenset[str] = frozenset()
    windows: dict[str, OpenedWindow] = field(default_factory=dict)
    leases: dict[str, KeepAwake] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> Policy:
        """`VX11_GATE_<ACTOR>`; raises Failure("invalid") for a word that is no gate."""
        policy = cls()
        for variable, value in variables.items():
            if not variable.startswith("VX11_GATE_"):
                continue
            actor = variable.removeprefix("VX11_GATE_").lower()
            if value not in GATES:
                raise Failure("invalid", f"{variable}={value!r} is no gate; write one of {', '.join(GATES)}")
            policy.defaults[actor] = value  # type: ignore[assignment]
        policy.pins = frozenset(name for name, gate in policy.defaults.items() if gate == "closed")
        return policy

    def gate(self, actor: str) -> Gate:
        """A pin by the environment, else what was stored, else the environment's default, else on_demand."""
        if self.pinned(actor):
            return "closed"
        return self.gates.get(actor) or self.defaults.get(actor.lower(), "on_demand")

    def pinned(self, actor: str) -> bool:
        return actor.lower() in self.pins

    def refuse_pinned(self, actor: str, gate: Gate) -> None:
        """Raises Failure("conflict") when the environment forbids this gate."""
        if self.pinned(actor) and gate != "closed":
            name = f"VX11_GATE_{actor.upper()}"
            raise Failure("conflict", f"{name}=closed pins this gate; unset it and start VX11 again to change it")

    def set_gate(self, actor: str, gate: Gate) -> None:
        self.refuse_pinned(actor, gate)
        self.gates[actor] = gate

    def allowed(self, actor: str, now: float) -> bool:
        gate = self.gate(actor)
        return gate == "on_demand" or (gate == "window" and self.in_window(actor, now))

    def in_window(self, actor: str, now: float) -> bool:
        return any(actor in w.services and (w.ends is None or w.ends > now) for w in self.windows.values())

    def kept_awake(self, actor: str, now: float) -> bool:
        """Idle or not, it is not put to sleep by itself."""
        leased = any(lease.actor == actor and lease.ends > now for lease in self.leases.values())
        return self.name == "full" or leased or self.in_window(actor, now)

    def expired(self, now: float) -> list[OpenedWindow]:
        """Windows whose time is over, taken out."""
        over = [w for w in self.windows.values() if w.ends is not None and w.ends <= now]
        for window in over:
            del self.windows[window.window_id]
        for lease in [lease for lease in self.leases.values() if lease.ends <= now]:
            del self.leases[lease.lease_id]
        return over

    def next_end(self) -> float | None:
        """When the next window ends, seconds since the epoch."""
        return min((w.ends for w in self.windows.values() if w.ends is not None), default=None)

    def mode(self, now: float, awake: int) -> Mode:
        """solo_madre: nobody else is awake; windowed: a window is open; full: somebody is awake by demand or policy."""
        if any(w.ends is None or w.ends > now for w in self.windows.values()):
            return "windowed"
        return "full" if awake else "solo_madre"

    def load(self, stored: Mapping[str, dict[str, Any]], now: float) -> None:
        """Take over what the bucket kept from the last life; what cannot be understood is left out, and told in the log."""
        for key, document in stored.items():
            try:
                self._take_over(key, document, now)
            except (KeyError, TypeError, ValueError) as error:
                log.error("stored %s cannot be understood and is left out: %r", key, error)

    def _take_over(self, key: str, document: dict[str, Any], now: float) -> None:
        kind, _, name = key.partition(".")
        if kind == "policy":
            self.name = _one_of(get_args(PolicyName), document["policy"])
        elif kind == "gate":
            self.gates[name] = _one_of(get_args(Gate), document["gate"])
        elif kind == "window" and (document["ends"] is None or document["ends"] > now):
            window = OpenedWindow(window_id=name, **document)
            window.shown(now)
            self.windows[name] = window
        elif kind == "lease" and document["ends"] > now:
            self.leases[name] = KeepAwake(lease_id=name, **document)


def _one_of(known: tuple[str, ...], word: str) -> Any:
    if word not in known:
        raise ValueError(f"{word!r} is none of {', '.join(known)}")
    return word


def rfc3339(moment: float) -> str:
    """Seconds since the epoch as UTC text."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
