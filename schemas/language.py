"""The languages in which people are spoken to, and in which of them they speak."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

Language = Literal["en", "es"]

LOOK_CHARS = 300
"""Of a text, whose language its beginning tells."""


def language_of(text: str) -> Language | None:
    """English or Spanish by the small words and the accents; None when nothing tells."""
    said = unicodedata.normalize("NFC", text[:LOOK_CHARS]).casefold()
    if any(c in SPANISH_SIGNS for c in said):
        return "es"
    words = set(plain(said).split())
    accented = sum(any(c in ACCENTED for c in word) for word in said.split())
    spanish, english = accented + len(words & SPANISH_WORDS), len(words & ENGLISH_WORDS)
    if spanish == english:
        return None
    return "es" if spanish > english else "en"


def plain(text: str) -> str:
    """Lower case without accents or punctuation; commas stay as words, and so do names joined by `-` or `_`."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    words = TOKEN.findall(APOSTROPHE.sub("", bare.casefold()))
    return " ".join("," if word in LIST_SIGNS else word for word in words)


def _words(line: str) -> frozenset[str]:
    return frozenset(line.split())


SPANISH_SIGNS = frozenset("ñ¿¡")
ACCENTED = frozenset("áéíóú")
"""In Spanish words, and in some that English has borrowed."""
SPANISH_WORDS = _words(
    "el la los las un una de del que en y es por para con se me mi tu su esta estan como quien cuando donde "
    "hola gracias favor puedes quiero haz dime pon abre cierra despierta duerme hay al lo ya si "
    "este esta esto ese eso mas pero cual porque sobre entre sin mis tus sus cuenta cuentame escribe explica traduce"
)
ENGLISH_WORDS = _words(
    "the a an of that in and is are was for with not do does did to me my your it this what who when where how why "
    "hello hi please thanks can could want make tell put open close wake sleep there on you i"
)

APOSTROPHE = re.compile("['\u2019\u02bc`\u00b4]")
TOKEN = re.compile(r"-?[0-9]+(?:[.,][0-9]+)*|[^\W_]+(?:[-_]+[^\W_]+)*|[,;&+]")
LIST_SIGNS = frozenset(",;&+")
