"""Routes of the events: what happened, what happens, and publishing."""

from __future__ import annotations

from bus.cloudevents import BATCH
from gateway.http import calls, events, sse
from gateway.http.exchange import EVENT_STREAM
from gateway.http.routes.route import JSON_OR_STREAM, OPEN, Route

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/operator/api/events",
        "events",
        "read",
        sse.events,
        "What happened; as an event stream what happens.",
        events.EventPage,
        media=(*JSON_OR_STREAM, BATCH),
        query=events.EventQuery,
    ),
    Route(
        "POST",
        "/operator/api/events/sse-token",
        "sse_token",
        "read",
        sse.make_token,
        "A token for EventSource.",
        sse.SseToken,
    ),
    Route(
        "GET",
        "/operator/api/events/stream",
        "events_stream",
        OPEN,
        sse.stream_by_token,
        "What happens, for a one-use token.",
        media=(EVENT_STREAM,),
        query=sse.StreamQuery,
        fails=("auth_required", "forbidden"),
    ),
    Route(
        "POST",
        "/events/{actor}/{fact}",
        "publish",
        "command",
        calls.publish,
        "Publish an event.",
        calls.Published,
        any_object=True,
        fails=("not_found", "storage_full"),
        stores=True,
    ),
)
