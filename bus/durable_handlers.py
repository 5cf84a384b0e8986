"""The durable handlers of one actor as consumers: the body is parsed first, so that only a hopeless one counts as such."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pydantic import ValidationError

from bus.actor import Actor, Handler
from bus.call import call_from, current
from bus.client import Bus
from bus.durable import Durable, DurableConsumers
from bus.resources import Resources
from bus.streams import EVENTS
from bus.wire import Msg


def consumers(actor: Actor, bus: Bus, resources: Resources) -> DurableConsumers:
    """Not started yet."""
    durables = [
        Durable(actor.durable_name(handler), EVENTS, [handler.message.subject], _run(handler, resources))
        for handler in actor.durables
    ]
    return DurableConsumers(bus.wire, durables)


def _run(handler: Handler, resources: Resources) -> Callable[[Msg], Awaitable[None]]:
    async def run(msg: Msg) -> None:
        event = handler.message.model_validate_json(msg.data or b"{}")
        circumstances = current.get() or call_from(msg.headers)
        try:
            await handler.run(event, **resources.give(handler.wants, circumstances))
        except ValidationError as error:  # of something else than the event: trying again may help
            raise RuntimeError(f"{handler.name}: {error}") from error

    return run
