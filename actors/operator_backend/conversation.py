"""One answer: switch first; madre for what is about operating VX11, and when switch cannot answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, cast

from pydantic import ValidationError

from actors.operator_backend.sentences import CANNOT_ACT, say
from schemas import madre, switch
from schemas.errors import CODES, Failure
from schemas.language import Language
from schemas.message import Message, Request, Streamed
from schemas.operator_backend import ChatChunk
from schemas.switch import Speaker
from schemas.wording import unanswered

log = logging.getLogger("vx11.operator_backend")

R = TypeVar("R", bound=Message)
C = TypeVar("C", bound=Message)

MADRE = "madre"
RECOGNISE_S = 1.0
"""For madre to say whether a message is hers; it takes her a millisecond, and a chat does not wait for one who is away."""
MADRE_S = 5.0
"""Of the time until the deadline, kept back for madre: she answers in milliseconds, but may have to wake somebody."""
ENGLISH = "English"
"""In the note of a model that speaks nothing else."""
CUT = "length"
"""As providers say that an answer has reached the most tokens that it may have."""
NOTES = "; "
"""Between two things that are to be known of one answer."""


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
    language: Language = "en"
    model: str | None = None
    """The one that is wished for."""
    holder: str = ""
    """The token that pays."""
    asked: bool = False
    """madre's last word in this session was whether she shall do something."""


@dataclass(frozen=True)
class Answer:
    """The whole text and who gave it. `reason`: why it was this one. `code`: why it was not switch, if it should have been."""

    text: str
    model: str
    provider: str
    reason: str = ""
    code: str = ""
    note: str = ""
    speakers: list[Speaker] = field(default_factory=list)
    pending: bool = False


async def converse(bus: Asks, question: Question, patience: Patience) -> AsyncGenerator[ChatChunk | Answer, None]:
    """Pieces of text, then the answer. Raises Failure, with both reasons, when neither switch nor madre answers.

    A piece with `restart` replaces what was said before it.
    """
    conversation = Conversation(bus, question, patience)
    try:
        async with aclosing(conversation.answer()) as parts:
            async for part in parts:
                yield part
        return
    except MadreFailed:
        raise
    except Failure as failure:
        if failure.code == "not_found" and question.model:
            raise Failure("invalid", failure.message, **{**failure.details, "field": "model"}) from failure
        why = failure
    for part in await conversation.instead(why):
        yield part


class MadreFailed(Failure):
    """The message was for madre, and there is nobody to answer it in her place."""


