"""Servers that know a text by heart: asked to go on with it, each does so in its own manner, and then comes trouble."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from actors.switch.seam import REPEAT_MIN_CHARS
from tests.switch.scripted import Exchange, Script

Manner = Literal["exactly", "anchor", "decorated", "again", "overlap"]
MANNERS: tuple[Manner, ...] = ("exactly", "anchor", "decorated", "again", "overlap")
PREFILLED: tuple[Manner, ...] = ("exactly", "again")
"""How somebody goes on who is given an unfinished turn, and nobody to tell it more."""
ASKED_FORM = re.compile(r'Its last words:\n"(.*)"\Z', re.DOTALL)
WORDS = (
    "the sea",
    "was",
    "calm;",
    "ñandú",
    "🦑",
    "réveil",
    "(again)",
    "and,",
    "1.",
    "zwölf",
    "東京",
    "\n\n*",
    "—",
    "👩‍🚀",
    "e\u0301",
)

Trouble = Callable[[Exchange, Sequence[str], random.Random], Awaitable[None]]


def prose(rng: random.Random, words: int = 60) -> str:
    """Words in any order, hardly ever the same one twice."""
    return " ".join(f"{rng.choice(WORDS)}{rng.randrange(10_000)}" for _ in range(words))


@dataclass
class Recital:
    """One text that every server of a test knows. `wrong`: what the servers were asked that they should not have been."""

    text: str
    wrong: list[str] = field(default_factory=list)

    def said(self, document: Any) -> tuple[str, str | None]:
        """What of the text was said already, and the words to begin with; None when it was given as an unfinished turn."""
        turns = document["messages"]
        if turns[-1]["role"] == "assistant":
            return self._known(turns[-1]["content"]), None
        asked = ASKED_FORM.search(turns[-1]["content"])
        if asked is None:
            return "", None
        return self._known(turns[-2]["content"]), asked[1]

    def rest(self, document: Any, manner: Manner, rng: random.Random) -> str:
        """What this server says: the rest, with what its manner puts before it."""
        said, anchor = self.said(document)
        rest = self.text[len(said) :]
        if not said:
            return rest
        if anchor is None:
            # what is shorter cannot be told from a text that repeats itself
            return self.text if manner == "again" and len(said) >= REPEAT_MIN_CHARS else rest
        if not said.endswith(anchor):
            self.wrong.append(f"asked to begin with {anchor!r} after {said[-80:]!r}")
        before = {"anchor": anchor, "decorated": f'…"{anchor}', "again": said, "overlap": _overlap(said, rng)}
        return before.get(manner, "") + rest

    def _known(self, said: str) -> str:
        if not self.text.startswith(said):
            self.wrong.append(f"given as said: {said!r}")
        return said


def recites(recital: Recital, rng: random.Random, manner: Manner = "exactly", trouble: Trouble | None = None) -> Script:
    """A server that goes on in this manner, until the trouble comes."""

    async def script(exchange: Exchange) -> None:
        tokens = _tokens(recital.rest(exchange.asked.document, manner, rng), rng)
        await (trouble or whole())(exchange, tokens, rng)

    return script


def whole(usage: dict[str, int] | None = None) -> Trouble:
    """None at all."""

    async def trouble(exchange: Exchange, tokens: Sequence[str], rng: random.Random) -> None:
        await exchange.head()
        await _say(exchange, tokens, rng)
        await exchange.finish(usage=usage)

    return trouble


def refusing(status: int, **headers: str) -> Trouble:
    async def trouble(exchange: Exchange, _tokens: Sequence[str], _rng: random.Random) -> None:
        await exchange.answer(status, {"error": {"message": "not now"}}, **headers)

    return trouble


def after(count: int, end: Callable[[Exchange], Awaitable[None]]) -> Trouble:
    """So many tokens, and then the end."""

    async def trouble(exchange: Exchange, tokens: Sequence[str], rng: random.Random) -> None:
        await exchange.head()
        await _say(exchange, tokens[:count], rng)
        await end(exchange)

    return trouble


async def cuts(exchange: Exchange) -> None:
    """In the middle of an event."""
    await exchange.raw(b'40\r\ndata: {"choices"')
    exchange.cut()


async def stalls(exchange: Exchange) -> None:
    await exchange.hold()


async def ends_early(exchange: Exchange) -> None:
    """The body ends, the answer does not."""
    await exchange.chunk(b"")


async def breaks_json(exchange: Exchange) -> None:
    await exchange.event('{"choices": [{"delta": {"content": "never')
    await exchange.hold()


async def complains(exchange: Exchange) -> None:
    await exchange.event({"error": {"message": "out of memory", "code": 500}})
    await exchange.hold()


async def halves_a_character(exchange: Exchange) -> None:
    """Its other half never comes."""
    await exchange.chunk(b'data: {"choices":[{"delta":{"content":"\xf0\x9f"}}]}\n\n')
    await exchange.say("never to be seen")
    await exchange.hold()


async def leaves_half_a_character(exchange: Exchange) -> None:
    """And says that this was all."""
    await exchange.event('{"choices":[{"delta":{"content":"\\ud83e"}}]}')
    await exchange.finish()


async def never_ends(exchange: Exchange) -> None:
    while True:
        await exchange.say("and so on " * 1_000)


async def splits_characters(exchange: Exchange, tokens: Sequence[str], rng: random.Random) -> None:
    """A whole answer, whose every character beyond ASCII comes in two halves, in two events."""
    await exchange.head()
    for token in tokens:
        for character in token:
            for half in _halves(character, rng):
                await exchange.chunk(b'data: {"choices":[{"delta":{"content":' + half + b"}}]}\n\n")
    await exchange.finish()


def _halves(character: str, rng: random.Random) -> list[bytes]:
    data = character.encode()
    if len(data) == 1:
        return [json.dumps(character).encode()]
    if ord(character) > 0xFFFF and rng.random() < 0.5:
        pair = json.dumps(character)[1:-1]
        return [f'"{pair[:6]}"'.encode(), f'"{pair[6:]}"'.encode()]
    at = rng.randrange(1, len(data))
    return [b'"' + data[:at] + b'"', b'"' + data[at:] + b'"']


async def _say(exchange: Exchange, tokens: Sequence[str], rng: random.Random) -> None:
    """Each token is an event; some come together."""
    for token in tokens:
        await exchange.say(token)
        if rng.random() < 0.3:
            await asyncio.sleep(0)


def _tokens(text: str, rng: random.Random) -> list[str]:
    tokens = []
    while text:
        size = rng.randint(1, 12)
        tokens.append(text[:size])
        text = text[size:]
    return tokens


def _overlap(said: str, rng: random.Random) -> str:
    """Some of its last words, from the beginning of one; more than may be chance."""
    starts = [at for at in range(1, len(said) - REPEAT_MIN_CHARS + 1) if said[at - 1].isspace() and not said[at].isspace()]
    return said[rng.choice(starts[-12:]) :] if starts else ""
