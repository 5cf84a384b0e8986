"""What switch knows while it is awake: the providers, their circuits, and what was last observed of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

from actors.switch.asking.dialect import Piece
from actors.switch.asking.failure import ProviderFailed
from actors.switch.choosing import window
from actors.switch.choosing.breaker import Circuit
from actors.switch.choosing.choice import Choice, Need, Standing, choices, weighed
from actors.switch.choosing.memory import Memory
from actors.switch.configured import offers
from actors.switch.configured.offers import Offer
from actors.switch.configured.providers import BUDGETS, FILE_NAME, Configuration, Fault, Provider, load, providers_file, stamp
from bus.moment import rfc3339_now
from bus.settings import Settings
from schemas.errors import Failure
from schemas.language import language_of
from schemas.switch import Candidate, Chat, ModelInfo, ModelList, ProviderList, ProviderStatus

LOOK_S = 1.0
"""For an Ollama on this machine to list its models."""
LIST_S = 4.0
"""For a configured provider to list its models; less than a silence that counts against it."""
LISTED_FOR_S = 60.0
"""How long a list of models is good for."""


class Client(Protocol):
    """What asks the providers: `actors.switch.asking.endpoint.Endpoint`."""

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


class Attempt:
    """One request to one provider, while it lasts. How it ends is remembered of the provider, the model and the session."""

    def __init__(self, board: Board, entry: Entry, choice: Choice, request: Chat) -> None:
        self._board, self._entry, self._choice, self._request = board, entry, choice, request
        self._began = board.clock()
        self._probe = entry.circuit.state(self._began) == "half_open"
        self._first_s: float | None = None
        self._settled = False
        entry.circuit = entry.circuit.entered(self._began)

    def heard(self) -> None:
        """A piece of the answer came; only the first one matters."""
        if self._first_s is None:
            self._first_s = self._board.clock() - self._began

    def answered(self, usage: Mapping[str, int] | None = None) -> None:
        """The answer came, whole. `usage`: the tokens as the provider counted them."""
        self._settle(self._entry.circuit.answered(probe=self._probe))
        self._entry.observe("up")
        choice, request, memory = self._choice, self._request, self._board.memory
        size, tokens = window.size(request), (usage or {}).get("prompt_tokens")
        memory.answered(choice.provider, choice.model, self._first_s, (size, tokens) if size and tokens else None)
        if request.session_id and not choice.traits.offline and Need(request).named is None:
            memory.pin(request.session_id, f"{choice.provider.name}/{choice.model}")

    def failed(self, why: ProviderFailed, now: float) -> None:
        """The provider failed; whose fault it was decides what that says of the provider."""
        if why.blame == "nobody":
            return
        if why.blame == "provider":
            self._settle(self._entry.circuit.failed(now, probe=self._probe, retry_after=why.retry_after))
            self._board.memory.failed(self._choice.provider, self._choice.model)
        else:
            self._settle(self._entry.circuit.answered(probe=self._probe))
        self._entry.observe("up" if why.blame == "caller" else "down", why.reason)

    def left(self) -> None:
        """Nobody waits for it any more. Without a verdict it gives its place as the probe back."""
        if not self._settled:
            self._entry.circuit = self._entry.circuit.released(probe=self._probe)

    def _settle(self, circuit: Circuit) -> None:
        self._settled = True
        self._board.turn(self._entry, circuit)


class Board:
    """Made on waking, gone on sleeping. A changed `providers.toml` or key file is noticed at the next question."""

    def __init__(
        self,
        settings: Settings,
        client: Client,
        clock: Callable[[], float] = time.monotonic,
        memory: Memory | None = None,
    ) -> None:
        self.settings = settings
        self.client = client
        self.clock = clock
        self.memory = memory or Memory()
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

    def budgets(self) -> Mapping[str, Any] | None:
        """The table as it is written; None while the file cannot be read. Raises Failure when the table is wrong."""
        self.entries()
        for fault in self.faults:
            if fault.name == BUDGETS:
                raise Failure("unavailable", f"{fault.message}; no model is asked until that is mended")
            if fault.name == FILE_NAME:
                return None
        return self._configuration.budgets

    def choices(self, request: Chat) -> list[Choice]:
        """Whom to ask, first to last. Raises Failure: `not_found` for an unknown model, `too_large`, `invalid`."""
        return choices(self._standings(), self._need(request))

    def candidates(self, request: Chat) -> list[Candidate]:
        """All models with their points, best first, and last those that cannot answer this."""
        return [one.shown() for one in weighed(self._standings(), self._need(request))]

    def fitted(self, request: Chat, choice: Choice) -> Chat:
        """The request as it fits into the window of the model: without its oldest turns, when the caller allows that."""
        if not request.trim:
            return request
        factor = self.memory.observed(choice.provider, choice.model).factor
        turns = window.trimmed(request, choice.traits.context, factor)
        return request if turns is request.messages else request.model_copy(update={"messages": turns})

    @contextmanager
    def attempt(self, choice: Choice, request: Chat) -> Iterator[Attempt]:
        """Leave to ask once. `request`: as it is sent. Raises ProviderFailed when the provider's circuit does not admit it."""
        entry = self._entries.get(choice.provider.name)
        if entry is None or entry.provider != choice.provider:
            entry = Entry(choice.provider)  # the configuration changed while this request was under way
        if not entry.circuit.admits(self.clock()):
            raise ProviderFailed("not asked, it has failed too often and rests", blame="nobody")
        attempt = Attempt(self, entry, choice, request)
        try:
            yield attempt
        finally:
            attempt.left()

    def turn(self, entry: Entry, circuit: Circuit) -> None:
        """The circuit of a provider changes, which is remembered."""
        before, entry.circuit = entry.circuit, circuit
        if circuit != before and self._entries.get(entry.provider.name) is entry:
            self.memory.keep_circuit(entry.provider, circuit, self.clock())

    def forget(self) -> None:
        """Forget what was observed: successes, latencies, circuits, pinned choices. Raises Failure when it cannot."""
        self.memory.forget()
        self._entries = {name: Entry(entry.provider) for name, entry in self._entries.items()}

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
                f"needed) and start VX11 again, or describe one in {file}, which is read at once, or run  "
                "vx11 models pull smollm2  for a small offline model"
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

    def configured(self, name: str) -> ProviderStatus:
        """One provider as it stands. Raises Failure("not_found")."""
        for entry in self.entries():
            if entry.provider.name == name:
                return _status(entry, self.clock())
        raise Failure("not_found", f"no provider {name!r} is configured", provider=name)

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
                self.turn(entry, entry.circuit.failed(self.clock(), probe=False, retry_after=why.retry_after))
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
        self._entries = {provider.name: self._entry(provider, before) for provider in self._configuration.providers}

    def _entry(self, provider: Provider, before: Mapping[str, Entry]) -> Entry:
        """One that did not change keeps what is known of it, also from before the last sleep."""
        known = before.get(provider.name)
        if known and known.provider == provider:
            return known
        return Entry(provider, self.memory.circuit(provider, self.clock()))

    def _standings(self) -> list[Standing]:
        now = self.clock()
        return [
            Standing(entry.provider, entry.listed, entry.circuit.wait(now), partial(self.memory.observed, entry.provider))
            for entry in self.entries()
        ]

    def _need(self, request: Chat) -> Need:
        pinned = self.memory.pinned(request.session_id) if request.session_id else ""
        return Need(request, language_of(window.question(request)) or "", pinned, [fault.message for fault in self.faults])


def _status(entry: Entry, now: float) -> ProviderStatus:
    return ProviderStatus(
        name=entry.provider.name,
        url=entry.provider.url,
        models=list(dict.fromkeys((*entry.provider.all_models, *entry.listed))),
        configured=True,
        health=entry.health,
        observed_at=entry.observed_at,
        circuit=entry.circuit.state(now),
        reason=entry.reason or _resting(entry, now),
    )


def _resting(entry: Entry, now: float) -> str:
    """What is known of one that rests since before the last sleep."""
    rest = entry.circuit.wait(now)
    return f"rests after failures, and may be asked in {rest:.0f} s" if rest > 0 else ""


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
