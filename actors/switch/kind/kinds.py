"""What a message is about: talk, operating VX11, a piece of work, audio."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import mul
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from actors.switch.kind.embedding import Embedded, Role
from actors.switch.kind.ngrams import grams
from schemas.errors import Failure
from schemas.language import Language, language_of, plain
from schemas.switch import Kind

KINDS: tuple[Kind, ...] = get_args(Kind)
SHARE = 1 / len(KINDS)
WORD = re.compile(r"[^\W_]")
WEIGHTS = Path(__file__).with_name("kinds.json")
HEAD_CHARS, TAIL_CHARS = 160, 80
"""Of a long message: what is wanted stands at its beginning or its end, and each word costs some 2 ms of embedding."""
EMBED_S = 1.0
"""For the embedding to be waited for; it takes 0.02, cold 0.1."""
DOUBT_VECTORS, DOUBT_GRAMS = 0.08, 0.1
"""So much more than `chat` another kind must score: chat that goes to madre by mistake is worse than the reverse."""
SHARPNESS = 6.0
"""From scores to shares; by it a lead of 0.3 is one of six to one."""

POLITE = re.compile(
    r"^(?:(?:hey|hi|hello|please|can you|could you|hola|oye|por favor|porfa|puedes|podrias|,) )+"
    r"|(?: (?:please|thanks|thank you|por favor|porfa|gracias|,))+$"
)
"""What a phrase is the same without, at its ends."""

How = Literal["phrase", "embedding", "n-grams"]


@dataclass(frozen=True)
class Sorted:
    """`scores`: shares of 1, the kind's own being the largest. `note`: why it was not the embedding that decided."""

    kind: Kind
    how: How
    scores: Mapping[Kind, float]
    language: Language | None
    cpu_ms: float
    note: str = ""


class Weights:
    """What `actors.switch.kind.fitting` has written."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    @classmethod
    def read(cls) -> Weights:
        return cls(json.loads(WEIGHTS.read_bytes()))

    @cached_property
    def phrases(self) -> dict[str, Kind]:
        return {phrase: kind for kind in KINDS for phrase in self._document["phrases"][kind]}

    def by_vector(self, vector: Sequence[float]) -> dict[Kind, float]:
        """A score of each kind, 1 being what its examples have."""
        told = self._document["vectors"]
        return {kind: told[kind]["bias"] + sum(map(mul, told[kind]["weights"], vector)) for kind in KINDS}

    def by_grams(self, text: str) -> dict[Kind, float]:
        found = grams(text)
        return {
            kind: sum(steps[at] * weight for at, weight in found.items()) * step for kind, (step, steps) in self._grams.items()
        }

    @cached_property
    def _grams(self) -> dict[Kind, tuple[float, array[int]]]:
        told = self._document["grams"]
        return {kind: (told[kind]["step"], array("b", base64.b64decode(told[kind]["steps"]))) for kind in KINDS}


class Embeds(Protocol):
    async def embed(self, texts: Sequence[tuple[Role, str]]) -> Embedded: ...


class Sorter:
    """Compares a message with what was learned of the examples."""

    def __init__(self, embedding: Embeds) -> None:
        self._embedding = embedding

    async def sort(self, text: str) -> Sorted:
        """By the embedding; by n-grams where that fails or takes too long. It always answers."""
        begun = time.thread_time()
        text = shortened(text)
        language = language_of(text)
        if kind := self._known(plain(text)):
            return Sorted(kind, "phrase", {one: float(one == kind) for one in KINDS}, language, _since(begun))
        before = _since(begun)
        try:
            async with asyncio.timeout(EMBED_S):
                found = await self._embedding.embed([("query", text)])
        except (Failure, TimeoutError) as wrong:
            note = wrong.message if isinstance(wrong, Failure) else f"the embedding took more than {EMBED_S:g} s"
            begun = time.thread_time()
            kind, shares = _decided(self._weights.by_grams(text), DOUBT_GRAMS)
            return Sorted(kind, "n-grams", shares, language, before + _since(begun), note)
        begun = time.thread_time()
        kind, shares = _decided(self._weights.by_vector(found.vectors[0]), DOUBT_VECTORS)
        return Sorted(kind, "embedding", shares, language, before + _since(begun) + found.cpu_ms)

    def _known(self, said: str) -> Kind | None:
        """The kind of an example that it is; a message without a word is talk."""
        phrases = self._weights.phrases
        return phrases.get(said) or phrases.get(POLITE.sub("", said)) if WORD.search(said) else "chat"

    @cached_property
    def _weights(self) -> Weights:
        return Weights.read()


def shortened(text: str) -> str:
    """The beginning and the end of a long text, on one line."""
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        text = f"{text[:HEAD_CHARS]} … {text[-TAIL_CHARS:]}"
    return " ".join(text.split())


def _decided(scores: dict[Kind, float], doubt: float) -> tuple[Kind, dict[Kind, float]]:
    """The kind, and shares by which it leads: the doubt is on the side of chat."""
    heights = {kind: math.exp(SHARPNESS * (score + doubt * (kind == "chat"))) for kind, score in scores.items()}
    total = sum(heights.values())
    shares = {kind: round(height / total, 3) for kind, height in heights.items()}
    return max(heights, key=lambda kind: heights[kind]), shares


def _since(begun: float) -> float:
    return (time.thread_time() - begun) * 1000
