"""How a question ended: the whole reply, or the failure in words that tell whose move is next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actors.switch.answer import Answer
from actors.switch.asking.failure import ProviderFailed
from actors.switch.choosing.choice import Choice
from schemas.errors import Failure
from schemas.switch import ModelReply


@dataclass(frozen=True)
class Miss:
    """A model that gave no answer, or not all of it. `spoke`: something of what it said was sent on.

    `characters`: of the answer that were there by then.
    """

    choice: Choice
    why: ProviderFailed | Failure
    spoke: bool = False
    characters: int = 0

    @property
    def reason(self) -> str:
        """A fact that may be recorded."""
        return self.why.reason if isinstance(self.why, ProviderFailed) else f"not asked, {self.why.message}"

    @property
    def told(self) -> str:
        """For the caller: the provider's own words, too."""
        return f"{self.choice.provider.name}: {self.why.told if isinstance(self.why, ProviderFailed) else self.reason}"

    @property
    def over_budget(self) -> bool:
        return isinstance(self.why, Failure)

    @property
    def blames_caller(self) -> bool:
        return isinstance(self.why, ProviderFailed) and (self.why.blame == "caller" or self.why.too_long)

    @property
    def too_long(self) -> bool:
        return isinstance(self.why, ProviderFailed) and self.why.too_long


def reply(choice: Choice, answer: Answer, misses: Sequence[Miss], begun: float, first_at: float | None, now: float) -> ModelReply:
    """The whole answer. Moments are on one clock, in seconds."""
    speakers = answer.speakers
    alone = all(speaker.provider == choice.provider.name for speaker in speakers)
    return ModelReply(
        text=answer.text,
        model=answer.model,
        provider=choice.provider.name,
        finish_reason=answer.finish_reason,
        latency_ms=_ms(now - begun),
        first_ms=None if first_at is None else _ms(first_at - begun),
        usage=answer.usage if alone else None,  # what the others used, nobody knows
        reason=choice.reason + "".join(_missed(miss) for miss in misses),
        tool_calls=answer.tool_calls(),
        speakers=speakers,
        note="; ".join(dict.fromkeys(speaker.note for speaker in speakers if speaker.note)),
    )


def cut_off(answer: Answer, misses: Sequence[Miss]) -> Failure:
    """The answer had begun, and nobody went on with it."""
    speaker = answer.speakers[-1]
    last = max(n for n, miss in enumerate(misses) if miss.spoke)
    characters = misses[last].characters
    told = f"{speaker.provider} was cut off after {characters} characters: {_words(misses[last])}"
    others = "; ".join(miss.told for miss in misses[last + 1 :])
    rest = f"; {answer.stuck}" if answer.stuck else f"; nobody went on: {others}" if others else ""
    return Failure("crashed", told + rest, provider=speaker.provider, model=speaker.model, characters=characters)


def unanswered(misses: Sequence[Miss], rest: float, *, late: bool) -> Failure:
    """What became of a request that no model answered. `rest`: seconds until it may be worth asking again."""
    attempts = [{"provider": m.choice.provider.name, "model": m.choice.model, "reason": m.reason} for m in misses]
    told = "; ".join(miss.told for miss in misses)
    details: dict[str, Any] = {"attempts": attempts}
    if late:
        return Failure("timeout", f"no language model answered in time; {told or 'there was no time to ask'}", **details)
    if misses and all(miss.over_budget for miss in misses):
        first = misses[0].why
        assert isinstance(first, Failure)
        return first
    if misses and all(miss.blames_caller for miss in misses):
        if any(miss.too_long for miss in misses):
            hint = "shorten the conversation, or ask a model with a larger window"
            return Failure("too_large", f"the conversation is too long for every model that was asked: {told}; {hint}", **details)
        return Failure("invalid", f"the request cannot be answered as it is; {told}", **details)
    if rest > 0:
        details["retry_after"] = max(1, round(rest))
    return Failure("unavailable", f"no language model answered; {told}", **details)


def _missed(miss: Miss) -> str:
    where = f" after {miss.characters} characters" if miss.spoke else ""
    return f"; {miss.choice.provider.name}: {miss.reason}{where}"


def _words(miss: Miss) -> str:
    return miss.why.told if isinstance(miss.why, ProviderFailed) else miss.reason


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
