"""Reading the configuration: what is right is used, what is wrong is said."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from actors.switch.configured.providers import Configuration, load, stamp
from actors.switch.configured.traits import UNKNOWN, Traits
from bus import redaction
from bus.settings import Settings

OLLAMA = '[ollama]\nurl = "http://127.0.0.1:11434/v1"\nmodel = "llama3.2"\n'


def configured(home: Path, text: str = "", **variables: str) -> Configuration:
    if text:
        (home / "providers.toml").write_text(text)
    return load(Settings(home, variables))


def fault(home: Path, text: str = "", **variables: str) -> str:
    """The one fault of a configuration that has no usable provider."""
    found = configured(home, text, **variables)
    assert not found.providers
    (only,) = found.faults
    return only.message


def test_nothing_configured_is_no_fault(tmp_path: Path) -> None:
    found = configured(tmp_path)
    assert (found.providers, found.faults) == ((), ())


def test_three_variables_make_a_provider(tmp_path: Path) -> None:
    found = configured(tmp_path, VX11_LLM_URL="https://llm.example.org/v1/", VX11_LLM_MODEL="big", VX11_LLM_KEY="sk-1")
    (provider,) = found.providers
    assert (provider.name, provider.url, provider.model) == ("env", "https://llm.example.org/v1", "big")
    assert (provider.key, provider.key_source) == ("sk-1", "VX11_LLM_KEY")


def test_a_provider_without_a_key_needs_none(tmp_path: Path) -> None:
    (provider,) = configured(tmp_path, VX11_LLM_URL="http://127.0.0.1:1/v1", VX11_LLM_MODEL="m").providers
    assert provider.key == ""


def test_the_order_is_environment_first_then_the_file_from_top_to_bottom(tmp_path: Path) -> None:
    text = OLLAMA + '[a-later]\nurl = "http://10.0.0.1/v1"\nmodel = "m"\n'
    found = configured(tmp_path, text, VX11_LLM_URL="http://127.0.0.1:1/v1", VX11_LLM_MODEL="m")
    assert [provider.name for provider in found.providers] == ["env", "ollama", "a-later"]


def test_a_table_says_everything_about_a_provider(tmp_path: Path) -> None:
    text = (
        '[deepseek]\nurl = "https://api.deepseek.com/v1"\nmodel = "deepseek-chat"\n'
        'models = ["deepseek-reasoner", "deepseek-chat"]\nkey_env = "DEEPSEEK_API_KEY"\nask_usage = false\n'
    )
    (provider,) = configured(tmp_path, text, DEEPSEEK_API_KEY="sk-d").providers
    assert provider.all_models == ("deepseek-chat", "deepseek-reasoner")
    assert (provider.key, provider.key_source, provider.ask_usage) == ("sk-d", "DEEPSEEK_API_KEY", False)


def test_what_a_model_is_good_for_is_declared_for_all_and_for_each(tmp_path: Path) -> None:
    text = (
        '[cloud]\nurl = "https://llm.example.org/v1"\nmodel = "big"\ncontext = 128_000\nlanguages = ["en", "es"]\n'
        "json = false\nprefill = true\nprice_in = 2\nprice_out = 10.5\n"
        '[cloud.models."mini/small"]\nprice_in = 0.1\ntools = false\n[cloud.models."big"]\njson = true\n'
    )
    (provider,) = configured(tmp_path, text).providers
    all_of_them = Traits(128_000, ("en", "es"), json=False, price_in=2.0, price_out=10.5, prefill=True)
    assert provider.all_models == ("big", "mini/small")
    assert provider.traits("mini/small") == replace(all_of_them, price_in=0.1, tools=False)
    assert provider.traits("big") == replace(all_of_them, json=True)
    assert provider.traits("never-named") == all_of_them


def test_of_what_is_not_declared_nothing_is_known(tmp_path: Path) -> None:
    (provider,) = configured(tmp_path, OLLAMA).providers
    assert provider.traits("llama3.2") == UNKNOWN


def test_the_table_of_budgets_is_no_provider_and_is_left_to_its_reader(tmp_path: Path) -> None:
    found = configured(tmp_path, OLLAMA + "[budgets.day]\ntokens = 5_000\n")
    assert [provider.name for provider in found.providers] == ["ollama"]
    assert (found.faults, found.budgets) == ((), {"day": {"tokens": 5_000}})


def test_a_key_is_not_shown_when_the_provider_is_printed(tmp_path: Path) -> None:
    found = configured(tmp_path, VX11_LLM_URL="http://127.0.0.1:1/v1", VX11_LLM_MODEL="m", VX11_LLM_KEY="sk-canary")
    assert "sk-canary" not in repr(found)


def test_a_key_is_hidden_in_what_a_provider_says_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal mostly repeats the key; from there it would be in the log, the records and the events."""
    monkeypatch.setattr(redaction, "_known", {})
    configured(tmp_path, VX11_LLM_URL="https://llm.example.org/v1", VX11_LLM_MODEL="big", VX11_LLM_KEY="no-form-at-all-1")
    assert redaction.redacted("wrong: no-form-at-all-1") == "wrong: ***"


