"""A bus on which switch and madre answer by a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from bus import Bus
from schemas import madre, switch
from schemas.errors import Failure

Step = switch.ModelChunk | switch.ModelReply | Exception | Callable[[], Awaitable[None]]


def words(*texts: str) -> list[Step]:
    """Chunks."""
    return [switch.ModelChunk(text=text) for text in texts]


def whole(text: str, model: str = "smollm2") -> switch.ModelReply:
    return switch.ModelReply(text=text, model=model, provider="local", latency_ms=1.0)


def sorted_as(kind: switch.Kind) -> switch.ModelReply:
    """No model was asked: the message is for somebody else."""
    return switch.ModelReply(text="", model="", provider="", latency_ms=1.0, kind=kind, reason=f"{kind}: 0.9")


def not_heard(*nearest: str) -> madre.MadreChatReply:
    return madre.MadreChatReply(response="I understand only this:", understood=False, nearest=list(nearest))


def heard(text: str = "Awake: nobody.") -> madre.MadreChatReply:
    return madre.MadreChatReply(response=text, understood=True)


async def stall() -> None:
    """Never go on."""
    await asyncio.Event().wait()


HERS = madre.Recognised(hers=True)
NOT_HERS = madre.Recognised(hers=False)


class ScriptedBus:
    """`steps`: what switch does, one after the other, and `then` when it is asked once more.

    `answer`: what madre answers or raises; `recognised`: whether she says that a message is hers.
    """

    def __init__(
        self,
        *steps: Step,
        then: Sequence[Step] = (),
        answer: madre.MadreChatReply | Exception | None = None,
        recognised: madre.Recognised | Exception = NOT_HERS,
    ) -> None:
        self.recognised = recognised
        self.looked: list[madre.Recognise] = []
        self.turns: list[Sequence[Step]] = [steps, then]
        self.answer = answer or heard()
        self.asked_switch: list[switch.Chat] = []
        self.asked_madre: list[madre.Chat] = []
        self.timeouts: dict[str, float] = {}
        self.headers: dict[str, str] = {}
        self.streams_open = 0

    @property
    def bus(self) -> Bus:
        """As a handler is given it."""
        return cast("Bus", self)

    async def request(self, message: Any, *, timeout: float, headers: Mapping[str, str] | None = None) -> Any:
        if isinstance(message, madre.Recognise):
            self.looked.append(message)
            if isinstance(self.recognised, Exception):
                raise self.recognised
            return self.recognised
        self.asked_madre.append(message)
        self.timeouts["madre"] = timeout
        self.headers = dict(headers or {})
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def stream(self, message: Any, *, timeout: float) -> AsyncIterator[Any]:
        self.asked_switch.append(message)
        self.timeouts["switch"] = timeout
        self.streams_open += 1
        try:
            for step in self.turns[len(self.asked_switch) - 1]:
                if isinstance(step, Exception):
                    raise step
                if callable(step):
                    await step()
                else:
                    yield step
        finally:
            self.streams_open -= 1


DENIED = Failure("off_by_policy", "the gate of switch is closed")
"""One of many ways in which switch does not answer."""
