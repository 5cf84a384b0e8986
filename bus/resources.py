"""What an actor has open while it is awake: opened in the order of declaration, closed in reverse."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from bus.actor import Actor
from bus.call import Call


class Resources:
    """Values by type. `given` are there from the start (the bus, the settings); the actor's own follow by `open`."""

    def __init__(self, actor: Actor, given: dict[type, Any]) -> None:
        self._actor = actor
        self._values = dict(given)
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        """Open all. When one raises, those already open are closed and the error goes on."""
        try:
            for resource in self._actor.resources.values():
                wanted = {name: self._value(kind, f"resource {resource.makes.__name__}") for name, kind in resource.wants.items()}
                opened = asynccontextmanager(resource.open)(**wanted)
                self._values[resource.makes] = await opened.__aenter__()
                self._stack.push_async_callback(opened.__aexit__, None, None, None)  # the trouble of one is not another's
        except BaseException:
            await self._stack.aclose()
            raise

    async def close(self) -> None:
        """Close all, also when one raises; its error goes on."""
        await self._stack.aclose()

    def give(self, wants: dict[str, type], circumstances: Call | None) -> dict[str, Any]:
        """The arguments of a handler, `Call` being that of its request."""
        return {name: circumstances if kind is Call else self._value(kind, name) for name, kind in wants.items()}

    def check(self) -> None:
        """Raise TypeError when a handler wants what nobody makes."""
        known = {*self._values, *self._actor.resources, Call}
        handlers = [*self._actor.requests.values(), *self._actor.events]
        for wants, owner in [(h.wants, h.name) for h in handlers] + [
            (r.wants, r.makes.__name__) for r in self._actor.resources.values()
        ]:
            for name, kind in wants.items():
                if kind not in known:
                    raise TypeError(f"{self._actor.name}.{owner} wants {name}: {kind!r}, but no resource makes one")

    def _value(self, kind: type, wanted_by: str) -> Any:
        try:
            return self._values[kind]
        except KeyError:
            raise TypeError(f"{self._actor.name}: {wanted_by} wants a {kind!r}, which is not open") from None
