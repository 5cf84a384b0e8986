"""Where a command prints: data on stdout, talk on stderr, JSON for programs, tables for people."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

from gateway.cli.advice import FAULT, POLICY, Told, explain
from schemas.errors import CODES, Failure

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PIPED_WIDTH = 1_000
"""Columns when the output is no terminal: nothing is cut off for `grep` and `awk`."""
GAP = 2
SENTENCE = 10
"""Columns that are left to a sentence before the words beside it are broken, too."""
ASCII = {FAULT: "x", POLICY: "#", "●": "*", "○": "o", "◐": "~", "✔": "+", "▲": "!", "–": "-", "·": "-", "…": "..."}
"""What stands for a glyph where the terminal is not UTF-8."""
STYLES = {
    "active": ("●", "green"),
    "dormant": ("○", "dim"),
    "waking": ("◐", "yellow"),
    "adopting": ("◐", "yellow"),
    "handover": ("◐", "yellow"),
    "draining": ("◐", "yellow"),
    "failed": (FAULT, "red"),
    "pass": ("✔", "green"),
    "fail": (FAULT, "red"),
    "skip": ("–", "dim"),
    "later": ("○", "cyan"),
}
"""A state or verdict as a glyph and one of the terminal's own colours; the word always stands beside it."""

_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
_UNPRINTABLE = re.compile("[\x7f-\x9f\ud800-\udfff]")


def plain(text: str) -> str:
    """Without control characters: what an actor or a model says must not steer the terminal."""
    return text.translate(_CONTROLS)


class Screen:
    """`json`: print one document instead of tables, errors included."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json

    @cached_property
    def out(self) -> Console:
        return _console(sys.stdout)

    @cached_property
    def err(self) -> Console:
        return _console(sys.stderr)

    @property
    def columns(self) -> int:
        """Of the terminal; where there is none, PIPED_WIDTH."""
        return self.out.width

    def data(self, document: Any, draw: Callable[[], None]) -> None:
        """The document for programs, or what `draw` prints for people."""
        if self.json:
            self.document(document)
        else:
            draw()

    def document(self, document: Any) -> None:
        """One JSON document: indented on a terminal, one line elsewhere."""
        self.line(_json(document, indent=2 if sys.stdout.isatty() else None))

    def json_line(self, document: Any) -> None:
        """One JSON document in one line, at once."""
        self.line(_json(document))
        sys.stdout.flush()

    def line(self, text: str = "") -> None:
        """One line of data, as it is: rich would expand tabs and turn `:bee:` into a picture."""
        sys.stdout.write(self._encodable(plain(text)) + "\n")

    def talk(self, text: str, style: str = "") -> None:
        """One line that is no data: what was done, how long it took, what comes next."""
        sys.stdout.flush()  # where both go to one file, what was said first stands first
        self.err.print(self._encodable(plain(text)), style=style, markup=False, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """A piece of a line, at once."""
        sys.stdout.write(self._encodable(plain(text)))
        sys.stdout.flush()

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
        """A table without lines. A column whose name begins with `>` stands to the right.

        On a narrow terminal it stands closer, and sentences are broken into lines before names and ids are: these are
        typed again.
        """
        from rich.table import Table

        cells = [[self._cell(cell) for cell in row] for row in rows]
        names = [name.lstrip(">") for name in columns]
        fits = not self.out.is_terminal or sum(_widths(names, cells)) + GAP * len(names) <= self.columns
        if not fits:
            names = [name.replace(" ", "\n", 1) for name in names]
        words = [all(_is_word(row[at].plain) for row in cells) for at in range(len(names))]
        pairs = zip(_widths(names, cells), words, strict=True)
        whole = sum(1 + (width if word else min(width, SENTENCE)) for width, word in pairs) <= self.columns
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, GAP if fits else 1, 0, 0))
        for at, (name, given) in enumerate(zip(names, columns, strict=True)):
            keep = fits or (words[at] and (whole or at == 0))
            table.add_column(name, justify="right" if given.startswith(">") else "left", no_wrap=keep, overflow="fold")
        for row in cells:
            table.add_row(*row)
        self.out.print(table)

    def state(self, word: str, label: str = "") -> Text:
        """A state or verdict with its glyph and colour."""
        from rich.text import Text

        glyph, style = STYLES.get(word, ("·", ""))
        return Text(self._encodable(f"{glyph} {label or word}"), style=style)

    def failure(self, failure: Failure, *, actor: str = "") -> int:
        """Say what happened, why, and what to do next; the exit code.

        With `json` the error document goes to stdout, and the words only where they do not stand beside it.
        """
        if self.json:
            self.document(failure.document(str(failure.details.get("correlation_id", ""))))
        if not (self.json and sys.stdout.isatty()):
            self._tell(explain(failure, actor=actor))
        return CODES[failure.code].exit

    def _tell(self, told: Told) -> None:
        self.talk(f"{told.glyph} {told.what}", style="yellow" if told.glyph == POLICY else "red")
        if told.why:
            self.talk(f"  why   {told.why}")
        self.advise(told.next)

    def advise(self, steps: Sequence[tuple[str, str]]) -> None:
        """What to type next, and what each does."""
        width = max((len(command) for command, _ in steps), default=0)
        for number, (command, meaning) in enumerate(steps):
            self.talk(f"  {'next' if number == 0 else '    '}  {command:<{width}}   {meaning}".rstrip())

    def _cell(self, cell: str | Text) -> Text:
        from rich.text import Text

        return Text(self._encodable(plain(cell))) if isinstance(cell, str) else cell

    def _encodable(self, text: str) -> str:
        encoding = sys.stdout.encoding or "ascii"
        if text.isascii():
            return text
        if encoding.lower().replace("-", "") != "utf8":
            for glyph, letter in ASCII.items():
                text = text.replace(glyph, letter)
        return text.encode(encoding, "replace").decode(encoding)


def _widths(names: Sequence[str], rows: Sequence[Sequence[Text]]) -> list[int]:
    heads = [max(map(len, name.split("\n"))) for name in names]
    return [max([head, *(row[at].cell_len for row in rows)]) for at, head in enumerate(heads)]


def _is_word(text: str) -> bool:
    """Also behind a glyph."""
    parts = text.split()
    return len(parts) <= 1 or (len(parts) == 2 and len(parts[0]) == 1 and not parts[0].isalnum())


def _json(document: Any, indent: int | None = None) -> str:
    """Readable, and exact: what a terminal or an encoding would not take is escaped."""
    text = json.dumps(document, ensure_ascii=False, indent=indent)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _console(file: TextIO) -> Console:
    """Whether to colour is decided by rich: NO_COLOR, FORCE_COLOR, TERM=dumb, no terminal."""
    from rich.console import Console

    return Console(file=file, highlight=False, emoji=False, width=None if file.isatty() else PIPED_WIDTH)
