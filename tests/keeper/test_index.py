"""The index alone: it finds what a plain scan finds, whatever was packed, forgotten or begun again."""

from __future__ import annotations

import os
import statistics
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.keeper import index
from actors.keeper.index import Index
from bus.vault import open_vault

KEY = b"k" * 32
STREAM = "VX11_EVENTS"
LONG = bool(os.environ.get("VX11_LONG_LOG"))
MANY = 1_000_000 if LONG else 30_000
EACH = 10
"""Events of one conversation, which are not beside each other."""
FOUND_S = 0.1


@pytest.fixture
def vault(tmp_path):
    made = open_vault(tmp_path / "index.db", KEY, index.SCHEMA)
    yield made
    made.close()


@pytest.fixture
def packed_soon(monkeypatch):
    monkeypatch.setattr(index, "PACKED_AFTER", 20)


def fill(made: Index, ids: list[str], *, after: int = 0, page: int = 7) -> None:
    entries = [(after + n, id_) for n, id_ in enumerate(ids, 1)]
    for at in range(0, len(entries), page):
        part = entries[at : at + page]
        made.add(STREAM, [(sequence, id_) for sequence, id_ in part if id_], part[-1][0])


def scan(ids: list[str], wanted: str, after: int = 0) -> list[int]:
    return [after + n for n, id_ in enumerate(ids, 1) if id_ == wanted]


def test_it_finds_what_a_scan_finds(vault, packed_soon):
    @given(st.lists(st.sampled_from(["", "a", "b", "c", "ñ"]), max_size=120), st.integers(1, 30))
    def check(ids, page):
        vault.do("DELETE FROM packed")
        vault.do("DELETE FROM recent")
        vault.do("DELETE FROM indexed")
        made = Index(vault, KEY)
        fill(made, ids, page=page)
        for one in (made, Index(vault, KEY)):  # as it is, and as it is read again
            assert {id_: one.find(STREAM, id_, 1_000) for id_ in "abcñ"} == {id_: scan(ids, id_) for id_ in "abcñ"}
            assert one.through(STREAM) == len(ids)

    check()


def test_a_limit_gives_the_oldest(vault, packed_soon):
    made = Index(vault, KEY)
    fill(made, ["a", "b"] * 40)
    assert made.find(STREAM, "a", 3) == [1, 3, 5]


def test_what_is_trimmed_is_not_found(vault, packed_soon):
    made = Index(vault, KEY)
    fill(made, ["a", "b"] * 40)
    made.forget_before(STREAM, 41)
    assert made.find(STREAM, "a", 1_000, since=41) == list(range(41, 80, 2))
    assert vault.row("SELECT count(*) FROM packed WHERE last < 41") == (0,)


def test_sequences_that_are_given_again_are_not_found_under_their_old_id(vault, packed_soon):
    """The stream was cut at 30 and has grown again."""
    made = Index(vault, KEY)
    fill(made, ["a"] * 70)
    made.forget_after(STREAM, 30)
    assert made.find(STREAM, "a", 1_000) == list(range(1, 31))
    fill(made, ["b"] * 40, after=30)
    assert made.find(STREAM, "a", 1_000) == list(range(1, 31))
    assert made.find(STREAM, "b", 1_000) == list(range(31, 71))


def test_streams_are_kept_apart(vault):
    made = Index(vault, KEY)
    made.add("ONE", [(1, "a")], 1)
    made.add("TWO", [(2, "a")], 2)
    assert (made.find("ONE", "a", 9), made.find("TWO", "a", 9)) == ([1], [2])


def test_the_file_does_not_hold_the_ids(vault, tmp_path):
    """Nor could anybody who has it make an id that falls together with another."""
    made = Index(vault, KEY)
    made.add(STREAM, [(1, "a")], 1)
    assert Index(vault, b"other" * 6).find(STREAM, "a", 9) == []


@pytest.mark.timeout(300 if LONG else 60)
def test_an_id_in_a_million_events_is_found_at_once(vault, capsys):
    """In the short form fewer; the median, because a busy machine is no fault of the index."""
    made = Index(vault, KEY)
    conversations = MANY // EACH
    for at in range(0, MANY, 1_000):
        with vault.transaction():
            made.add(STREAM, [(n + 1, f"conversation-{n % conversations}") for n in range(at, at + 1_000)], at + 1_000)
    took = []
    for wanted in range(0, conversations, conversations // 50):
        begun = time.perf_counter()
        found = made.find(STREAM, f"conversation-{wanted}", 100)
        took.append(time.perf_counter() - begun)
        assert found == [wanted + 1 + n * conversations for n in range(EACH)]
    assert statistics.median(took) < FOUND_S
    rows = vault.row("SELECT count(*) FROM packed")
    assert rows[0] <= index.BUCKETS * (MANY // index.PACKED_AFTER), "it is packed too often"
    if LONG:
        with capsys.disabled():
            print(f"\n{MANY} events: found in {statistics.median(took) * 1000:.1f} ms, at most {max(took) * 1000:.1f} ms")  # noqa: T201
