"""What a language model is good for, as its provider's configuration or its file declares it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from actors.switch.configured import lines
from actors.switch.configured.lines import Misconfigured

CONTEXT_MIN = 256
CONTEXT_MAX = 100_000_000
PRICE_MAX = 100_000.0
"""US dollars for a million tokens; more is a slip of the decimal point."""
LANGUAGES_MAX = 50
LANGUAGE_FORM = re.compile(r"[a-z]{2,3}")
DECLARED = ("context", "languages", "tools", "json", "price_in", "price_out", "prefill")
"""The lines that say what a model is good for."""


@dataclass(frozen=True)
class Traits:
    """`context`: tokens of prompt and answer together, None when nobody has said."""

    context: int | None = None
    languages: tuple[str, ...] = ()
    """Codes as `en`; empty: any."""
    tools: bool = True
    json: bool = True
    """Answers in the form of a JSON schema."""
    price_in: float = 0.0
    """US dollars for a million tokens of prompt."""
    price_out: float = 0.0
    prefill: bool = False
    """Goes on with an unfinished last turn of the assistant instead of answering it."""
    offline: bool = False
    """Runs on this machine out of a file, and is preferred to nothing but silence."""
    note: str = ""
    """Said wherever it answers."""


UNKNOWN = Traits()


def declared(table: Mapping[str, Any], base: Traits = UNKNOWN) -> Traits:
    """What the lines of a table say, and `base` where they say nothing. Raises Misconfigured."""
    return replace(
        base,
        context=lines.whole(table, "context", CONTEXT_MIN, CONTEXT_MAX) or base.context,
        languages=_languages(table, base.languages),
        tools=lines.flag(table, "tools", base.tools),
        json=lines.flag(table, "json", base.json),
        price_in=lines.amount(table, "price_in", base.price_in, PRICE_MAX),
        price_out=lines.amount(table, "price_out", base.price_out, PRICE_MAX),
        prefill=lines.flag(table, "prefill", base.prefill),
    )


def _languages(table: Mapping[str, Any], default: tuple[str, ...]) -> tuple[str, ...]:
    codes = table.get("languages", list(default))
    if not isinstance(codes, list) or len(codes) > LANGUAGES_MAX:
        raise Misconfigured('languages must be a list; write languages = ["en", "es"]')
    for code in codes:
        if not isinstance(code, str) or not LANGUAGE_FORM.fullmatch(code):
            raise Misconfigured(f'languages names {code!r}, which is no code of two or three letters; write for instance "en"')
    return tuple(codes)
