"""What is found is offered with the lines that take it; those lines work as they are printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.switch.configured import offers
from actors.switch.configured.offers import Offer
from actors.switch.configured.providers import Provider, load
from bus.settings import Settings

CONFIGURED = Provider("mine", "https://api.openai.com/v1", "m")


def take(offer: Offer, home: Path, **variables: str) -> Provider:
    """Do what the offer says, and give the provider that this makes."""
    _, told, lines = offer.reason.partition(f"append to {home / 'providers.toml'}:\n")
    assert told
    (home / "providers.toml").write_text(lines)
    found = load(Settings(home, variables))
    assert not found.faults
    return found.providers[0]


def test_a_key_in_the_environment_is_offered(tmp_path: Path) -> None:
    settings = Settings(tmp_path, {"OPENAI_API_KEY": "sk-1", "DEEPSEEK_API_KEY": "sk-2"})
    assert [offer.name for offer in offers.keys(settings, [])] == ["openai", "deepseek"]


def test_without_a_key_nothing_is_offered(tmp_path: Path) -> None:
    assert offers.keys(Settings(tmp_path, {}), []) == []


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "DEEPSEEK_API_KEY"])
def test_the_offered_lines_take_the_key_into_use(tmp_path: Path, variable: str) -> None:
    (offer,) = offers.keys(Settings(tmp_path, {variable: "sk-1"}), [])
    provider = take(offer, tmp_path, **{variable: "sk-1"})
    assert (provider.name, provider.url, provider.key) == (offer.name, offer.url, "sk-1")
    assert "sk-1" not in offer.reason


def test_what_is_in_use_is_not_offered_again(tmp_path: Path) -> None:
    settings = Settings(tmp_path, {"OPENAI_API_KEY": "sk-1"})
    assert offers.keys(settings, [CONFIGURED]) == []
    through_a_proxy = Provider("mine", "https://proxy.example.org/v1", "m", key_source="OPENAI_API_KEY")
    assert offers.keys(settings, [through_a_proxy]) == []


def test_the_offered_lines_take_an_ollama_into_use(tmp_path: Path) -> None:
    offer = offers.ollama("http://127.0.0.1:11434/v1", ["qwen3:8b", "llama3.2:latest"], Settings(tmp_path, {}))
    provider = take(offer, tmp_path)
    assert (provider.url, provider.model) == ("http://127.0.0.1:11434/v1", "qwen3:8b")
    assert offer.models == ("qwen3:8b", "llama3.2:latest")


def test_an_ollama_without_models_is_told_what_to_pull(tmp_path: Path) -> None:
    offer = offers.ollama("http://127.0.0.1:11434/v1", [], Settings(tmp_path, {}))
    assert "ollama pull" in offer.reason
    assert offer.observed


def test_the_name_of_a_model_cannot_write_other_lines(tmp_path: Path) -> None:
    """Whatever listens on that port chooses the names, and the user pastes them into a file."""
    evil = 'x"\nurl = "http://evil.example'
    assert offers.ollama("http://127.0.0.1:11434/v1", [evil], Settings(tmp_path, {})).models == ()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434/v1"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000/v1"),
        ("http://localhost:5000", "http://localhost:5000/v1"),
        (":5000", "http://127.0.0.1:5000/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("[::1]:5000", "http://[::1]:5000/v1"),
        ("127.0.0.1:no", "http://127.0.0.1:11434/v1"),
    ],
)
def test_an_ollama_is_looked_for_where_it_is_said_to_listen(tmp_path: Path, host: str, url: str) -> None:
    assert offers.ollama_url(Settings(tmp_path, {"OLLAMA_HOST": host}), []) == url


def test_an_ollama_on_another_machine_is_not_looked_for(tmp_path: Path) -> None:
    """Nothing outside this machine is asked that was not configured."""
    assert offers.ollama_url(Settings(tmp_path, {"OLLAMA_HOST": "10.0.0.7:11434"}), []) is None


def test_an_ollama_that_is_configured_is_not_looked_for(tmp_path: Path) -> None:
    mine = Provider("mine", "http://localhost:11434/v1", "m")
    assert offers.ollama_url(Settings(tmp_path, {}), [mine]) is None
