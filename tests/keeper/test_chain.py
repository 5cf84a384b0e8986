"""The hash chain alone: it depends on every part of every event and on their order, and on nothing else."""

from __future__ import annotations

import hashlib
import struct

from hypothesis import given
from hypothesis import strategies as st

from bus.chain import fold, genesis, microseconds
from bus.eventlog import Stored

NAME = st.text("abcdefgh-_", min_size=1, max_size=8)
VALUE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)), max_size=12)
EVENT = st.builds(
    Stored,
    sequence=st.integers(1, 2**40),
    subject=NAME.map(lambda fact: f"vx11.events.shop.{fact}"),
    at=st.integers(1_700_000_000_000_000, 2_000_000_000_000_000).map(lambda micros: micros / 1_000_000),
    headers=st.dictionaries(NAME, VALUE, max_size=3),
    body=st.binary(max_size=20),
)
START = genesis("VX11_EVENTS", 0)


@given(EVENT, EVENT)
def test_two_events_have_the_same_hash_only_when_they_are_the_same(one, other):
    same = one._replace(at=microseconds(one.at)) == other._replace(at=microseconds(other.at))
    assert (fold(START, one) == fold(START, other)) == same


@given(EVENT, st.data())
def test_a_change_of_any_part_changes_the_hash(event, data):
    name = data.draw(st.sampled_from(Stored._fields))
    value = data.draw(EVENT.map(lambda other: getattr(other, name)))
    changed = event._replace(**{name: value})
    assert (fold(START, changed) == fold(START, event)) == (value == getattr(event, name))


@given(st.lists(EVENT, min_size=2, max_size=6), st.data())
def test_a_change_anywhere_changes_every_hash_from_there_on(events, data):
    at = data.draw(st.integers(0, len(events) - 1))
    changed = list(events)
    changed[at] = events[at]._replace(body=events[at].body + b"!")
    before, after = hashes(events), hashes(changed)
    assert before[:at] == after[:at]
    assert all(x != y for x, y in zip(before[at:], after[at:], strict=True))


@given(EVENT)
def test_the_order_in_which_headers_come_says_nothing(event):
    turned = event._replace(headers=dict(reversed(event.headers.items())))
    assert fold(START, turned) == fold(START, event)


def test_the_definition_is_what_is_written():
    """Whoever wants to check an export without us needs nothing but the text in bus/chain.py."""
    event = Stored(7, "vx11.events.shop.sold", 1_700_000_000.25, {"b": "2", "a": "1"}, b"apple")
    numbers = struct.pack(">QQII", 7, 1_700_000_000_250_000, 21, 10)
    by_hand = hashlib.sha256(START + numbers + b"vx11.events.shop.sold" + b"a:1\r\nb:2\r\n" + b"apple").digest()
    assert fold(START, event) == by_hand


def test_chains_of_other_streams_and_other_beginnings_have_nothing_in_common():
    made = {genesis("A", 0), genesis("B", 0), genesis("A", 1), genesis("A", 0, b"an earlier head")}
    assert len(made) == 4


def hashes(events: list[Stored]) -> list[bytes]:
    found, head = [], START
    for event in events:
        head = fold(head, event)
        found.append(head)
    return found
