"""One answer: switch first, and madre when switch cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

from pydantic import ValidationError

from schemas import madre, switch
from schemas.errors import CODES, Failure
from schemas.message import Message, Request, Streamed
from schemas.operator_backend import ChatChunk

R = TypeVar("R", bound=Message)
C = TypeVar("C", bound=Message)

MADRE_S = 5.0
"""Of the time until the deadline, kept back for madre: she answers in milliseconds, but may have to wake somebody."""

WORDS = {
    "off_by_policy": "is off by policy",
    "unavailable": "is not available",
    "not_found": "has nothing to answer with",
    "endpoint_not_found": "is not there",
    "not_installed": "is not installed",
    "busy": "is busy",
    "waking": "is still waking",
    "timeout": "was too slow",
    "crashed": "was cut off",
    "invalid": "refused the question",
    "too_large": "refused the question",
}


class Asks(Protocol):
    """The part of the bus that a conversation needs."""

    async def request(
        self, message: Request[R], *, timeout: float | None = None, headers: Mapping[str, str] | None = None
    ) -> R: ...

    def stream(self, message: Streamed[C, R], *, timeout: float | None = None) -> AsyncIterator[C | R]: ...


@dataclass(frozen=True)
class Patience:
    """Seconds that switch gets until its first word, waking included, and between two pieces after it."""

    first_word: float = 20.0
    between: float = 15.0


@dataclass(frozen=True)
class Question:
    """What was said, with the turns before it. `seconds`: until the deadline. `headers`: what madre is to know."""

    message: str
    session_id: str
    turns: Sequence[switch.Turn]
    seconds: float
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """The whole text and who gave it. `reason`: why it was not switch, empty when it was."""

    text: str
    model: str
    provider: str
    reason: str = ""


async def converse(bus: Asks, question: Question, patience: Patience) -> AsyncGenerator[ChatChunk | Answer, None]:
    """Pieces of text, then the answer. Raises Failure, with both reasons, when neither switch nor madre answers.

    A piece with `restart` replaces what was said before it.
    """
    ends = _now() + question.seconds
    said: list[str] = []
    try:
        async with aclosing(_heard(bus, question, patience, ends)) as parts:
            async for part in parts:
                if isinstance(part, switch.ModelReply):
                    yield _whole(part, said)
                    return
                if part.text:
                    said.append(part.text)
                    yield ChatChunk(text=part.text)
    except Failure as failure:
        why = failure
    else:
        why = Failure("crashed", "it ended without its whole answer")
    reply = await _madre(bus, question, ends, why, begun=bool(said))
    yield ChatChunk(text=reply.response, restart=bool(said))
    yield Answer(reply.response, "madre", "madre", _told("switch", why, begun=bool(said)))


async def _heard(
    bus: Asks, question: Question, patience: Patience, ends: float
) -> AsyncGenerator[switch.ModelChunk | switch.ModelReply, None]:
    """What switch says. Raises Failure also when it is too slow or says what cannot be understood."""
    until = ends - min(MADRE_S, question.seconds / 2)
    turns = [*question.turns, switch.Turn(role="user", content=question.message)]
    stream = bus.stream(switch.Chat(messages=turns), timeout=until - _now())
    heard = 0
    async with aclosing(cast("AsyncGenerator[switch.ModelChunk | switch.ModelReply, None]", stream)) as parts:
        while (part := await _next(parts, patience, until, heard)) is not None:
            heard += 1
            yield part


async def _next(
    parts: AsyncGenerator[switch.ModelChunk | switch.ModelReply, None], patience: Patience, until: float, heard: int
) -> switch.ModelChunk | switch.ModelReply | None:
    """The next part, None after the last."""
    allowed = patience.between if heard else patience.first_word
    wait = max(0.0, min(allowed, until - _now()))
    clock = asyncio.timeout(wait)
    try:
        async with clock:
            return await anext(parts, None)
    except TimeoutError:
        if not clock.expired():
            raise
        silence = "it fell silent for" if heard else "it did not say its first word within"
        raise Failure("timeout", f"{silence} {wait:.3g} s") from None
    except ValidationError as error:
        raise Failure("internal", f"it answered what is no answer ({error.error_count()} mistakes)") from error


def _whole(reply: switch.ModelReply, said: Sequence[str]) -> Answer:
    """The answer of switch. Raises Failure when it is empty: a model may end without a word."""
    text = reply.text or "".join(said)
    if not text.strip():
        raise Failure("unavailable", f"the model {reply.model} ended without a word")
    return Answer(text, reply.model, reply.provider)


async def _madre(bus: Asks, question: Question, ends: float, why: Failure, *, begun: bool) -> madre.MadreChatReply:
    """Her answer. Raises Failure with both reasons when she fails, too."""
    asked = madre.Chat(message=question.message, session_id=question.session_id)
    try:
        return await bus.request(asked, timeout=max(0.0, ends - _now()), headers=question.headers)
    except (Failure, ValidationError) as error:
        hers = error if isinstance(error, Failure) else Failure("internal", "it answered what is no answer")
    code = hers.code if CODES[hers.code].executed else "unavailable"
    told = f"{_told('switch', why, begun=begun)}; {_told('madre', hers, begun=False)}"
    raise Failure(code, told, switch=why.document(), madre=hers.document())


def _told(who: str, failure: Failure, *, begun: bool) -> str:
    """Why somebody did not answer, in words, with the code."""
    middle = " in the middle of its answer" if begun else ""
    return f"{who} {WORDS.get(failure.code, 'failed')}{middle}: {failure.message} ({failure.code})"


def _now() -> float:
    return asyncio.get_running_loop().time()
