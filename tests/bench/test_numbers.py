"""The statistics behind every figure: what a percentile, a ratio and its noise are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.numbers import Rounds, percentile

some = st.lists(st.floats(0, 1e6), min_size=1, max_size=200)


def test_a_percentile_is_a_value_that_was_measured():
    assert percentile(list(range(1, 101)), 0.99) == 99
    assert percentile(list(range(1, 101)), 0.5) == 50
    assert percentile([3.0], 0.99) == 3.0


@given(some, st.floats(0.01, 1.0))
def test_so_many_are_not_beyond_a_percentile_and_fewer_would_not_do(values, part):
    found = percentile(values, part)
    assert sum(v <= found for v in values) >= len(values) * part - 1e-6
    assert sum(v < found for v in values) < len(values) * part + 1e-6


def test_without_values_there_is_no_percentile():
    """A zero would be the best figure of all."""
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def rounds(**values):
    made = Rounds()
    for config, numbers in values.items():
        for number in numbers:
            made.add(config, ms=number)
    return made


def test_a_ratio_compares_what_was_measured_in_the_same_round():
    """In a slow minute both were slow: medians of each by itself would say 1.0 here."""
    made = rounds(ours=[2.0, 20.0, 4.0], baseline=[1.0, 10.0, 2.0])
    assert made.ratio("ms", "ours", "baseline") == 2.0
    assert made.median("ours", "ms") == 4.0


def test_one_bad_round_does_not_move_a_ratio():
    assert rounds(ours=[1.0, 99.0, 1.0], baseline=[1.0, 1.0, 1.0]).ratio("ms", "ours", "baseline") == 1.0


def test_the_noise_is_how_far_the_same_thing_strays_from_itself():
    assert rounds(one=[1.0, 2.0, 4.0], again=[1.1, 1.8, 4.0]).spread("ms", "one", "again") == (0.9, 1.1)


def test_rounds_that_do_not_pair_are_no_ratio():
    with pytest.raises(ValueError, match="zip"):
        rounds(ours=[1.0, 2.0], baseline=[1.0]).ratio("ms", "ours", "baseline")
