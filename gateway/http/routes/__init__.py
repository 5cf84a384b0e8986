"""The route table: every address of the gateway, who may use it, and what answers. One file for each area."""

from __future__ import annotations

from gateway.http.routes import dead, events, looks, openai, power, providers, replay, work
from gateway.http.routes.route import OPEN, Route, check, nowhere

__all__ = ["OPEN", "TABLE", "Route", "check", "nowhere"]

TABLE: tuple[Route, ...] = (
    looks.ROUTES + events.ROUTES + dead.ROUTES + replay.ROUTES + work.ROUTES + openai.ROUTES + providers.ROUTES + power.ROUTES
)
"""The order is that of the description; two routes with one name or address, or one without a scope, stop the start."""
