"""What switch knows while it is awake: the providers, their circuits, and what was last observed of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from actors.switch import offers
from actors.switch.breaker import Circuit
from actors.switch.choice import Choice, choices
from actors.switch.dialect import Piece
from actors.switch.failure import ProviderFailed
from actors.switch.offers import Offer
from actors.switch.providers import Configuration, Fault, Provider, load, providers_file, stamp
from bus.moment import rfc3339_now
from bus.settings import Settings
from schemas.errors import Failure
from schemas.switch import Chat, ModelInfo, ModelList, ProviderList, ProviderStatus

LOOK_S = 1.0
"""For an Ollama on this machine to list its models."""
LIST_S = 5.0
"""For a configured provider to list its models."""
LISTED_FOR_S = 60.0
"""How long a list of models is good for."""


class Client(Protocol):
    """What asks the providers: `actors.switch.endpoint.Endpoint`."""

    def stream(self, provider: Provider, model: str, request: Chat, until: float) -> AsyncGenerator[Piece, None]: ...

    async def models(self, provider: Provider, until: float) -> list[str]: ...


@dataclass
class Entry:
    """One provider, and what its answers have told of it. `listed`: the models that it says it has."""

    provider: Provider
    circuit: Circuit = field(default_factory=Circuit)
    health: Literal["up", "down", "unknown"] = "unknown"
    observed_at: str | None = None
    reason: str = ""
    listed: tuple[str, ...] = ()
    listed_at: float | None = None

    def observe(self, health: Literal["up", "down"], reason: str = "") -> None:
        self.health, self.reason, self.observed_at = health, reason, rfc3339_now()


@dataclass
class Attempt:
    """One request to one provider, while it lasts."""

    entry: Entry
    probe: bool
    settled: bool = False

    def answered(self) -> None:
        """The answer came, whole."""
        self.settled = True
        self.entry.circuit = self.entry.circuit.answered(probe=self.probe)
        self.entry.observe("up")

    def failed(self, why: ProviderFailed, now: float) -> None:
        """The provider failed; whose fault it was decides what that says of the provider."""
        if why.blame == "nobody":
            return
        self.settled = True
        if why.blame == "provider":
            self.entry.circuit = self.entry.circuit.failed(now, probe=self.probe, retry_after=why.retry_after)
        else:
            self.entry.circuit = self.entry.circuit.answered(probe=self.probe)
        self.entry.observe("up" if why.blame == "caller" else "down", why.reason)


class Board:
    """Made on waking, gone on sleeping. A changed `providers.toml` or key file is noticed at the next question."""

    def __init__(self, settings: Settings, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.client = client
        self.clock = clock
        self._entries: dict[str, Entry] = {}
        self._configuration = Configuration()
        self._stamp: object = None

    def entries(self) -> list[Entry]:
        """The configured providers in their order. One that did not change keeps its circuit."""
        if self._stamp is None or self._stamp != stamp(self._configuration.files):
            self._load()
        return list(self._entries.values())

    @property
    def faults(self) -> tuple[Fault, ...]:
        return self._configuration.faults

    def choices(self, wanted: str | None) -> list[Choice]:
        """Whom to ask. Raises Failure `unavailable` when nobody is configured, `not_found` for an unknown model."""
        entries = self.entries()
        listed = {entry.provider.name: entry.listed for entry in entries}
        return choices([entry.provider for entry in entries], wanted, listed)

    @contextmanager
    def attempt(self, provider: Provider) -> Iterator[Attempt]:
        """Leave to ask the provider once. Raises ProviderFailed when its circuit does not admit it.

        An attempt that is left without a verdict, because its caller went away, gives its place as the probe back.
        """
        entry, now = self._entries.get(provider.name), self.clock()
        if entry is None or entry.provider != provider:
            entry = Entry(provider)  # the configuration changed while this request was under way
        if not entry.circuit.admits(now):
            raise ProviderFailed("not asked, it has failed too often and rests", blame="nobody")
        attempt = Attempt(entry, entry.circuit.state(now) == "half_open")
        entry.circuit = entry.circuit.entered(now)
        try:
            yield attempt
        finally:
            if not attempt.settled:
                entry.circuit = entry.circuit.released(probe=attempt.probe)

    def rest(self) -> float:
        """Seconds until the first circuit lets somebody try again; 0.0 when one does already."""
        now = self.clock()
        return min((entry.circuit.wait(now) for entry in self._entries.values()), default=0.0)

    async def nobody(self) -> Failure:
        """The answer when no provider can be asked at all: what to do about it."""
        file = providers_file(self.settings)
        if self.faults:
            told = "no language model can be used: " + "; ".join(fault.message for fault in self.faults)
        else:
            told = (
                "no language model is configured: set VX11_LLM_URL and VX11_LLM_MODEL (VX11_LLM_KEY where one is "
                f"needed) and start VX11 again, or describe one in {file}, which is read at once"
            )
        found = [offer.name for offer in await self.offers()]
        hint = f"; found but not taken: {', '.join(found)} (list_providers says how to take it)" if found else ""
        return Failure("unavailable", told + hint)

    async def offers(self) -> list[Offer]:
        """What could be taken into use. Nothing but an address of this machine is asked."""
        providers = [entry.provider for entry in self.entries()]
        found = offers.keys(self.settings, providers)
        url = offers.ollama_url(self.settings, providers)
        if url is None:
            return found
        try:
            models = await self.client.models(Provider("ollama", url, ""), _until(LOOK_S))
        except ProviderFailed:
            return found  # nobody there, or something else than an Ollama
        return [*found, offers.ollama(url, models, self.settings)]

    async def status(self) -> ProviderList:
        """Configured providers in their order, then what is written wrongly, then what was found."""
        now = self.clock()
        configured = [_status(entry, now) for entry in self.entries()]
        faulty = [ProviderStatus(name=f.name, url="", configured=False, reason=f.message) for f in self.faults]
        return ProviderList(providers=configured + faulty + [_offered(offer) for offer in await self.offers()])

    async def models(self) -> ModelList:
        """The models that are configured, and those that the providers list themselves."""
        entries = self.entries()
        await asyncio.gather(*(self._list(entry) for entry in entries))
        return ModelList(
            models=[
                ModelInfo(id=model, provider=entry.provider.name)
                for entry in entries
                for model in dict.fromkeys((*entry.provider.all_models, *entry.listed))
            ]
        )

    async def _list(self, entry: Entry) -> None:
        """Ask a provider that is not resting; one without a list still has its configured models."""
        now = self.clock()
        fresh = entry.listed_at is not None and now - entry.listed_at < LISTED_FOR_S
        if fresh or entry.circuit.state(now) != "closed":
            return
        try:
            entry.listed = tuple(await self.client.models(entry.provider, _until(LIST_S)))
        except ProviderFailed as why:
            if why.blame == "provider":
                entry.observe("down", why.reason)
            return
        entry.listed_at = now
        entry.observe("up")

    def _load(self) -> None:
        before = self._entries
        path = (providers_file(self.settings),)
        seen = stamp(path)
        self._configuration = load(self.settings)
        unchanged = stamp(path) == seen  # or else what was read may be half of what an editor was writing
        self._stamp = stamp(self._configuration.files) if unchanged else None
        self._entries = {}
        for provider in self._configuration.providers:
            known = before.get(provider.name)
            self._entries[provider.name] = known if known and known.provider == provider else Entry(provider)


def _status(entry: Entry, now: float) -> ProviderStatus:
    return ProviderStatus(
        name=entry.provider.name,
        url=entry.provider.url,
        models=list(dict.fromkeys((*entry.provider.all_models, *entry.listed))),
        configured=True,
        health=entry.health,
        observed_at=entry.observed_at,
        circuit=entry.circuit.state(now),
        reason=entry.reason,
    )


def _offered(offer: Offer) -> ProviderStatus:
    """A service that has listed its models was observed; a key alone says nothing of its service."""
    seen = offer.observed
    return ProviderStatus(
        name=offer.name,
        url=offer.url,
        models=list(offer.models),
        configured=False,
        offered=True,
        health="up" if seen else "unknown",
        observed_at=rfc3339_now() if seen else None,
        reason=offer.reason,
    )


def _until(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds
