"""Replays by HTTP: the keeper plays, the door says what and looks how far it is."""

from __future__ import annotations

from gateway.http.body import message_of
from gateway.http.exchange import Exchange
from schemas.replay import StartReplay

START_S = 20.0
"""Until its process has come up, on a busy machine."""
DETACHED = {"detach": True}
"""The answer of the door comes at once; how it goes on is looked at."""


async def start(x: Exchange) -> bytes:
    """Raises Failure("forbidden") for a live one without the scope `admin`: it speaks in everybody's name."""
    wanted = message_of(StartReplay, x.body, DETACHED)
    if wanted.live:
        x.caller.needs("admin")
    return (await x.ask(StartReplay.subject, wanted.model_dump_json().encode(), timeout=START_S)).body
