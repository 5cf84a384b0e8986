"""Which provider is asked for which model, in which order, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actors.switch.providers import Provider
from schemas.errors import Failure

AUTO = "auto"
SHOWN_MODELS = 20
"""How many models an error names."""


@dataclass(frozen=True)
class Choice:
    provider: Provider
    model: str
    reason: str


def choices(providers: Sequence[Provider], wanted: str | None, listed: Mapping[str, Sequence[str]] | None = None) -> list[Choice]:
    """Whom to ask, first to last. `listed`: the models that a provider (by its name) was seen to serve.

    `wanted` is a model, a provider, or `provider/model`; none or `auto` leaves it to the configured order. Raises
    Failure `not_found` when no provider has it: another model than the one asked for would be a silent lie.
    """
    if wanted is None or wanted == AUTO:
        return [Choice(provider, provider.model, "the configured order") for provider in providers]
    serves = {provider.name: {*provider.all_models, *(listed or {}).get(provider.name, ())} for provider in providers}
    reason = f"{wanted} was asked for"
    found = [Choice(provider, wanted, reason) for provider in providers if wanted in serves[provider.name]]
    if found:
        return found
    name, _, model = wanted.partition("/")
    named = [provider for provider in providers if provider.name == name]
    if named and (model or "/" not in wanted):
        return [Choice(provider, model or provider.model, reason) for provider in named]
    known = [f"{provider.name}/{one}" for provider in providers for one in provider.all_models]
    shown = ", ".join(known[:SHOWN_MODELS])
    raise Failure("not_found", f"no configured provider has the model {wanted!r}; configured: {shown}", model=wanted)
