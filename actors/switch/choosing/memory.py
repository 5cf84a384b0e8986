"""What switch remembers of providers and sessions, also across its sleep: observations, circuits, pinned choices.

Written when an answer has ended, never while it is spoken. What belongs to a provider is kept with the place that it was
observed at, and is worth nothing for another place of the same name.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol

from actors.switch.choosing.breaker import Circuit, restored
from actors.switch.choosing.learned import Observed, read
from actors.switch.configured.providers import Provider
from schemas.errors import Failure

log = logging.getLogger("vx11.switch.memory")

Kind = Literal["circuit", "model", "pin"]
KINDS: tuple[Kind, ...] = ("circuit", "model", "pin")
MOST: dict[Kind, int] = {"circuit": 200, "model": 1_000, "pin": 10_000}
"""Documents in memory; the one that was not written for the longest time goes."""


class Shelf(Protocol):
    """Where documents are kept while switch sleeps: `actors.switch.store.Store`."""

    def keep(self, kind: Kind, documents: dict[str, Any]) -> None: ...

    def kept(self, kind: Kind) -> dict[str, Any]: ...

    def forget(self, kind: Kind) -> None: ...


class Memory:
    """Without a shelf it lasts as long as the process. `wall`: seconds since the epoch."""

    def __init__(self, shelf: Shelf | None = None, wall: Callable[[], float] = time.time) -> None:
        self._shelf = shelf
        self._wall = wall
        self._documents = {kind: self._load(kind) for kind in KINDS}

    def observed(self, provider: Provider, model: str) -> Observed:
        """What is known of a model of this provider, as it counts now."""
        document = self._documents["model"].get(f"{provider.name}/{model}")
        return read(_of(document, provider.url)).faded(self._wall())

    def answered(self, provider: Provider, model: str, first_s: float | None, count: tuple[int, int] | None) -> None:
        """`count`: the bytes of the conversation, and its tokens as the provider counted them."""
        seen = self.observed(provider, model).answered(self._wall(), first_s)
        self._observe(provider, model, seen.counted(*count) if count else seen)

    def failed(self, provider: Provider, model: str) -> None:
        self._observe(provider, model, self.observed(provider, model).failed(self._wall()))

    def circuit(self, provider: Provider, now: float) -> Circuit:
        """As it was kept, on a clock that shows `now`; closed when nothing is known, or the provider has changed."""
        return restored(_of(self._documents["circuit"].get(provider.name), _face(provider)), now, self._wall())

    def keep_circuit(self, provider: Provider, circuit: Circuit, now: float) -> None:
        self._keep("circuit", provider.name, circuit.document(now, self._wall()) | {"place": _face(provider)})

    def pinned(self, session_id: str) -> str:
        """`provider/model` that answered in this session; empty when nobody has."""
        found = self._documents["pin"].get(session_id, "")
        return found if isinstance(found, str) else ""

    def pin(self, session_id: str, name: str) -> None:
        if self._documents["pin"].get(session_id) != name:
            self._keep("pin", session_id, name)

    def forget(self) -> None:
        """Forget everything. Raises Failure when the shelf cannot; then nothing is forgotten."""
        for kind in KINDS:
            if self._shelf:
                self._shelf.forget(kind)
            self._documents[kind].clear()

    def _observe(self, provider: Provider, model: str, seen: Observed) -> None:
        self._keep("model", f"{provider.name}/{model}", seen.document() | {"place": provider.url})

    def _keep(self, kind: Kind, name: str, document: Any) -> None:
        documents = self._documents[kind]
        documents.pop(name, None)
        documents[name] = document
        while len(documents) > MOST[kind]:
            del documents[next(iter(documents))]
        if self._shelf:
            self._shelf.keep(kind, {name: document})

    def _load(self, kind: Kind) -> dict[str, Any]:
        try:
            return self._shelf.kept(kind) if self._shelf else {}
        except (Failure, ValueError) as wrong:
            log.warning("what was learned (%s) cannot be read, so it is learned anew: %s", kind, wrong)
            return {}


def _of(document: Any, place: str) -> Any:
    """The document, if it was made at this place."""
    return document if isinstance(document, dict) and document.get("place") == place else None


def _face(provider: Provider) -> str:
    """Changes whenever the provider is configured otherwise; its key cannot be found from it."""
    return hashlib.blake2b(repr((provider, provider.key)).encode(), digest_size=8).hexdigest()
