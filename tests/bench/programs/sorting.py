"""Sorts messages or only embeds them, one after the other: `python -m tests.bench.programs.sorting sort|embed|letters COUNT`."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop

from actors.switch.kind.embedder import Model
from actors.switch.kind.embedding import Embedding, installed
from actors.switch.kind.fitting import examples
from actors.switch.kind.kinds import Sorter
from tests.bench.process import cpu_s

WARM_UP = 8


def messages(count: int) -> list[str]:
    """Like the examples, which themselves would be known by heart."""
    texts = sorted(example.text for example in examples())[:: max(1, len(examples()) // count)]
    return [f"{text} - today" for text, _ in zip(itertools.cycle(texts), range(count), strict=False)]


async def main(how: str, count: int) -> dict[str, float]:
    """`cpu_ms`, `wall_ms`: of a message. The processor of the embedding's process is counted, too."""
    folder = installed()
    assert folder
    embedding = Embedding(folder if how == "sort" else None)
    sorter = Sorter(embedding)
    model = Model(folder) if how == "embed" else None

    async def embed(text: str) -> None:
        assert model
        model.embed("query", text)

    one: Callable[[str], Awaitable[object]] = embed if model else sorter.sort
    for text in messages(WARM_UP):
        await one(text)
    pids = [embedding.pid] if embedding.pid else []
    cpu, wall = time.process_time() + cpu_s(pids), time.perf_counter()
    for text in messages(count):
        await one(text)
    spent, took = time.process_time() + cpu_s(pids) - cpu, time.perf_counter() - wall
    await embedding.close()
    return {"cpu_ms": spent / count * 1e3, "wall_ms": took / count * 1e3}


if __name__ == "__main__":
    uvloop.install()
    sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1], int(sys.argv[2])))))
