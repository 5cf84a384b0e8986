"""What a language model is good for, as its provider's configuration or its file declares it."""

from __future__ import annotations

from dataclasses import dataclass


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
