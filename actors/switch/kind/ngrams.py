"""The letters of a message as hashed n-grams: how alike two messages are written, without any model."""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from collections import Counter

FIELDS = 4_096
"""Into so many numbers the n-grams are hashed."""
SIZES = (3, 4, 5)
WORD = re.compile(r"[a-z]+|[0-9]+")

Grams = dict[int, float]
"""Field to weight; the squares of the weights add up to 1."""


def grams(text: str) -> Grams:
    """Of the words without accents, each with a blank at both ends, and of the words themselves. All numbers are alike."""
    found = Counter(zlib.crc32(gram.encode()) % FIELDS for gram in set(_pieces(text)))
    length = math.sqrt(sum(found.values()))
    return {field: math.sqrt(times) / length for field, times in found.items()}


def _pieces(text: str) -> list[str]:
    pieces: list[str] = []
    for word in dict.fromkeys(WORD.findall(_bare(text))):
        said = "0" if word[0].isdigit() else word
        edged = f" {said} "
        pieces.append(f"={said}")
        pieces += [edged[at : at + size] for size in SIZES for at in range(len(edged) - size + 1)]
    return pieces


def _bare(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
