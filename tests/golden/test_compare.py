"""What counts as a difference between two answers, and what a class keeps out of it."""

from __future__ import annotations

from typing import ClassVar

import pytest
from pydantic import Field

from bus.compare import changes, fits, steady
from schemas.message import Message


class Line(Message):
    volatile: ClassVar = ("at",)

    text: str
    at: str = Field(default="", alias="moment")


class Page(Message):
    volatile: ClassVar = ("took_ms",)

    took_ms: float = 0.0
    lines: list[Line] = []
    by_name: dict[str, Line] = {}
    last: Line | None = None


def test_volatile_fields_are_left_out_wherever_their_class_stands():
    line = {"text": "a", "moment": "now"}
    page = {"took_ms": 1.0, "lines": [line], "by_name": {"took_ms": line}, "last": line}
    assert steady(Page, page) == {"lines": [{"text": "a"}], "by_name": {"took_ms": {"text": "a"}}, "last": {"text": "a"}}


def test_an_answer_of_another_time_that_does_not_fit_any_more_loses_at_least_its_own_volatile_fields():
    assert steady(Page, {"took_ms": 1.0, "lines": "none"}) == {"lines": "none"}


@pytest.mark.parametrize(
    ("was", "now", "found"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 1.0}, [{"field": "a", "was": 1, "is": 1.0}]),
        ({"a": True}, {"a": 1}, [{"field": "a", "was": True, "is": 1}]),
        ({"a": None}, {}, [{"field": "a", "was": None}]),
        ({}, {"a": None}, [{"field": "a", "is": None}]),
        ({"a": [1, 2]}, {"a": [1, 3, 4]}, [{"field": "a[1]", "was": 2, "is": 3}, {"field": "a[2]", "is": 4}]),
        ({"a": []}, {"a": [1]}, [{"field": "a", "was": [], "is": [1]}]),
        ({"a": {"b": [{"c": "x"}]}}, {"a": {"b": [{"c": "y"}]}}, [{"field": "a.b[0].c", "was": "x", "is": "y"}]),
        ("x", ["x"], [{"field": "", "was": "x", "is": ["x"]}]),
    ],
)
def test_each_difference_is_named_by_its_field(was, now, found):
    assert changes(was, now) == found


def test_what_was_hidden_then_fits_every_text_and_nothing_else():
    assert fits({"password": "***", "n": [1]}, {"password": "hunter2", "n": [1]})
    assert not fits({"password": "***"}, {"password": 3})
    assert not fits({"password": "***"}, {"password": "x", "n": 1})
