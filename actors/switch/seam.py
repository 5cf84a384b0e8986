"""Where an answer that was cut goes on: how another model is asked to, and what is new in what it says then."""

from __future__ import annotations

from collections.abc import Iterator

ANCHOR_CHARS = (24, 48, 96, 192, 384)
"""The last words of what was said: as few as occur nowhere else in it, so that they mark one place."""
REPEAT_MIN_CHARS = 12
"""Fewer in common with what was said may be chance."""
REPEAT_WINDOW_CHARS = 2_000
"""So far back a repetition may begin, besides at the very beginning."""
ANEW_CHARS = 60
"""Whoever repeats so much of the beginning and then says something else tells the answer anew."""
DECORATION = frozenset(" \t\r\n\"'`«“….*>")
DECORATION_MAX_CHARS = 8
"""What may stand before the words that somebody was asked to begin with."""

GO_ON = (
    "Your answer above was cut off in the middle. Write only the rest of it, in the same language, from exactly the place "
    "where it ends. Do not begin anew and do not comment on this. Begin with its last words, repeated exactly, and go "
    'straight on after them. Its last words:\n"{anchor}"'
)


class Unjoined(Exception):
    """What came cannot be joined to what was said; the message says why."""


def anchor(said: str) -> str:
    """The last words of what was said, from the beginning of a word; all of it when it is short.

    Of one line, where that is enough: models repeat words better than the blanks between them.
    """
    start = 0
    for characters in ANCHOR_CHARS:
        if len(said) <= characters:
            return said
        nearest, furthest = len(said) - characters, max(0, len(said) - 2 * characters)
        start = next((at for at in range(nearest, furthest - 1, -1) if _begins_word(said, at)), nearest)
        if said.find(said[start:]) == start:
            break
    line = said[max(start, said.rfind("\n", start, len(said) - REPEAT_MIN_CHARS)) :].lstrip()
    return line if len(line) >= REPEAT_MIN_CHARS and said.find(line) == len(said) - len(line) else said[start:]


class Seam:
    """Joins a continuation to what was said. Feed it the pieces as they come; any split gives the same.

    `anchor`: what the other was asked to begin with; empty when it was given the text itself to go on with. Text is
    held back only as long as it may still turn out to repeat what was said, so never more than that has.
    """

    def __init__(self, said: str, anchor: str = "") -> None:
        self._said = said
        self._asked = bool(anchor)
        self._anchor_at = len(said) - len(anchor) if anchor else -1
        self._begins = {0, len(said) - len(said.lstrip())}
        self._held = ""
        self._live: list[tuple[int, int]] | None = None
        """Repetitions that are still possible: how much decoration to skip, and where in `said` they begin."""
        self._joined = not said

    @property
    def holds(self) -> bool:
        """Whether text waits for a decision."""
        return bool(self._held)

    def join(self, text: str) -> str:
        """What is new by now. Raises Unjoined."""
        if self._joined:
            return text
        self._held += text
        return self._decide(ended=False) if self._held else ""

    def end(self) -> str:
        """The continuation is whole: what is new in what was held back. Raises Unjoined."""
        return "" if self._joined else self._decide(ended=True)

    def _decide(self, *, ended: bool) -> str:
        if self._live is None:
            skips = self._skips(ended=ended)
            if skips is None:
                return ""
            self._live = [(skip, start) for skip in skips for start in self._starts()]
        alive = [one for one in self._live if self._agrees(*one)]
        whole = {start: skip for skip, start in reversed(alive) if self._complete(skip, start)}
        if self._anchor_at in whole:
            return self._join(whole[self._anchor_at], self._anchor_at)
        if len(alive) > len(whole) and not ended:
            self._live = alive
            return ""
        if whole:
            start = min(whole)
            return self._join(whole[start], start)
        self._check(alive)
        self._joined = True
        return self._release(0)

    def _check(self, alive: list[tuple[int, int]]) -> None:
        """Raises Unjoined when what came is a repetition, but no whole one."""
        if any(self._common(start) >= ANEW_CHARS for start in self._begins):
            raise Unjoined("it told the answer anew instead of going on with it")
        if any(start == self._anchor_at and len(self._held) - skip >= REPEAT_MIN_CHARS for skip, start in alive):
            raise Unjoined("it ended within the words that it was to begin with")

    def _skips(self, *, ended: bool) -> range | None:
        """How much of the beginning may be decoration; None when that cannot be told yet."""
        if not self._asked:
            return range(1)
        count = next((i for i, c in enumerate(self._held) if c not in DECORATION), len(self._held))
        if count == len(self._held) < DECORATION_MAX_CHARS and not ended:
            return None
        return range(min(count, DECORATION_MAX_CHARS) + 1)

    def _starts(self) -> Iterator[int]:
        """Where in `said` a repetition may begin. Who goes on with the text itself may only begin it anew."""
        said = self._said
        last = len(said) - REPEAT_MIN_CHARS
        yield from (start for start in self._begins if start <= last)
        if self._asked:
            yield self._anchor_at
            window = range(max(1, len(said) - REPEAT_WINDOW_CHARS), last + 1)
            yield from (start for start in window if _begins_word(said, start))

    def _agrees(self, skip: int, start: int) -> bool:
        """Whether what came, without decoration, repeats `said` from there as far as both go."""
        length = min(len(self._held) - skip, len(self._said) - start)
        return self._held.startswith(self._said[start : start + length], skip)

    def _complete(self, skip: int, start: int) -> bool:
        return len(self._held) - skip >= len(self._said) - start

    def _common(self, start: int) -> int:
        """How many characters from there what came has in common with what was said."""
        pairs = zip(self._held, self._said[start : start + len(self._held)], strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(self._held), len(self._said) - start))

    def _join(self, skip: int, start: int) -> str:
        self._joined = True
        return self._release(skip + len(self._said) - start)

    def _release(self, repeated: int) -> str:
        new, self._held = self._held[repeated:], ""
        return new


def _begins_word(text: str, at: int) -> bool:
    return not text[at].isspace() and (at == 0 or not (text[at - 1].isalnum() and text[at].isalnum()))
