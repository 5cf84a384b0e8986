"""Language models that were found but not taken: an API key in the environment, an Ollama on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from actors.switch.asking.address import is_loopback, same_place
from actors.switch.configured.providers import MODEL_FORM, Provider, providers_file
from bus.settings import Settings

OLLAMA_PORT = 11_434
OLLAMA_SMALL_MODEL = "llama3.2"
ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  # what a server listens on, not where it is asked


@dataclass(frozen=True)
class Known:
    """A service whose key has a customary variable. `model`: one that it serves, to begin with."""

    name: str
    variable: str
    url: str
    model: str


KNOWN = (
    Known("openai", "OPENAI_API_KEY", "https://api.openai.com/v1", "gpt-4o-mini"),
    Known("deepseek", "DEEPSEEK_API_KEY", "https://api.deepseek.com/v1", "deepseek-chat"),
)


@dataclass(frozen=True)
class Offer:
    """`reason`: where it was found, and what to write to take it. `observed`: it has answered, with these `models`."""

    name: str
    url: str
    reason: str
    models: tuple[str, ...] = ()
    observed: bool = False


def keys(settings: Settings, providers: Sequence[Provider]) -> list[Offer]:
    """The services whose key is in the environment, without those that a configured provider uses already."""
    return [
        Offer(known.name, known.url, f"found {known.variable} in the environment; {_lines(known, settings)}")
        for known in KNOWN
        if settings.get(known.variable) and not any(_uses(provider, known) for provider in providers)
    ]


def ollama_url(settings: Settings, providers: Sequence[Provider]) -> str | None:
    """Where an Ollama may be looked for: on this machine only; None when it is configured, or lives elsewhere."""
    address = settings.get("OLLAMA_HOST")
    try:
        parts = urlsplit(address if "//" in address else f"//{address}")
        host, port = parts.hostname or "127.0.0.1", parts.port or OLLAMA_PORT
    except ValueError:
        host, port = "127.0.0.1", OLLAMA_PORT
    if host in ANY_ADDRESS:
        host = "127.0.0.1"
    if not is_loopback(host):
        return None
    url = f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"
    return None if any(_at(provider, url) for provider in providers) else url


def ollama(url: str, models: Sequence[str], settings: Settings) -> Offer:
    """What an Ollama that has answered at `url` is worth. `models`: as it listed them."""
    usable = tuple(model for model in models if MODEL_FORM.fullmatch(model))
    if not usable:
        reason = f"an Ollama answers here, but has no model yet; run  ollama pull {OLLAMA_SMALL_MODEL}"
        return Offer("ollama", url, reason, observed=True)
    lines = _block(settings, "ollama", f'url = "{url}"', f'model = "{usable[0]}"')
    return Offer("ollama", url, f"an Ollama answers here; {lines}", usable, observed=True)


def _uses(provider: Provider, known: Known) -> bool:
    return provider.key_source == known.variable or _at(provider, known.url)


def _at(provider: Provider, url: str) -> bool:
    """The models of this machine have no place to be asked at before they are loaded."""
    return bool(provider.url) and same_place(provider.url, url)


def _lines(known: Known, settings: Settings) -> str:
    key = f'key_env = "{known.variable}"'
    return _block(settings, known.name, f'url = "{known.url}"', f'model = "{known.model}"', key)


def _block(settings: Settings, name: str, *lines: str) -> str:
    return "\n".join((f"to take it, append to {providers_file(settings)}:", f"[{name}]", *lines))