class Conversation:
    """Made for one question."""

    def __init__(self, bus: Asks, question: Question, patience: Patience) -> None:
        self._bus = bus
        self._question = question
        self._patience = patience
        self._ends = _now() + question.seconds
        self._said: list[str] = []
        """What models have said so far."""
        self._hers: madre.MadreChatReply | None = None
        """madre's word on this message, once she was asked."""
        self._notes: list[str] = []
        self._hands: dict[switch.Kind, Callable[[switch.ModelReply], Awaitable[Parts]]] = {"platform": self._operated}
        """Who answers in place of a model. Of other kinds a model says what it can, and a note that nobody does it yet."""

    async def answer(self) -> AsyncGenerator[ChatChunk | Answer, None]:
        """Whoever the message is for. Raises Failure: switch's when it did not answer, else MadreFailed."""
        if await self._is_hers():
            for part in self._hers_told(await self._madre(), self._say("platform")):
                yield part
            return
        for sort in (True, False):
            async with aclosing(self._models(sort=sort)) as parts:
                async for piece in parts:
                    if isinstance(piece, ChatChunk):
                        yield piece
                        continue
                    for part in await self._ended(piece, sorted_=sort):
                        yield part
                        if isinstance(part, Answer):
                            return

    async def instead(self, why: Failure) -> Parts:
        """madre, because switch did not answer. Raises Failure with both reasons when she fails, too."""
        begun, language = bool(self._said), self._question.language
        reason = unanswered(language, "switch", why, begun=begun)
        try:
            hers = self._hers or await self._ask_madre()
        except Failure as failure:
            code = failure.code if CODES[failure.code].executed else "unavailable"
            told = f"{reason}; {unanswered(language, MADRE, failure)}"
            raise Failure(code, told, switch=why.document(), madre=failure.document()) from failure
        return self._hers_told(hers, reason, why.code)

    async def _is_hers(self) -> bool:
        """Whether madre takes the message before anybody else sees it. Without her word it is sorted like any other."""
        question = self._question
        asked = madre.Recognise(message=question.message, session_id=question.session_id, asked=question.asked)
        try:
            found = await self._requested(asked, min(RECOGNISE_S, question.seconds / 4))
        except Failure as failure:
            if question.asked:
                raise self._no_madre(failure) from failure
            log.warning("whether a message is for madre is not known: %s", failure)
            return False
        self._notes += [found.dropped] if found.dropped else []
        return found.hers

    async def _models(self, *, sort: bool) -> AsyncGenerator[ChatChunk | switch.ModelReply, None]:
        """What switch says, as it goes to a person; its reply comes last."""
        async with aclosing(self._heard(sort=sort)) as parts:
            async for part in parts:
                if isinstance(part, switch.ModelReply):
                    yield part
                    return
                self._said += [part.text] if part.text else []
                if part.text or part.speaker:
                    yield ChatChunk(text=part.text, speaker=part.speaker)
        raise Failure("crashed", "it ended without its whole answer")

    async def _ended(self, reply: switch.ModelReply, *, sorted_: bool) -> Parts:
        """The answer; nothing when switch is to be asked once more, for it itself as nobody else is there for it."""
        if reply.kind == "chat" or not sorted_:
            return [self._whole(reply)]
        if hand := self._hands.get(reply.kind):
            return await hand(reply)
        self._notes.append(self._say(reply.kind))
        return []

    async def _operated(self, reply: switch.ModelReply) -> Parts:
        """What madre made of it; nothing when it is none of her phrases, for which a model answers."""
        hers = await self._madre()
        if hers.understood:
            return self._hers_told(hers, f"{self._say('platform')} ({reply.reason})" if reply.reason else self._say("platform"))
        self._notes.append(self._say("not_operated", phrases=" / ".join(hers.nearest)))
        return []

    async def _heard(self, *, sort: bool) -> AsyncGenerator[switch.ModelChunk | switch.ModelReply, None]:
        """What switch says. Raises Failure also when it is too slow or says what cannot be understood."""
        question = self._question
        until = self._ends - min(MADRE_S, question.seconds / 2)
        asked = switch.Chat(
            messages=[
                *([] if sort else [switch.Turn(role="system", content=CANNOT_ACT)]),
                *question.turns,
                switch.Turn(role="user", content=question.message),
            ],
            model=question.model,
            session_id=question.session_id,
            holder=question.holder,
            trim=True,
            sort=sort,
        )
        stream = self._bus.stream(asked, timeout=until - _now())
        heard = 0
        async with aclosing(cast("AsyncGenerator[switch.ModelChunk | switch.ModelReply, None]", stream)) as parts:
            while (part := await _next(parts, self._patience, until, heard)) is not None:
                heard += 1
                yield part

    async def _madre(self) -> madre.MadreChatReply:
        """Her word on this message, which is hers to answer. She is asked once."""
        try:
            self._hers = self._hers or await self._ask_madre()
        except Failure as failure:
            raise self._no_madre(failure) from failure
        return self._hers

    def _no_madre(self, failure: Failure) -> MadreFailed:
        return MadreFailed(failure.code, unanswered(self._question.language, MADRE, failure), madre=failure.document())

    async def _ask_madre(self) -> madre.MadreChatReply:
        question = self._question
        asked = madre.Chat(message=question.message, session_id=question.session_id)
        return await self._requested(asked, max(0.0, self._ends - _now()))

    async def _requested(self, asked: Request[R], seconds: float) -> R:
        """What madre answers. Raises Failure also when that cannot be understood."""
        try:
            return await self._bus.request(asked, timeout=seconds, headers=self._question.headers)
        except ValidationError as error:
            raise Failure("internal", "it answered what is no answer") from error

    def _hers_told(self, hers: madre.MadreChatReply, reason: str, code: str = "") -> Parts:
        text = hers.response
        speaker = Speaker(provider=MADRE, model=MADRE, characters=len(text))
        begins = speaker.model_copy(update={"characters": 0})
        return [
            ChatChunk(text=text, restart=bool(self._said), speaker=begins),
            Answer(text, MADRE, MADRE, reason, code, speakers=[speaker], pending=hers.pending),
        ]

    def _whole(self, reply: switch.ModelReply) -> Answer:
        """The answer of switch. Raises Failure when it is empty: a model may end without a word."""
        text = reply.text or "".join(self._said)
        if not text.strip():
            raise Failure("unavailable", f"the model {reply.model} ended without a word")
        notes = [reply.note] if reply.note else []
        if ENGLISH in reply.note and self._question.language != "en":
            notes.append(self._say("only_english"))
        if reply.finish_reason == CUT:
            notes.append(self._say("cut"))
        alone = Speaker(provider=reply.provider, model=reply.model, characters=len(text), note=reply.note)
        return Answer(
            text,
            reply.model,
            reply.provider,
            reply.reason,
            note=NOTES.join([*notes, *self._notes]),
            speakers=reply.speakers or [alone],
        )

    def _say(self, key: str, /, **parts: object) -> str:
        return say(self._question.language, key, **parts)


Parts = list[ChatChunk | Answer]
"""The pieces and the answer of somebody, or nothing."""


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


def _now() -> float:
    return asyncio.get_running_loop().time()
