"""Routes that look: health, status, configuration, numbers, and the descriptions of the whole."""

from __future__ import annotations

from gateway.http import costs, described, numbers, plain, views
from gateway.http.routes.route import OPEN, Route
from schemas.usage import Usage

ROUTES: tuple[Route, ...] = (
    Route("GET", "/health", "health", OPEN, plain.live, "The process lives.", plain.State, control=True),
    Route("GET", "/health/live", "health_live", OPEN, plain.live, "The process lives.", plain.State, control=True),
    Route("GET", "/health/ready", "health_ready", OPEN, plain.ready, "Requests get through.", plain.State, control=True),
    Route("GET", "/", "page", OPEN, plain.page, "What this is.", media=("text/plain",)),
    Route("GET", "/openapi.json", "openapi", OPEN, plain.openapi, "This description."),
    Route("GET", "/asyncapi.json", "asyncapi", "read", described.asyncapi, "What can be said on the bus.", control=True),
    Route(
        "GET",
        "/asyncapi",
        "asyncapi_page",
        "read",
        described.asyncapi_page,
        "The same for people.",
        media=("text/html",),
        control=True,
    ),
    Route("GET", "/vx11/status", "vx11_status", OPEN, views.vx11_status, "How the whole is.", views.Vx11Status),
    Route(
        "GET",
        "/operator/api/status",
        "operator_status",
        "read",
        views.operator_status,
        "How each part is.",
        views.OperatorStatus,
    ),
    Route("GET", "/operator/api/config", "config", "read", plain.config, "Every effective setting.", plain.Config),
    Route(
        "GET",
        "/operator/api/metrics",
        "operator_metrics",
        "read",
        numbers.operator_metrics,
        "The numbers of now.",
        numbers.Metrics,
        query=numbers.MetricQuery,
    ),
    Route(
        "GET",
        "/operator/api/usage",
        "usage",
        "read",
        costs.usage,
        "What the language models have cost, day by day in UTC; switch may sleep meanwhile.",
        Usage,
        query=costs.UsageQuery,
    ),
    Route(
        "GET",
        "/operator/capabilities",
        "capabilities",
        "read",
        views.capabilities,
        "What can be used.",
        views.Capabilities,
    ),
    Route(
        "POST",
        "/operator/capabilities",
        "capabilities_post",
        "read",
        views.capabilities,
        "The same.",
        views.Capabilities,
    ),
    Route("GET", "/api/map", "map", "read", views.map_, "Who is there and who speaks with whom.", views.Map),
    Route(
        "GET",
        "/metrics",
        "metrics",
        "read",
        numbers.prometheus,
        "The numbers, for Prometheus.",
        media=("text/plain",),
        control=True,
    ),
)
