"""Routes of the providers of language models."""

from __future__ import annotations

from gateway.http import providers
from gateway.http.routes.route import ACTOR_FAILS, Route
from schemas.switch import ProviderStatus, RemoveProvider, SetProvider

ADDRESS = "/operator/api/providers/{name}"
NAME = frozenset({"name"})

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/operator/api/providers",
        "providers",
        "read",
        providers.list_providers,
        "Who can be asked for a language model, and how each is; switch may sleep meanwhile.",
        providers.Providers,
        fails=ACTOR_FAILS,
    ),
    Route(
        "GET",
        ADDRESS,
        "provider",
        "read",
        providers.get_provider,
        "One of them.",
        ProviderStatus,
        fails=ACTOR_FAILS,
    ),
    Route(
        "PUT",
        ADDRESS,
        "set_provider",
        "admin",
        providers.set_provider,
        "Describe a provider; its key goes into a file of its own.",
        ProviderStatus,
        takes=SetProvider,
        fixed=NAME,
        fails=ACTOR_FAILS,
        message=SetProvider,
    ),
    Route(
        "DELETE",
        ADDRESS,
        "remove_provider",
        "admin",
        providers.remove_provider,
        "Take a provider out of the configuration.",
        providers.Providers,
        fails=ACTOR_FAILS,
        message=RemoveProvider,
    ),
)
