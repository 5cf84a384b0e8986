"""`switch.embed`: texts as vectors for callers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import pytest

from actors.switch.kind import kinds, meaning
from actors.switch.kind.embedding import Embedding, installed
from actors.switch.kind.kinds import Sorter
from actors.switch.kind.meaning import meanings
from schemas.errors import Failure
from schemas.switch import Embed

MESSAGE_MOST = 1_000_000
"""Bytes of a message on the bus."""
PATIENCE_S = 20.0


@pytest.fixture
async def embedding() -> AsyncIterator[Embedding]:
    made = Embedding(installed())
    yield made
    await made.close()


async def failure(embedding, seconds: float = 30.0, **fields) -> Failure:
    with pytest.raises(Failure) as raised:
        await meanings(Embed(**fields), embedding, seconds)
    return raised.value


async def test_each_text_has_its_vector_in_the_order_of_the_texts(embedding) -> None:
    texts = [f"this is the text number {n}, which is about {word}" for n, word in enumerate(("bees", "tax", "rain") * 10)]
    together = await meanings(Embed(input=texts), embedding, 30)
    assert (together.model, len(together.vectors)) == ("multilingual-e5-small", 30)
    assert together.tokens > 30 * 10
    for at in (0, 17, 29):
        alone = await meanings(Embed(input=[texts[at]]), embedding, 30)
        assert alone.vectors[0] == together.vectors[at]
    assert all(math.isclose(sum(x * x for x in vector), 1.0, abs_tol=1e-3) for vector in together.vectors)


async def test_a_text_says_whether_it_is_a_question_or_a_passage(embedding) -> None:
    """The model is asked differently for both; without a word it is a question."""
    found = await meanings(Embed(input=["query: bees", "bees", "passage: bees"]), embedding, 30)
    assert found.vectors[0] == found.vectors[1] != found.vectors[2]


async def test_the_largest_request_fits_into_a_message(embedding) -> None:
    found = await meanings(Embed(input=["bees"] * 256), embedding, 30)
    assert len(found.model_dump_json()) < MESSAGE_MOST


@pytest.mark.parametrize("model", [None, "auto", "multilingual-e5-small", "local/multilingual-e5-small"])
async def test_the_model_goes_by_these_names(embedding, model) -> None:
    assert len((await meanings(Embed(input=["bees"], model=model), embedding, 30)).vectors) == 1


async def test_another_model_is_not_found(embedding) -> None:
    failed = await failure(embedding, input=["bees"], model="text-embedding-3-small")
    assert (failed.code, "multilingual-e5-small" in failed.message) == ("not_found", True)


async def test_without_the_package_it_is_not_installed() -> None:
    assert (await failure(Embedding(None), input=["bees"])).code == "not_installed"


async def test_a_text_that_is_too_long_is_said_to_be(embedding) -> None:
    assert (await failure(embedding, input=["bees", "bees " * 3_000])).code == "too_large"


async def test_what_cannot_be_done_in_time_says_how_much_was(embedding, monkeypatch) -> None:
    monkeypatch.setattr(meaning, "BATCH_CHARS", 1)
    await embedding.embed([("query", "hello")])
    failed = await failure(embedding, 1.25, input=["bees and honey " * 20] * 256)
    assert failed.code == "timeout"
    assert 0 < failed.details["done"] < 256


async def test_a_message_is_sorted_while_many_texts_are_being_embedded(embedding, monkeypatch) -> None:
    """It waits for the batch that is under way, and not for the others."""
    monkeypatch.setattr(kinds, "EMBED_S", PATIENCE_S)
    many = asyncio.create_task(meanings(Embed(input=["bees and honey " * 20] * 100), embedding, 60))
    while embedding.pid is None:
        await asyncio.sleep(0.01)
    found = await Sorter(embedding).sort("please have a look at how loud my mix is")
    assert (found.kind, found.how, many.done()) == ("audio", "embedding", False)
    many.cancel()
    await asyncio.wait([many])
