"""Asking a scripted server through the HTTP client alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from actors.switch.asking.dialect import Piece
from actors.switch.asking.endpoint import Endpoint, opened
from actors.switch.asking.failure import ProviderFailed
from actors.switch.asking.patience import Limits
from actors.switch.configured.providers import Provider
from schemas.switch import Chat, Turn
from tests.switch.scripted import (
    Script,
    scripted,
)

HELLO = Chat(messages=[Turn(role="user", content="¡hola! 🦑")])
PATIENT = Limits()
SHORT = Limits(connect=0.2, first_token=0.3, stall=0.3, tail=0.1)


async def pieces(url: str, *, limits: Limits = PATIENT, key: str = "", seconds: float = 30.0) -> list[Piece]:
    """All pieces that say something or end the answer."""
    provider = Provider("test", url, "m", key=key)
    async with opened(limits) as endpoint, aclosing(stream(endpoint, provider, seconds)) as told:
        return [piece async for piece in told if piece != Piece()]


async def whole(url: str, *, limits: Limits = PATIENT) -> Piece:
    """All of the answer as one piece: how much of it comes together is the network's business."""
    one, *more = await pieces(url, limits=limits)
    for piece in more:
        both = one.then(piece)
        assert both is not None, "thoughts after text"
        one = both
    return one


def stream(endpoint: Endpoint, provider: Provider, seconds: float = 30.0) -> AsyncGenerator[Piece, None]:
    return endpoint.stream(provider, "m", HELLO, asyncio.get_running_loop().time() + seconds)


async def failure(script: Script, *, limits: Limits = PATIENT, key: str = "", seconds: float = 30.0) -> ProviderFailed:
    async with scripted(script) as server:
        with pytest.raises(ProviderFailed) as failed:
            await pieces(server.url, limits=limits, key=key, seconds=seconds)
    return failed.value
