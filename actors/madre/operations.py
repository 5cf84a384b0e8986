"""What the assistant can have done, by `Control` and from the event log."""

from __future__ import annotations

from collections.abc import Sequence

from actors.madre.control import Control
from schemas.errors import Failure
from schemas.madre import ActorList, Explanation, Moved, Transition, WindowClosed, WindowOpened

BY_CHAT = "asked for in the chat"


class Operations:
    """Adapter from the assistant's words to madre's commands."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def list_actors(self) -> ActorList:
        return self._control.listed()

    async def wake(self, name: str) -> Moved:
        return await self._control.wake(name, BY_CHAT)

    async def sleep(self, name: str) -> Moved:
        return await self._control.sleep(name, BY_CHAT)

    async def restart(self, name: str) -> Moved:
        return await self._control.restart(name, BY_CHAT)

    async def open_window(self, services: list[str], ttl_sec: float) -> WindowOpened:
        window, woken = await self._control.open_window(services, ttl_sec, BY_CHAT)
        return WindowOpened(window=window, woken=woken)

    async def close_window(self, window_id: str) -> WindowClosed:
        window, slept = await self._control.close_window(window_id)
        return WindowClosed(window=window, slept=slept)

    async def explain(self, name: str) -> Explanation:
        return self._control.explain(name)

    async def recent(self, minutes: float) -> Sequence[Transition]:
        """Transitions of all actors in the last `minutes`, oldest first. Raises Failure("unavailable") before any is known."""
        if not self._control.machine.driven:
            raise Failure("unavailable", "no actor is registered yet")
        return self._control.recent(minutes)
