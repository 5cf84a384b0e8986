"""The model that runs on this machine: loaded at the first question, one at a time, its memory given back when nobody asks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from actors.switch.asking.dialect import Piece
from actors.switch.asking.failure import ProviderFailed
from actors.switch.asking.patience import Limits
from actors.switch.choosing.board import Board, Client
from actors.switch.configured.providers import LOCAL, Provider
from actors.switch.offline import child, folder
from actors.switch.offline.child import Child
from bus import models
from bus.exclusive import Lease, holder
from bus.models import MIB, Model
from bus.settings import Settings
from schemas.errors import Failure
from schemas.message import Event
from schemas.switch import Chat, ProviderList, ProviderStatus

log = logging.getLogger("vx11.switch.model")

EXPECT_S = 5.0
"""For a lease to be had by somebody who has not asked yet."""
PATIENT = Limits(first_token=600.0, stall=60.0)
"""A large model reads a long conversation for minutes, and it is known to be alive: its death is seen at once."""


@dataclass
class Seat:
    """A model that is loaded or being loaded, and how many are using it."""

    model: Model
    loading: asyncio.Task[Child]
    users: int = 0
    free: asyncio.Event = field(default_factory=asyncio.Event)
    leaving: bool = False
    """It is being ended, and takes nobody any more."""

    @property
    def child(self) -> Child | None:
        """None while it is being loaded, and when that failed."""
        done = self.loading.done() and not self.loading.cancelled() and not self.loading.exception()
        return self.loading.result() if done else None

    @property
    def dead(self) -> bool:
        return self.leaving or (self.loading.done() and (self.child is None or self.child.ended))


class Local:
    """Holds at most one child, under the lease of the models' memory. `tell`: publishes an event."""

    def __init__(self, settings: Settings, lease: Lease) -> None:
        self._settings = settings
        self._lease = lease
        self._lock = asyncio.Lock()
        """Held while it is decided who sits: whoever waits for another model comes before later questions for this one."""
        self._seat: Seat | None = None
        self._wanted = False
        self._timer: asyncio.TimerHandle | None = None
        self._tidying: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self, provider: Provider, name: str, until: float) -> AsyncIterator[Provider]:
        """Where the model can be asked. `until`: a moment on the loop's clock. Raises ProviderFailed.

        When the caller's time is up while the model is being loaded, it goes on being loaded, for the next question.
        """
        seat = await self._within(until, self._seated(name, until))
        try:
            loaded = await self._within(until, _of(seat))
            try:
                yield replace(provider, url=loaded.url, key=loaded.key)
            except ProviderFailed as why:
                if why.blame == "provider" and (died := await loaded.death()):
                    raise ProviderFailed(died, unspent=why.unspent) from why
                raise
        finally:
            self._left(seat)

    def expect(self, name: str) -> None:
        """Begin to load a model that is likely to be asked in a moment, if nothing is loaded or being loaded."""
        if self._seat is None and not self._lock.locked():
            self._tidy(self._expected(name))

    def let_go(self, who: str) -> None:
        """Somebody wants the memory: give it back now, or when the last answer is done."""
        if self._seat and who != self._lease.who:
            self._wanted = True
            if not self._seat.users:
                self._tidy(self._retire(self._seat))

    def status(self) -> str:
        """What is loaded, as it is observed now."""
        seat = self._seat
        if seat is None or seat.dead:
            other = holder(models.house(self._settings))
            return f"their memory is held by {other.who}, who is working" if other else "not in memory; a question loads it"
        if seat.child is None:
            return f"{seat.model.name} is being loaded"
        return f"{seat.model.name} is loaded, with {seat.child.resident // MIB} MB of memory"

    def described(self, found: ProviderList) -> ProviderList:
        """The list, and whether the model on this machine is in memory now."""

        def one(provider: ProviderStatus) -> ProviderStatus:
            if provider.name != LOCAL or not provider.configured:
                return provider
            return provider.model_copy(update={"reason": "; ".join(filter(None, (provider.reason, self.status())))})

        return ProviderList(providers=[one(provider) for provider in found.providers])

    async def close(self) -> None:
        """The child is gone when this returns."""
        async with self._lock:
            if self._seat:
                await self._unload(self._seat)
        while self._tidying:
            await asyncio.wait(self._tidying)

    async def _expected(self, name: str) -> None:
        until = asyncio.get_running_loop().time() + EXPECT_S
        try:
            self._left(await self._within(until, self._seated(name, until)))
        except ProviderFailed as why:
            log.info("%s is not loaded yet: %s", name, why.reason)  # the question itself will hear it

    async def _seated(self, name: str, until: float) -> Seat:
        """Take part in using the model; `_left` gives that back."""
        async with self._lock:
            model = self._model(name)
            seat = self._seat
            if seat and not seat.dead and (seat.model != model or self._wanted):
                await seat.free.wait()
            if seat and (seat.dead or seat.model != model or self._wanted):
                await self._unload(seat)
            seat = self._seat or await self._load(model, until)
            seat.users += 1
            seat.free.clear()
            self._stop_timer()
            return seat

    def _model(self, name: str) -> Model:
        try:
            return models.find(self._settings, name)
        except Failure as failure:
            raise ProviderFailed(failure.message, blame="setup", unspent=True) from failure

    async def _load(self, model: Model, until: float) -> Seat:
        try:
            await self._lease.take(until, model.name)
        except Failure as failure:
            raise ProviderFailed(failure.message, blame="nobody", unspent=True) from failure
        except OSError as wrong:
            told = f"leave to use the models' memory cannot be had in {models.house(self._settings)}: {wrong.strerror}"
            raise ProviderFailed(told, blame="setup", unspent=True) from wrong
        starting = child.started(model, self._settings, self._lease.descriptor)
        self._seat = Seat(model, asyncio.create_task(starting, name=f"loading {model.name}"))
        return self._seat

    async def _unload(self, seat: Seat) -> None:
        """Nobody sits when this returns. When it is cancelled, it is done in the background."""
        self._stop_timer()
        if not seat.leaving:
            seat.leaving = True
            seat.loading.cancel()  # once: a second time would cut short how it ends its child
        try:
            await asyncio.wait([seat.loading])
            if seat.child:
                await seat.child.stop()
        except asyncio.CancelledError:
            self._tidy(self._retire(seat))
            raise
        if not seat.child and not seat.loading.cancelled():
            log.warning("%s: %s", seat.model.name, seat.loading.exception())
        self._seat = None
        self._lease.release(wanted=self._wanted)
        self._wanted = False

    def _left(self, seat: Seat) -> None:
        seat.users -= 1
        if seat.users:
            return
        seat.free.set()
        if seat is not self._seat:
            return
        if self._wanted or seat.dead:
            self._tidy(self._retire(seat))
        else:
            idle = folder.idle_s(self._settings)
            self._timer = asyncio.get_running_loop().call_later(idle, lambda: self._tidy(self._retire(seat)))

    async def _retire(self, seat: Seat) -> None:
        async with self._lock:
            if seat is self._seat and not seat.users:
                await self._unload(seat)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _tidy(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="unloading the model")
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)

    async def _within(self, until: float, work: Coroutine[Any, Any, Any]) -> Any:
        clock = asyncio.timeout_at(until)
        try:
            async with clock:
                return await work
        except TimeoutError:
            if not clock.expired():
                raise ProviderFailed(f"it was not loaded within {child.LOAD_MAX_S:g} s", unspent=True) from None
            raise ProviderFailed(f"the caller's time was up: {self.status()}", blame="nobody", unspent=True) from None