def test_a_key_file_of_the_owner_alone_is_read(tmp_path: Path) -> None:
    key = tmp_path / "my.key"
    key.write_text("sk-file\n")
    key.chmod(0o600)
    found = configured(tmp_path, OLLAMA + 'key_file = "my.key"\n')
    assert [provider.key for provider in found.providers] == ["sk-file"]
    assert key in found.files


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_file_that_is_open_to_others_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    key = tmp_path / "my.key"
    key.write_text("sk-file\n")
    key.chmod(mode)
    assert f"chmod 600 {key}" in fault(tmp_path, OLLAMA + 'key_file = "my.key"\n')


def test_a_pipe_as_a_key_file_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "my.key", 0o600)
    assert "is no file" in fault(tmp_path, OLLAMA + 'key_file = "my.key"\n')


def test_a_key_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "my.key"
    key.write_text("x" * 5_000)
    key.chmod(0o600)
    assert "more than 4096 bytes" in fault(tmp_path, OLLAMA + 'key_file = "my.key"\n')


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('key_file = "gone.key"', "cannot be read: No such file"),
        ('key_env = "OPENAI_API_KEY"', "OPENAI_API_KEY, which was not set when VX11 started"),
        ('key_env = "MY_KEY"', "rename it to VX11_MY_KEY, or use key_file"),
        ('key_env = "VX11_A"\nkey_file = "b"', "has key_env and key_file; keep one"),
        ('key = "sk-secret"', "a key does not belong into this file; use key_env or key_file"),
        ('api_key = "sk-secret"', "a key does not belong into this file"),
        ('modle = "x"', "unknown line modle; did you mean model"),
        ("colour = 3", "unknown line colour; known are url, model"),
        ("models = 3", "models must be a list"),
        ("models = [3]", "models must name a model"),
        ('models = ["two words"]', "models must name a model"),
        ('ask_usage = "yes"', "ask_usage must be true or false"),
        ("key_env = 3", "key_env is no text"),
        ("[ollama.inner]\nx = 1", "has a table inner inside"),
        ("context = 0", "context must be a whole number from 256 to"),
        ("context = true", "context must be a whole number"),
        ("context = 8e3", "context must be a whole number"),
        ('languages = "en"', 'languages must be a list; write languages = ["en", "es"]'),
        ('languages = ["English"]', "languages names 'English', which is no code of two or three letters"),
        ('tools = "no"', "tools must be true or false"),
        ("price_in = -1", "price_in must be a number from 0 to"),
        ("price_out = nan", "price_out must be a number from 0 to"),
        ("price_out = true", "price_out must be a number"),
        ("contxt = 8", "unknown line contxt; did you mean context?"),
        ("offline = true", "unknown line offline"),
        ('models = "one"', 'models must be a list; write models = ["one", "another"], or a table [name.models."one"]'),
        ("[ollama.models]\none = 1", "the model one: is no table"),
        ('[ollama.models."one"]\nprice = 1', "the model one: unknown line price; did you mean price_in?"),
        ('[ollama.models."one"]\nprice_in = "1"', "the model one: price_in must be a number"),
        ('[ollama.models."two words"]', "models must name a model"),
        (f"models = {[str(n) for n in range(201)]}", "models has more than 200 names"),
    ],
)
def test_a_wrong_line_is_named_with_what_to_write(tmp_path: Path, line: str, told: str) -> None:
    message = fault(tmp_path, OLLAMA + line + "\n")
    assert told in message
    assert f"{tmp_path / 'providers.toml'}, [ollama]" in message
    assert "sk-secret" not in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[a]\nmodel = "m"\n', "url is missing; for instance"),
        ('[a]\nurl = "http://127.0.0.1/v1"\n', "model is missing; for instance"),
        ('[a]\nurl = 3\nmodel = "m"\n', "url is no text"),
        ('[a]\nurl = "http://169.254.169.254/v1"\nmodel = "m"\n', "url 169.254.169.254 is a link-local"),
        ('[auto]\nurl = "http://127.0.0.1/v1"\nmodel = "m"\n', "is no name for a provider"),
        ('[local]\nurl = "http://127.0.0.1/v1"\nmodel = "m"\n', "is no name for a provider"),
        ("budgets = 3\n", "[budgets]: is no table"),
        ("[budgets]\ndya = {}\n", "[budgets]: unknown line dya; did you mean day"),
        ('["Big One"]\nurl = "http://127.0.0.1/v1"\nmodel = "m"\n', "is no name for a provider"),
        ('a = "http://127.0.0.1/v1"\n', "is no table; write [name]"),
        ("[a\n", "is no TOML"),
        ("[a]\n[a]\n", "is no TOML"),
        ("#" * 70_000, "has more than 65536 bytes"),
    ],
)
def test_a_wrong_table_is_named_with_what_to_write(tmp_path: Path, text: str, told: str) -> None:
    assert told in fault(tmp_path, text)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "providers.toml").write_bytes(b"\xff\xfe")
    assert "is not UTF-8 text" in fault(tmp_path)


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "providers.toml").mkdir()
    assert "cannot be read" in fault(tmp_path)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"VX11_LLM_MODEL": "m"}, "VX11_LLM_URL is not set"),
        ({"VX11_LLM_KEY": "k"}, "VX11_LLM_URL is not set"),
        ({"VX11_LLM_URL": "http://127.0.0.1:1/v1"}, "VX11_LLM_MODEL is not set"),
        ({"VX11_LLM_URL": "gopher://x", "VX11_LLM_MODEL": "m"}, "VX11_LLM_URL must begin with http"),
        ({"VX11_LLM_URL": "http://h/v1", "VX11_LLM_MODEL": "m", "VX11_LLM_KEY": "a\nb"}, "the key in VX11_LLM_KEY"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path: Path, variables: dict[str, str], told: str) -> None:
    assert told in fault(tmp_path, **variables)


def test_one_wrong_provider_does_not_silence_the_others(tmp_path: Path) -> None:
    found = configured(tmp_path, '[broken]\nmodel = "m"\n' + OLLAMA)
    assert [provider.name for provider in found.providers] == ["ollama"]
    assert [wrong.name for wrong in found.faults] == ["broken"]


def test_a_change_of_any_of_the_files_changes_the_stamp(tmp_path: Path) -> None:
    path = tmp_path / "providers.toml"
    before = stamp((path,))
    path.write_text(OLLAMA)
    written = stamp((path,))
    path.write_text(OLLAMA + "\n")
    assert len({before, written, stamp((path,))}) == 3
    assert stamp((path,)) == stamp((path,))
