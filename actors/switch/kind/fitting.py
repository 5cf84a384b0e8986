"""How kinds.json comes from examples.toml: weights that tell the kinds apart, by their vectors and by their n-grams.

    python -m actors.switch.kind.fitting

Ridge regression: for each kind the weights whose products come closest to 1 for its examples and 0 for the others. With
some hundred examples it takes a few seconds, once, and no library; what remains at run time is a handful of products.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import tomllib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import mul
from pathlib import Path
from typing import Any, TypeVar

from actors.switch.kind.embedding import Embedding, installed
from actors.switch.kind.kinds import KINDS, SHARE, WEIGHTS
from actors.switch.kind.ngrams import FIELDS, Grams, grams
from schemas.language import plain
from schemas.switch import Kind

EXAMPLES = Path(__file__).with_name("examples.toml")
RIDGE_VECTORS, RIDGE_GRAMS = 0.2, 1.0
"""How little a single example may say; found on messages that are neither examples nor the routing set."""
BATCH = 16
GRAM_STEPS = 127
"""The weights of n-grams are kept as whole numbers of one byte."""
DIGITS = 5

P = TypeVar("P")


@dataclass(frozen=True)
class Example:
    kind: Kind
    text: str


def examples() -> list[Example]:
    """All, in the order of the file."""
    document = tomllib.loads(EXAMPLES.read_text(encoding="utf-8"))
    return [Example(kind, text) for kind in KINDS for language in ("en", "es") for text in document[kind][language]]


async def weights(told: Sequence[Example]) -> dict[str, Any]:
    """The document of kinds.json."""
    return {
        "examples": fingerprint(),
        "phrases": {kind: [plain(example.text) for example in told if example.kind == kind] for kind in KINDS},
        "vectors": _by_vectors(told, await _vectors(told)),
        "grams": _by_grams(told),
    }


def fingerprint() -> str:
    """Of the examples that the weights are of."""
    return hashlib.sha256(EXAMPLES.read_bytes()).hexdigest()


async def _vectors(told: Sequence[Example]) -> list[Sequence[float]]:
    embedding = Embedding(installed())
    try:
        found: list[Sequence[float]] = []
        for at in range(0, len(told), BATCH):
            found += (await embedding.embed([("query", example.text) for example in told[at : at + BATCH]])).vectors
        return found
    finally:
        await embedding.close()


def _by_vectors(told: Sequence[Example], vectors: Sequence[Sequence[float]]) -> dict[str, dict[str, Any]]:
    """Weights and bias of each kind. What all messages share is taken out first: in this model that is most of a vector."""
    mean = [sum(column) / len(vectors) for column in zip(*vectors, strict=True)]
    centred = [[x - m for x, m in zip(vector, mean, strict=True)] for vector in vectors]
    found: dict[str, dict[str, Any]] = {}
    for kind, parts in _parts(told, centred, lambda a, b: sum(map(mul, a, b)), RIDGE_VECTORS).items():
        weights = [sum(map(mul, parts, column)) for column in zip(*centred, strict=True)]
        found[kind] = {
            "bias": round(SHARE - sum(map(mul, weights, mean)), DIGITS),
            "weights": [round(weight, DIGITS) for weight in weights],
        }
    return found


def _by_grams(told: Sequence[Example]) -> dict[str, dict[str, Any]]:
    """Of each kind the weight of one step, and the steps of all fields."""
    points = [grams(example.text) for example in told]
    found: dict[str, dict[str, Any]] = {}
    for kind, parts in _parts(told, points, _overlap, RIDGE_GRAMS).items():
        weights = [0.0] * FIELDS
        for part, point in zip(parts, points, strict=True):
            for field, weight in point.items():
                weights[field] += part * weight
        step = max(map(abs, weights)) / GRAM_STEPS
        steps = array("b", (round(weight / step) for weight in weights))
        found[kind] = {"step": float(f"{step:.6g}"), "steps": base64.b64encode(steps).decode()}
    return found


def _overlap(one: Grams, other: Grams) -> float:
    return sum(weight * other.get(field, 0.0) for field, weight in one.items())


def _parts(
    told: Sequence[Example], points: Sequence[P], product: Callable[[P, P], float], ridge: float
) -> dict[Kind, list[float]]:
    """What each example contributes to the weights of each kind."""
    likeness = [[product(one, other) for other in points[: at + 1]] for at, one in enumerate(points)]
    for at, row in enumerate(likeness):
        row[at] += ridge
    factor = _cholesky(likeness)
    return {kind: _solved(factor, [(example.kind == kind) - SHARE for example in told]) for kind in KINDS}


def _cholesky(lower: list[list[float]]) -> list[list[float]]:
    """The triangular root of a symmetric matrix, whose lower half is given."""
    root: list[list[float]] = []
    for given in lower:
        row: list[float] = []
        for at, value in enumerate(given[:-1]):
            row.append((value - sum(map(mul, row, root[at]))) / root[at][at])
        row.append(math.sqrt(given[-1] - sum(map(mul, row, row))))
        root.append(row)
    return root


def _solved(root: list[list[float]], values: Sequence[float]) -> list[float]:
    """The x of root · rootᵀ · x = values."""
    half: list[float] = []
    for row, value in zip(root, values, strict=True):
        half.append((value - sum(map(mul, row, half))) / row[-1])
    found = half[:]
    for at in reversed(range(len(found))):
        found[at] /= root[at][at]
        for before in range(at):
            found[before] -= root[at][before] * found[at]
    return found


def write(document: dict[str, Any], path: Path) -> None:
    """One line a kind: a difference can be seen."""
    path.write_text(_lines(document) + "\n", encoding="utf-8")


def _lines(value: Any, depth: int = 2) -> str:
    if not depth or not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {_lines(part, depth - 1)}" for name, part in value.items()) + "\n}"


def main() -> None:
    write(asyncio.run(weights(examples())), WEIGHTS)


if __name__ == "__main__":
    main()
