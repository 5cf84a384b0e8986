"""Streamed answers of actors as server-sent events: `chunk`, `chunk`, ..., then `reply` or `error`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from aiohttp import web

from bus import call as calls
from gateway.http.exchange import Exchange
from gateway.http.frames import Frames
from gateway.http.parts import Answered
from gateway.http.presence import watched
from schemas.errors import Failure

Instead = Callable[[Failure, bool], Awaitable[tuple[bytes, bytes] | None]]
"""(the failure, whether pieces were sent already) to (chunk, reply), what is said in place of the answer, or None."""


async def relay(x: Exchange, subject: str, body: bytes, *, timeout: float, instead: Instead | None = None) -> web.StreamResponse:
    """Pass the frames on. A failure before the first one is an HTTP error as ever; later it is the event `error`.

    A reader who leaves lets go of the answer, also while nothing comes.
    """
    async with watched(x):
        return await _relay(x, subject, body, timeout, instead)


async def _relay(x: Exchange, subject: str, body: bytes, timeout: float, instead: Instead | None) -> web.StreamResponse:
    async with aclosing(x.ask_stream(subject, body, timeout=timeout)) as coming:
        try:
            first = await anext(coming)
        except Failure as failure:
            if instead is None or (said := await instead(failure, False)) is None:
                raise
            return await _say(Frames(x, together=True), said)
        return await _pass_on(Frames(x, together=True), first, coming, instead)


async def _pass_on(
    frames: Frames, first: Answered, coming: AsyncGenerator[Answered, None], instead: Instead | None
) -> web.StreamResponse:
    await frames.open()
    try:
        await _frame(frames, first)
        async for frame in coming:
            await _frame(frames, frame)
    except Failure as failure:
        if instead is None or (said := await instead(failure, True)) is None:
            raise
        await _said(frames, said)
    return frames.response


async def _frame(frames: Frames, frame: Answered) -> None:
    last = calls.END in frame.headers or calls.SEQ not in frame.headers
    await frames.event("reply" if last else "chunk", frame.body)


async def _say(frames: Frames, said: tuple[bytes, bytes]) -> web.StreamResponse:
    await frames.open()
    await _said(frames, said)
    return frames.response


async def _said(frames: Frames, said: tuple[bytes, bytes]) -> None:
    chunk, reply = said
    await frames.event("chunk", chunk)
    await frames.event("reply", reply)
