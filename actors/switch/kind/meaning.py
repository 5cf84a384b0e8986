"""The vectors that callers ask for, in small batches: between two of them a message that is to be sorted has its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from actors.switch.kind.embedding import MODEL, Embedding, Role
from schemas.errors import Failure
from schemas.switch import Embed, Embeddings

PROVIDER = "local"
NAMES = frozenset({None, "auto", MODEL, f"{PROVIDER}/{MODEL}"})
ROLES: tuple[Role, ...] = ("query", "passage")
BATCH_CHARS = 500
"""Of one batch, some quarter of a second; a longer text is one of its own."""
DIGITS = 6
"""More than the model has; with them 256 vectors fit into one message."""
MARGIN_S = 0.25
"""A failure is told this long before the caller's deadline, so that it arrives."""

Said = tuple[Role, str]


async def meanings(request: Embed, embedding: Embedding, seconds: float) -> Embeddings:
    """A vector for each text, in order. `seconds`: until the caller's deadline. Raises Failure."""
    if request.model not in NAMES:
        raise Failure("not_found", f"there is no embedding model {request.model!r}; there is {MODEL}", model=request.model)
    vectors: list[list[float]] = []
    tokens = 0
    try:
        async with asyncio.timeout(seconds - MARGIN_S):
            for batch in _batches([_said(text) for text in request.input]):
                found = await embedding.embed(batch)
                vectors += [[round(x, DIGITS) for x in vector] for vector in found.vectors]
                tokens += found.tokens
    except TimeoutError:
        told = f"{len(vectors)} of {len(request.input)} texts were embedded in time; ask for fewer at once"
        raise Failure("timeout", told, done=len(vectors)) from None
    return Embeddings(model=MODEL, provider=PROVIDER, vectors=vectors, tokens=tokens)


def _said(text: str) -> Said:
    """The text with its role, which the model wants to be told: `query: ` or `passage: ` before it, else a query."""
    for role in ROLES:
        if text.startswith(f"{role}: "):
            return role, text[len(role) + 2 :]
    return "query", text


def _batches(texts: Sequence[Said]) -> Iterator[list[Said]]:
    batch: list[Said] = []
    for said in texts:
        if batch and sum(len(text) for _, text in [*batch, said]) > BATCH_CHARS:
            yield batch
            batch = []
        batch.append(said)
    yield batch
