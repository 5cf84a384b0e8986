"""The reply cache: one request id, one outcome; bounded however long a single handler runs."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from bus.replies import ENTRY_BYTES, KEPT_BYTES, KEPT_S, Replies

A, B, C = ("ana", "bake", "r1"), ("ana", "bake", "r2"), ("bob", "bake", "r1")


def test_a_running_request_is_known_without_an_answer():
    replies = Replies()
    replies.begin(A, 100.0, 130.0, "inbox.1", b"")
    found = replies.find(A)
    assert (found.body, found.replies, replies.awaited_until(A)) == (None, ["inbox.1"], 130.0)


def test_the_same_id_of_another_caller_is_another_request():
    replies = Replies()
    replies.begin(A, 100.0, 130.0, "inbox.1", b"")
    assert replies.find(C) is None
    assert replies.awaited_until(C) == 0.0


def test_all_that_joined_are_told_when_it_ends():
    replies = Replies()
    replies.begin(A, 100.0, 130.0, "inbox.1", b"")
    replies.find(A).replies.append("inbox.2")
    assert replies.end(A, 101.0, b"done", {"h": "1"}, 3) == ["inbox.1", "inbox.2"]
    found = replies.find(A)
    assert (found.body, found.headers, found.connection) == (b"done", {"h": "1"}, 3)


def test_an_end_without_a_beginning_is_nothing():
    replies = Replies()
    assert replies.end(A, 101.0, b"done", {}) == []
    assert replies.find(A) is None


def test_an_answer_is_kept_for_its_time_counted_from_its_end():
    """A handler that took ten minutes: its caller asks again a moment later."""
    replies = Replies()
    replies.begin(A, 0.0, 700.0, "inbox.1", b"")
    replies.end(A, 600.0, b"done", {})
    replies.trim(600.0 + KEPT_S - 1)
    assert replies.find(A).body == b"done"
    replies.trim(600.0 + KEPT_S)
    assert replies.find(A) is None


def test_what_still_runs_is_never_forgotten_and_keeps_nothing_else():
    """One long stream must not make the cache grow without bound."""
    replies = Replies()
    replies.begin(A, 0.0, 9_999.0, "inbox.1", b"")
    replies.begin(B, 1.0, 30.0, "inbox.2", b"")
    replies.end(B, 2.0, b"done", {})
    replies.trim(2.0 + KEPT_S)
    assert replies.find(A) is not None
    assert replies.find(B) is None


def test_beyond_its_bytes_the_oldest_go_first():
    replies = Replies()
    for n in range(12):
        replies.begin(("ana", "bake", str(n)), 0.0, 30.0, "inbox", b"")
        replies.end(("ana", "bake", str(n)), float(n), b"x" * 2**20, {})
        assert replies._bytes <= KEPT_BYTES, "at once: thousands a second may end between two trims"
    known = [n for n in range(12) if replies.find(("ana", "bake", str(n)))]
    assert known == list(range(3, 12))


def test_it_says_since_when_it_has_forgotten_nothing():
    replies = Replies()
    for n, key in enumerate((A, B)):
        replies.begin(key, 10.0 + n, 100.0, "inbox", b"")
        replies.end(key, 20.0 + n, b"", {})
    assert replies.complete_since == 0.0
    replies.trim(20.0 + KEPT_S)
    assert (replies.find(A), replies.complete_since) == (None, 10.0)
    assert replies.find(B)


@given(st.lists(st.tuples(st.sampled_from(["begin", "end", "trim"]), st.integers(0, 9), st.integers(0, 2**21)), max_size=60))
def test_whatever_happens_it_is_bounded_and_forgets_nothing_that_runs(steps):
    replies, running, now = Replies(), set(), 0.0
    for what, n, size in steps:
        key, now = ("ana", "bake", str(n)), now + 7
        if what == "begin" and not replies.find(key):
            replies.begin(key, now, now + 30, "inbox", b"")
            running.add(key)
        elif what == "end":
            replies.end(key, now, b"x" * size, {})
            running.discard(key)
        elif what == "trim":
            replies.trim(now)
            assert all(now - outcome.ended < KEPT_S for outcome in replies._kept.values())
        assert sum(ENTRY_BYTES + len(outcome.body) for outcome in replies._kept.values()) == replies._bytes <= KEPT_BYTES
        assert {key for key in running if replies.find(key) is None or replies.find(key).body is not None} == set()


def test_an_entry_costs_what_is_counted_for_it():
    """Else ten megabytes would be thirty."""
    replies, many = Replies(), 2_000
    tracemalloc.start()
    try:
        for n in range(many):
            key, inbox = ("gateway", "chat", f"{n:024x}"), f"_INBOX_gateway.abcdefghijklmnopqrstuv.{n:x}"
            replies.begin(key, 1.5 + n, 60.5 + n, inbox, b"{}")
            replies.end(key, 2.5 + n, b"", {"correlation_id": f"{n:036x}", "traceparent": f"{n:055x}", "vx11-run": "r"})
        cost = tracemalloc.get_traced_memory()[0] / many
    finally:
        tracemalloc.stop()
    assert ENTRY_BYTES * 0.7 < cost < ENTRY_BYTES * 1.2