async def _of(seat: Seat) -> Child:
    """The child, once it is loaded; whoever waits no longer leaves it to be loaded."""
    return await asyncio.shield(seat.loading)


def anticipate(request: Chat, board: Board, local: Local) -> None:
    """While it is still found out what a message is about, begin to load the model on this machine, if it would be asked."""
    try:
        first = next(iter(board.choices(request)), None)
    except Failure:
        return  # which is told when it is about a model at all
    if first and first.provider.name == LOCAL:
        local.expect(first.model)


class Doors:
    """The client of all providers: the local one has to be started before it is asked."""

    def __init__(self, far: Client, near: Client, local: Local) -> None:
        self._far, self._near, self._local = far, near, local

    async def stream(self, provider: Provider, model: str, request: Chat, until: float) -> AsyncGenerator[Piece, None]:
        async with self._local.serving(provider, model, until) if provider.name == LOCAL else nullcontext(provider) as where:
            client = self._far if where is provider else self._near
            async with aclosing(client.stream(where, model, request, until)) as pieces:
                async for piece in pieces:
                    yield piece

    async def models(self, provider: Provider, until: float) -> list[str]:
        """The folder says what it has; no model is loaded for that."""
        return list(provider.all_models) if provider.name == LOCAL else await self._far.models(provider, until)


@asynccontextmanager
async def opened(settings: Settings, who: str, tell: Callable[[Event], None]) -> AsyncIterator[Local]:
    local = Local(settings, Lease(models.house(settings), who, tell))
    try:
        yield local
    finally:
        await local.close()
