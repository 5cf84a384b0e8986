"""Durations, ages and sizes as people write and read them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.cli.amount import age, lasting, seconds, size


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("90", 90), ("90s", 90), ("30m", 1_800), ("1h30m", 5_400), ("2d", 172_800), ("0.5h", 1_800), ("1h 30m", 5_400)],
)
def test_a_duration_is_read(text: str, wanted: float) -> None:
    assert seconds(text) == wanted


@pytest.mark.parametrize("text", ["", "0", "0m", "soon", "-5m", "5 weeks", "1e3", "nan", "m"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="30m"):
        seconds(text)


@pytest.mark.parametrize(
    ("total", "wanted"),
    [(0.04, "0.0 s"), (-1, "0.0 s"), (9.94, "9.9 s"), (42, "42 s"), (240, "4 min"), (3_600, "1 h"),
     (4_320, "1 h 12 min"), (172_800, "2 d"), (273_600, "3 d 4 h")],
)  # fmt: skip
def test_a_duration_is_written_in_the_units_that_matter(total: float, wanted: str) -> None:
    assert lasting(total) == wanted


def test_age_is_counted_from_any_offset() -> None:
    now = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
    assert age("2026-01-01T11:56:00Z", now) == "4 min"
    assert age("2026-01-01T12:56:00+01:00", now) == "4 min"
    assert age("", now) == age("never", now) == ""


@pytest.mark.parametrize(
    ("count", "wanted"), [(0, "0 B"), (999, "999 B"), (5_240_000, "5.2 MB"), (4e9, "4.0 GB"), (5e12, "5.0 TB")]
)
def test_a_size_is_written_short(count: float, wanted: str) -> None:
    assert size(count) == wanted
