"""A house of actors to try madre's chat on."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.errors import Failure
from schemas.madre import (
    ActorList,
    ActorStatus,
    Explanation,
    Moved,
    Transition,
    Window,
    WindowClosed,
    WindowOpened,
)

NOW = 1_000.0


class House:
    """A house of actors that remembers what was done to it; `failing` names what fails, and how."""

    def __init__(self, **states: str) -> None:
        self.states = states or {"switch": "dormant", "operator_backend": "active", "hormiguero": "dormant"}
        self.windows: dict[str, Window] = {}
        self.done: list[tuple[object, ...]] = []
        self.failing: dict[str, Failure] = {}
        self.happened: list[Transition] = []

    async def list_actors(self) -> ActorList:
        self._fail("list_actors")
        actors = [ActorStatus.model_validate({"name": n, "state": s}) for n, s in self.states.items()]
        return ActorList(actors=actors, policy="solo_madre", mode="windowed", windows=list(self.windows.values()))

    async def wake(self, name: str) -> Moved:
        return self._move("wake", name, "active")

    async def sleep(self, name: str) -> Moved:
        return self._move("sleep", name, "dormant")

    async def restart(self, name: str) -> Moved:
        return self._move("restart", name, "active")

    async def open_window(self, services: list[str], ttl_sec: float) -> WindowOpened:
        self.done.append(("open_window", tuple(services), ttl_sec))
        self._fail("open_window")
        window = self.window(f"w-{len(self.windows) + 1}", *services, ttl_sec=ttl_sec)
        return WindowOpened(window=window, woken=[self._moved(name, "active") for name in services])

    async def close_window(self, window_id: str) -> WindowClosed:
        self.done.append(("close_window", window_id))
        self._fail("close_window")
        window = self.windows.pop(window_id)
        return WindowClosed(window=window, slept=[self._moved(name, "dormant") for name in window.services])

    async def explain(self, name: str) -> Explanation:
        self._fail("explain")
        moves = [Transition(at="2026-01-01T10:00:00Z", what="slept", reason="idle")]
        return Explanation.model_validate(
            {"actor": name, "state": self.states[name], "sentence": "It was idle for 300 s.", "transitions": moves}
        )

    async def recent(self, minutes: float) -> Sequence[Transition]:
        self.done.append(("recent", minutes))
        self._fail("recent")
        return self.happened

    def window(self, window_id: str, *services: str, ttl_sec: float | None = 600.0) -> Window:
        self.windows[window_id] = Window(window_id=window_id, services=list(services), ttl_sec=ttl_sec, ttl_remaining_sec=ttl_sec)
        return self.windows[window_id]

    @property
    def acted(self) -> list[tuple[object, ...]]:
        return [done for done in self.done if done[0] != "recent"]

    def _fail(self, what: str) -> None:
        if what in self.failing:
            raise self.failing[what]

    def _move(self, verb: str, name: str, to: str) -> Moved:
        self.done.append((verb, name))
        self._fail(verb)
        return self._moved(name, to)

    def _moved(self, name: str, to: str) -> Moved:
        before, self.states[name] = self.states[name], to
        return Moved.model_validate({"service": name, "from": before, "to": to, "elapsed_ms": 12.0})
