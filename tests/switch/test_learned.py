"""What is remembered of a model, and how it is forgotten."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.switch.choosing.learned import FACTOR_MAX, FACTOR_MIN, FACTOR_START, NOTHING, Observed, read

NOW = 1_700_000_000.0
DAY = 86_400.0


def after(answered: int = 0, failed: int = 0, first_s: float | None = 1.0) -> Observed:
    observed = NOTHING
    for _ in range(answered):
        observed = observed.answered(NOW, first_s)
    for _ in range(failed):
        observed = observed.failed(NOW)
    return observed


def test_of_a_new_model_the_best_is_assumed() -> None:
    assert (NOTHING.known, NOTHING.success, NOTHING.first_s) == (False, 0.95, 1.0)


def test_many_failures_are_believed_and_one_hardly() -> None:
    assert after(failed=1).success == pytest.approx(0.89, abs=0.01)
    assert after(failed=30).success < 0.45


def test_the_last_answers_count_more_than_the_first() -> None:
    mended = after(failed=30)
    for _ in range(30):
        mended = mended.answered(NOW, 1.0)
    assert mended.success > 0.7


def test_a_provider_that_was_bad_last_week_gets_another_chance() -> None:
    bad = after(failed=30)
    later = bad.faded(NOW + 7 * DAY)
    assert bad.success < 0.45
    assert later.success > 0.82
    assert bad.faded(NOW + 60 * DAY).success == pytest.approx(0.95, abs=0.001)
    assert not bad.faded(NOW + 60 * DAY).known


def test_latency_is_that_of_the_first_word() -> None:
    assert after(40, first_s=4.0).first_s == pytest.approx(2.8, abs=0.1)
    assert after(40, first_s=0.1).first_s < 0.5


def test_an_answer_without_a_time_leaves_the_latency_unknown() -> None:
    assert after(20, first_s=None).first_s == 1.0


def test_a_clock_that_goes_back_fades_nothing() -> None:
    assert after(5).faded(NOW - 100 * DAY).weight == after(5).weight


def test_a_denser_text_than_expected_counts_at_once_and_a_thinner_one_slowly() -> None:
    """Too many tokens are an error at the provider; too few only leave a turn out too early."""
    assert NOTHING.counted(1_000, 600).factor == pytest.approx(0.66)
    once = NOTHING.counted(1_000, 250)
    assert once.factor == pytest.approx(FACTOR_START - (FACTOR_START - 0.275) / 10)


def test_a_short_conversation_says_nothing_of_the_tokens_of_its_text() -> None:
    assert NOTHING.counted(20, 60).factor == FACTOR_START


@pytest.mark.parametrize("tokens", [0, -5])
def test_a_count_that_cannot_be_is_ignored(tokens: int) -> None:
    assert NOTHING.counted(1_000, tokens) == NOTHING


@pytest.mark.parametrize(
    "document", [None, 3, "text", [], {}, {"weight": 1}, NOTHING.document() | {"good": "many"}, NOTHING.document() | {"good": -1}]
)
def test_what_cannot_be_read_is_not_known(document: object) -> None:
    assert read(document) == NOTHING


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("answered"), st.none() | st.floats(-10, 1e9), st.floats(0, 1e6)),
        st.tuples(st.just("failed"), st.none(), st.floats(0, 1e6)),
        st.tuples(st.just("counted"), st.integers(-10, 10**9), st.integers(-10, 10**12)),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_the_figures_stay_within_their_bounds(
    steps: list[tuple[str, object, float]],
) -> None:
    observed, now = NOTHING, NOW
    for what, first, more in steps:
        if what == "counted":
            observed = observed.counted(int(more), int(first))  # type: ignore[call-overload]
            continue
        now += more
        observed = observed.answered(now, first) if what == "answered" else observed.failed(now)  # type: ignore[arg-type]
    assert 0 <= observed.good <= observed.weight + 1e-9
    assert observed.weight <= 1 / 0.03 + 1e-6
    assert 0 < observed.success <= 1
    assert 0 <= observed.first_s <= 120
    assert FACTOR_MIN <= observed.factor <= FACTOR_MAX
    kept = read(json.loads(json.dumps(observed.document())))
    assert kept.success == pytest.approx(observed.success)
    assert kept.first_s == pytest.approx(observed.first_s)
