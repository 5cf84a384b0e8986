"""What a message is about: the routing set, and what becomes of sorting when its embedding does."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.madre.phrases import EXAMPLES
from actors.switch.kind import kinds
from actors.switch.kind.embedding import Embedded, Embedding, installed
from actors.switch.kind.fitting import examples, fingerprint, weights, write
from actors.switch.kind.kinds import KINDS, WEIGHTS, Sorter, shortened
from schemas.errors import Failure
from schemas.language import plain

ROUTING_SET = json.loads(Path(__file__).with_name("routing_set.json").read_text(encoding="utf-8"))
MESSAGES = [(kind, language, text) for kind in KINDS for language in ("en", "es") for text in ROUTING_SET[kind][language]]
WITH_EMBEDDING, WITHOUT = 0.90, 0.65
Z_95 = 1.96
PATIENCE_S = 20.0


class Nobody:
    """In the place of the embedding: it is not there."""

    async def embed(self, texts) -> Embedded:
        raise Failure("not_installed", "there is no embedding model")


class Sleepy:
    async def embed(self, texts) -> Embedded:
        await asyncio.Event().wait()
        raise AssertionError


@pytest.fixture
async def embedding() -> AsyncIterator[Embedding]:
    made = Embedding(installed())
    yield made
    await made.close()


def wilson(right: int, of: int) -> tuple[float, float]:
    """Between which bounds the true share lies, with 95 % confidence."""
    share, z = right / of, Z_95
    middle = share + z * z / (2 * of)
    reach = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return (middle - reach) / (1 + z * z / of), (middle + reach) / (1 + z * z / of)


async def scored(sorter: Sorter, how: str, capsys) -> float:
    """The share of the routing set that is sorted rightly. Of what went wrong only the number is told."""
    found = [(kind, await sorter.sort(text)) for kind, _, text in MESSAGES]
    assert {one.how for _, one in found} <= {how, "phrase"}
    right = sum(kind == one.kind for kind, one in found)
    taken = sum(kind == "chat" != one.kind for kind, one in found)
    low, high = wilson(right, len(found))
    with capsys.disabled():
        sys.stdout.write(
            f"\n  routing set, {how}: {right} of {len(found)} right ({right / len(found):.1%}, "
            f"95 % interval {low:.1%} to {high:.1%}); chat sent elsewhere: {taken}\n"
        )
    return right / len(found)


def test_the_routing_set_is_balanced_and_holds_no_example() -> None:
    sizes = {(kind, language): len(ROUTING_SET[kind][language]) for kind in KINDS for language in ("en", "es")}
    assert len(MESSAGES) >= 80
    assert len(set(sizes.values())) == 1
    assert {plain(text) for _, _, text in MESSAGES}.isdisjoint(plain(example.text) for example in examples())


async def test_nine_of_ten_messages_are_sorted_rightly_by_their_meaning(embedding, capsys, monkeypatch) -> None:
    monkeypatch.setattr(kinds, "EMBED_S", PATIENCE_S)
    assert await scored(Sorter(embedding), "embedding", capsys) >= WITH_EMBEDDING


async def test_two_of_three_are_sorted_rightly_by_their_letters_alone(capsys) -> None:
    assert await scored(Sorter(Nobody()), "n-grams", capsys) >= WITHOUT


@pytest.mark.parametrize("letters_only", [False, True])
async def test_what_madre_says_she_understands_goes_to_her(embedding, letters_only) -> None:
    """Also in other words than the examples have: the closed list is hers, and switch does not know it."""
    sorter = Sorter(Nobody() if letters_only else embedding)
    phrases = [text for language in EXAMPLES.values() for _, text in language]
    asked = [
        f"{text}, please" if language == "en" else f"{text}, gracias" for language in EXAMPLES for _, text in EXAMPLES[language]
    ]
    found = {text: (await sorter.sort(text)).kind for text in (*phrases, *asked)}
    assert {text for text, kind in found.items() if kind != "platform"} == set()


@pytest.mark.parametrize("text", ["", "   ", "?", "\x00", "👍", "你好", "a" * 4_000, "\ud800", "blah bleh blih " * 200])
async def test_what_says_nothing_is_talk(embedding, text) -> None:
    for sorter in (Sorter(embedding), Sorter(Nobody())):
        assert (await sorter.sort(text)).kind == "chat"


async def test_an_example_is_known_by_heart() -> None:
    found = await Sorter(Nobody()).sort("  WAKE switch! ")
    assert (found.kind, found.how, found.scores["platform"]) == ("platform", "phrase", 1.0)


async def test_shares_add_up_and_the_kind_has_the_largest(embedding) -> None:
    for sorter in (Sorter(embedding), Sorter(Nobody())):
        found = await sorter.sort("could you check that the songs on the disk can be played?")
        assert math.isclose(sum(found.scores.values()), 1.0, abs_tol=0.01)
        assert found.scores[found.kind] == max(found.scores.values())


@pytest.mark.parametrize(("text", "language"), [("¿quién anda ahí?", "es"), ("what is the time", "en"), ("ok", None)])
async def test_the_language_is_told(text, language) -> None:
    assert (await Sorter(Nobody()).sort(text)).language == language


async def test_an_embedding_that_was_killed_is_replaced_by_letters_and_that_is_said(embedding) -> None:
    sorter = Sorter(embedding)
    assert (await sorter.sort("please wake the switch actor")).how == "embedding"
    os.kill(embedding.pid, signal.SIGSTOP)
    asked = asyncio.create_task(sorter.sort("I would like to see hormiguero in action, get it up"))
    await asyncio.sleep(0)
    os.kill(embedding.pid, signal.SIGKILL)
    found = await asked
    assert (found.kind, found.how, "SIGKILL" in found.note) == ("platform", "n-grams", True)


async def test_an_embedding_that_takes_too_long_is_not_waited_for(monkeypatch) -> None:
    monkeypatch.setattr(kinds, "EMBED_S", 0.05)
    found = await Sorter(Sleepy()).sort("please wake the switch actor")
    assert (found.kind, found.how) == ("platform", "n-grams")
    assert "0.05 s" in found.note


def test_of_a_long_message_the_beginning_and_the_end_are_looked_at() -> None:
    text = "translate this:" + " once upon a time" * 300 + " into French, please"
    assert shortened(text).startswith("translate this: once")
    assert shortened(text).endswith("into French, please")
    assert len(shortened(text)) < 300


def test_the_weights_are_those_of_the_examples() -> None:
    """After an edit of examples.toml: python -m actors.switch.kind.fitting."""
    assert json.loads(WEIGHTS.read_text(encoding="utf-8"))["examples"] == fingerprint()


@pytest.mark.skipif("VX11_LONG_SWITCH" not in os.environ, reason="make soak: some 15 seconds of a processor")
async def test_fitting_gives_the_same_weights_again(tmp_path) -> None:
    """Other processors round a little differently."""
    write(await weights(examples()), tmp_path / "kinds.json")
    new, kept = (json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "kinds.json", WEIGHTS))
    assert (new["phrases"], new["grams"]) == (kept["phrases"], kept["grams"])
    for kind in KINDS:
        assert new["vectors"][kind]["weights"] == pytest.approx(kept["vectors"][kind]["weights"], abs=0.05)
