"""POST /v1/chat/completions: switch answers, streamed or whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from gateway.http.answer import Whole, json_response
from gateway.http.exchange import Exchange
from gateway.http.frames import Frames
from gateway.http.openai.question import ChatBody, asked
from gateway.http.openai.telling import Document, Telling
from gateway.http.parts import Answered
from gateway.http.presence import watched
from schemas import switch

ANSWER_S = 600.0
"""For a whole answer: as long as the official client waits."""
PROVIDER = "X-Vx11-Provider"
DONE = b"[DONE]"
SWITCH = "switch"


async def completions(x: Exchange) -> Whole | web.StreamResponse:
    """The answer. A client that leaves ends the generation, too. Raises Failure."""
    body = asked(ChatBody, x.body)
    question = body.question().model_dump_json(exclude_none=True).encode()
    usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    telling = Telling(body.model)
    async with watched(x), aclosing(x.ask_stream(switch.Chat.subject, question, timeout=ANSWER_S)) as coming:
        first = telling.take(await anext(coming))
        answer = await _streamed(x, telling, first, coming, usage) if body.stream else await _whole(telling, first, coming)
    x.parts.meter.chats[SWITCH] += 1
    return answer


async def _whole(telling: Telling, first: tuple[Document, bool], coming: AsyncGenerator[Answered, None]) -> Whole:
    said, last = first
    while not last:
        said, last = telling.take(await anext(coming))
    response = json_response(telling.whole(said))
    if telling.provider:
        response.headers[PROVIDER] = telling.provider
    return response


async def _streamed(
    x: Exchange, telling: Telling, first: tuple[Document, bool], coming: AsyncGenerator[Answered, None], usage: bool
) -> web.StreamResponse:
    """Chunks, `[DONE]` behind them. A failure in the middle is an event with an error, and no `[DONE]`."""
    frames = Frames(x, together=True)
    if telling.provider:
        frames.response.headers[PROVIDER] = telling.provider
    await frames.open()
    said, last = first
    while not last:
        await frames.event("", telling.chunk(said))
        said, last = telling.take(await anext(coming))
    for document in telling.end(said):
        await frames.event("", document)
    if usage:
        await frames.event("", telling.usage(said))
    await frames.event("", DONE)
    return frames.response
