"""Routes of the replays: what was stored is played again by the keeper."""

from __future__ import annotations

from gateway.http import replay
from gateway.http.routes.route import Route, asks
from schemas.replay import (
    ListReplays,
    PauseReplay,
    ReplayList,
    ReplayStatus,
    ResumeReplay,
    StartReplay,
    StepReplay,
    StopReplay,
)


def _first(found: ReplayList) -> ReplayStatus:
    return found.replays[0]


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/replay",
        "start_replay",
        "command",
        replay.start,
        "Play stored events again, into a sandbox; `live` needs the scope admin.",
        ReplayStatus,
        takes=StartReplay,
        fixed=frozenset(replay.DETACHED),
        fails=("conflict", "not_found", "crashed", "busy"),
        message=StartReplay,
    ),
    asks("GET", "/replay", "replays", ListReplays, "What is played, and what was.", scope="read", control=False),
    asks(
        "GET",
        "/replay/{id}",
        "replay",
        ListReplays,
        "How far a replay is; at its end what it was.",
        shape=_first,
        answers=ReplayStatus,
        scope="read",
        control=False,
    ),
    asks("POST", "/replay/{id}/pause", "pause_replay", PauseReplay, "Stop its clock.", scope="command", control=False),
    asks("POST", "/replay/{id}/resume", "resume_replay", ResumeReplay, "Go on.", scope="command", control=False),
    asks("POST", "/replay/{id}/step", "step_replay", StepReplay, "Send the next events.", scope="command", control=False),
    asks("POST", "/replay/{id}/stop", "stop_replay", StopReplay, "End it here.", scope="command", control=False),
)
