"""Who is asked for what."""

from __future__ import annotations

import pytest

from actors.switch.choice import choices
from actors.switch.providers import Provider
from schemas.errors import Failure

HOME = Provider("home", "http://127.0.0.1:11434/v1", "llama3.2", ("qwen3:8b",))
CLOUD = Provider("cloud", "https://llm.example.org/v1", "big", ("qwen3:8b", "meta/llama"))


def chosen(wanted: str | None, listed: dict[str, list[str]] | None = None) -> list[tuple[str, str]]:
    return [(choice.provider.name, choice.model) for choice in choices([HOME, CLOUD], wanted, listed)]


@pytest.mark.parametrize("wanted", [None, "auto"])
def test_without_a_wish_all_are_asked_in_their_order(wanted: str | None) -> None:
    assert chosen(wanted) == [("home", "llama3.2"), ("cloud", "big")]


def test_a_model_is_asked_of_all_that_have_it() -> None:
    assert chosen("qwen3:8b") == [("home", "qwen3:8b"), ("cloud", "qwen3:8b")]
    assert chosen("big") == [("cloud", "big")]


def test_a_provider_is_asked_for_its_own_model() -> None:
    assert chosen("cloud") == [("cloud", "big")]


def test_a_provider_may_be_asked_for_any_model_by_its_full_name() -> None:
    assert chosen("home/mistral") == [("home", "mistral")]


def test_a_model_with_a_slash_in_its_name_is_a_model() -> None:
    assert chosen("meta/llama") == [("cloud", "meta/llama")]
    assert chosen("cloud/meta/llama") == [("cloud", "meta/llama")]


def test_what_a_provider_has_listed_may_be_asked_for() -> None:
    assert chosen("phi4", {"home": ["phi4"]}) == [("home", "phi4")]


@pytest.mark.parametrize("wanted", ["gpt-9", "nobody/llama3.2", "home/", "/llama3.2", ""])
def test_an_unknown_model_is_not_replaced_by_another(wanted: str) -> None:
    with pytest.raises(Failure, match=r"home/llama3\.2, home/qwen3:8b, cloud/big") as refused:
        chosen(wanted)
    assert refused.value.code == "not_found"


def test_each_choice_says_why() -> None:
    assert choices([HOME], "home", None)[0].reason == "home was asked for"
