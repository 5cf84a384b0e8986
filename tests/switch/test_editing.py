"""Providers by the API: the file stays a person's file, a key stays a secret, and nothing wrong is ever written."""

from __future__ import annotations

import errno
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.switch.configured import editing
from actors.switch.configured.editing import remove_provider, set_provider
from actors.switch.configured.providers import LINES, load
from bus import redaction
from bus.settings import Settings
from bus.users import write_secret
from schemas.errors import Failure
from schemas.switch import SetProvider
from tests.switch.scripted import says
from tests.switch.staging import stage

LINES_OF = {"url": "http://127.0.0.1:11434/v1", "model": "llama3.2"}
WRITTEN = """\
# my models

[first]     # the good one
url = "http://10.0.0.1/v1"   # in the cellar
model = "m"
# de momento, mañana más
context = 8_192

[budgets.day]
tokens = 5_000
"""
SECRET = "sk-canary-0123456789"


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", {})


def put(home: Path, name: str = "second", key: str | None = None, **lines: Any) -> str:
    """The file after that."""
    set_provider(Settings(home, {"OPENAI_API_KEY": "sk-openai"}), name, LINES_OF | lines, key)
    return (home / "providers.toml").read_text()


def refused(home: Path, name: str = "second", key: str | None = None, **lines: Any) -> Failure:
    """Why; nothing has changed by it."""
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    with pytest.raises(Failure) as failed:
        put(home, name, key, **lines)
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before
    return failed.value


def test_the_first_provider_makes_the_file(tmp_path: Path) -> None:
    assert put(tmp_path) == '[second]\nurl = "http://127.0.0.1:11434/v1"\nmodel = "llama3.2"\n'
    assert stat.S_IMODE((tmp_path / "providers.toml").stat().st_mode) == 0o600


def test_another_one_comes_last_and_what_people_wrote_stays(tmp_path: Path) -> None:
    (tmp_path / "providers.toml").write_text(WRITTEN)
    assert put(tmp_path).startswith(WRITTEN)
    found = load(Settings(tmp_path))
    assert [one.name for one in found.providers] == ["first", "second"]
    assert (found.faults, found.budgets) == ((), {"day": {"tokens": 5_000}})


def test_of_a_table_that_is_changed_the_comments_stay_too(tmp_path: Path) -> None:
    (tmp_path / "providers.toml").write_text(WRITTEN)
    made = put(tmp_path, "first", url="http://10.0.0.1/v1", model="other", tools=False)
    for comment in ("# my models", "# the good one", "# in the cellar", "# de momento, mañana más"):
        assert comment in made
    assert tomllib.loads(made)["first"] == {"url": "http://10.0.0.1/v1", "model": "other", "tools": False}


def test_the_same_again_changes_nothing(tmp_path: Path) -> None:
    once = put(tmp_path, models={"gpt/4": {"price_in": 2.5}}, key=SECRET)
    assert put(tmp_path, models={"gpt/4": {"price_in": 2.5}}, key=SECRET) == once


def test_models_with_lines_of_their_own_are_written_and_read(tmp_path: Path) -> None:
    put(tmp_path, models=["a", "b"])
    put(tmp_path, context=9_000, models={"gpt/4": {"price_in": 2.5}, "x": {}}, prefill=True)
    (provider,) = load(Settings(tmp_path)).providers
    assert provider.traits("gpt/4").price_in == 2.5
    assert (provider.all_models, provider.traits("x").context) == (("llama3.2", "gpt/4", "x"), 9_000)


ODD = [
    'first.url = "http://a/v1"\nfirst.model = "m"\n[other]\nurl = "http://b/v1"\nmodel = "m"\n',
    'first = { url = "http://a/v1", model = "m" } # one line\n',
    '[first.models.x]\ncontext = 300\n[other]\nurl = "http://b/v1"\nmodel = "m"\n[first]\nurl = "http://a/v1"\nmodel = "m"\n',
    '[first]\r\nurl = "http://a/v1"\r\nmodel = "m"\r\n',
    '["first"]\nurl = \'http://a/v1\'\nmodel = """m"""\n[first.models."x/y"]\ntools = false\n',
]


@pytest.mark.parametrize("text", ODD, ids=["dotted", "inline", "scattered", "windows", "quoted"])
@pytest.mark.parametrize(
    "more", [{"context": 500}, {"models": {"x": {"context": 900}, "y": {}}, "tools": True}, {"models": ["a"]}]
)
def test_however_a_table_is_written_exactly_what_was_sent_stands_there_afterwards(
    tmp_path: Path, text: str, more: dict[str, Any]
) -> None:
    (tmp_path / "providers.toml").write_text(text)
    others = {name: table for name, table in tomllib.loads(text).items() if name != "first"}
    made = put(tmp_path, "first", **more)
    assert tomllib.loads(made) == others | {"first": LINES_OF | more}
    remove_provider(Settings(tmp_path), "first")
    assert tomllib.loads((tmp_path / "providers.toml").read_text()) == others


def test_a_key_goes_into_a_file_that_nobody_else_can_read(tmp_path: Path) -> None:
    assert SECRET not in put(tmp_path, key=SECRET)
    file = tmp_path / "keys" / "second.key"
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == (f"{SECRET}\n", 0o600)
    assert [one.key for one in load(Settings(tmp_path)).providers] == [SECRET]


def test_a_key_stays_as_long_as_the_provider_stays_at_its_place(tmp_path: Path) -> None:
    """Or else whoever may change a url could have the key sent to himself."""
    put(tmp_path, key=SECRET)
    put(tmp_path, model="other")
    assert [one.key for one in load(Settings(tmp_path)).providers] == [SECRET]
    for url in ("http://evil.example.org/v1", "http://127.0.0.1:1/v1", "https://127.0.0.1:11434/v1"):
        assert "was given for another url" in refused(tmp_path, url=url).message
    put(tmp_path, url="http://127.0.0.1:1/v1", key="sk-another-0123456789")
    assert [one.key for one in load(Settings(tmp_path)).providers] == ["sk-another-0123456789"]


def test_an_empty_key_takes_it_away_with_its_file(tmp_path: Path) -> None:
    put(tmp_path, key=SECRET)
    assert "key" not in put(tmp_path, key="")
    assert not (tmp_path / "keys" / "second.key").exists()


def test_a_variable_takes_the_place_of_the_stored_key(tmp_path: Path) -> None:
    put(tmp_path, key=SECRET)
    assert 'key_env = "OPENAI_API_KEY"' in put(tmp_path, url="https://api.openai.com/v1", key_env="OPENAI_API_KEY")
    assert not (tmp_path / "keys" / "second.key").exists()


def test_a_variable_goes_only_where_somebody_at_this_machine_has_sent_it(tmp_path: Path) -> None:
    """Or else whoever may describe a provider could have every key of the environment sent to himself."""
    for url in ("http://evil.example.org/v1", "http://api.openai.com/v1", "https://api.openai.com:8443/v1"):
        assert "is written by hand only" in refused(tmp_path, url=url, key_env="OPENAI_API_KEY").message
    by_hand = '[second]\nurl = "https://llm.example.org/v1"\nmodel = "m"\nkey_env = "OPENAI_API_KEY"\n'
    (tmp_path / "providers.toml").write_text(by_hand)
    assert "context = 900" in put(tmp_path, url="https://llm.example.org/v1", key_env="OPENAI_API_KEY", context=900)
    assert "is written by hand only" in refused(tmp_path, key_env="OPENAI_API_KEY").message


@pytest.mark.parametrize("before", [SECRET, None])
def test_a_key_that_was_sent_is_dropped_when_its_lines_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    """Or else the key of the new url would be sent to the old one."""
    put(tmp_path, key=before)

    def full(path: Path, text: str) -> None:
        if path.name == "providers.toml":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_secret(path, text)

    monkeypatch.setattr(editing, "write_secret", full)
    assert refused(tmp_path, url="http://127.0.0.1:1/v1", key="sk-another-0123456789").code == "storage_full"


def test_a_key_file_that_a_person_named_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "mine.key").touch(mode=0o600)
    (tmp_path / "mine.key").write_text("sk-mine")
    (tmp_path / "providers.toml").write_text('[second]\nurl = "http://127.0.0.1:11434/v1"\nmodel = "m"\nkey_file = "mine.key"\n')
    put(tmp_path)
    assert [one.key for one in load(Settings(tmp_path)).providers] == ["sk-mine"]
    remove_provider(Settings(tmp_path), "second")
    assert (tmp_path / "mine.key").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": "Big One"}, "is no name for a provider"),
        ({"name": "budgets"}, "is no name for a provider"),
        ({"name": "env"}, "is no name for a provider"),
        ({"url": "http://169.254.169.254/v1"}, "link-local"),
        ({"url": "file:///etc/passwd"}, "must begin with http"),
        ({"modle": "x"}, "unknown line modle; did you mean model"),
        ({"price_in": "cheap"}, "price_in must be a number"),
        ({"key_file": "switch/switch.key"}, "key_file is written by hand only"),
        ({"api_key": SECRET}, "a key does not belong into this file"),
        ({"key": "two words"}, "has blanks"),
        ({"key": SECRET, "key_env": "OPENAI_API_KEY"}, "has key_env and a key; send one"),
        ({"key_env": "PATH"}, "which does not reach actors"),
        ({"key_env": "OPENAI_OTHER"}, "was not set when VX11 started"),
        ({"models": {"m": None}}, "the model m: is no table"),
        ({"context": 10**30}, "context must be a whole number"),
        ({"models": [f"{n:0199}" for n in range(200)], "languages": ["en"] * 50}, ""),
    ],
)
def test_what_could_not_be_loaded_is_not_written(tmp_path: Path, given: dict[str, Any], told: str) -> None:
    (tmp_path / "providers.toml").write_text(WRITTEN + ("# " + "x" * 30_000 + "\n") * 1)
    failure = refused(tmp_path, **given)
    assert failure.code == "invalid"
    assert told in failure.message
    assert SECRET not in failure.message


@pytest.mark.parametrize("text", ["[first\n", "first = {", "\ufeff[x]\n"])
def test_a_file_that_is_no_toml_is_left_to_its_owner(tmp_path: Path, text: str) -> None:
    (tmp_path / "providers.toml").write_text(text)
    failure = refused(tmp_path)
    assert (failure.code, "mend that first" in failure.message) == ("conflict", True)


def test_what_an_editor_writes_at_this_moment_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from actors.switch.configured import editing

    (tmp_path / "providers.toml").write_text(WRITTEN)
    real = editing._changed

    def slow(*given: Any) -> str:
        (tmp_path / "providers.toml").write_text(WRITTEN + "# more\n")
        return real(*given)

    monkeypatch.setattr(editing, "_changed", slow)
    with pytest.raises(Failure, match="changed by somebody else"):
        put(tmp_path)
    assert (tmp_path / "providers.toml").read_text() == WRITTEN + "# more\n"


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.toml").write_text(WRITTEN)
    (tmp_path / "providers.toml").symlink_to("real.toml")
    put(tmp_path)
    assert (tmp_path / "providers.toml").is_symlink()
    assert "[second]" in (tmp_path / "real.toml").read_text()


def test_removing_takes_the_table_and_its_key_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "providers.toml").write_text(WRITTEN)
    put(tmp_path, key=SECRET)
    remove_provider(Settings(tmp_path), "second")
    assert (tmp_path / "providers.toml").read_text().strip() == WRITTEN.strip()
    assert not (tmp_path / "keys" / "second.key").exists()


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("frist", "not_found", "did you mean first?"),
        ("env", "invalid", "unset those"),
        ("budgets", "invalid", "is no provider of the file"),
        ("local", "invalid", "is no provider of the file"),
    ],
)
def test_what_cannot_be_removed_is_told(tmp_path: Path, name: str, code: str, told: str) -> None:
    (tmp_path / "providers.toml").write_text(WRITTEN)
    with pytest.raises(Failure) as failed:
        remove_provider(Settings(tmp_path), name)
    assert (failed.value.code, told in failed.value.message) == (code, True)
    assert (tmp_path / "providers.toml").read_text() == WRITTEN


def test_a_key_is_hidden_wherever_the_request_is_kept() -> None:
    request = SetProvider(name="a", lines=LINES_OF, key=SECRET)
    assert SECRET not in repr(request)


async def test_what_was_written_is_asked_at_once(tmp_path: Path) -> None:
    async with stage(tmp_path, says("Hi")) as on:
        url = on.servers[0].url
        (tmp_path / "providers.toml").unlink()
        settings = on.board.settings
        set_provider(settings, "fresh", {"url": url, "model": "m", "context": 4_096}, SECRET)
        told = on.board.configured("fresh")
        assert (told.configured, told.models) == (True, ["m"])
        assert (await on.reply()).provider == "fresh"
        assert on.servers[0].asked[0].headers["authorization"] == f"Bearer {SECRET}"
        remove_provider(settings, "fresh")
        assert (await on.failure()).code == "unavailable"


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from([*LINES, "x"]), VALUE, max_size=5), st.sampled_from(["first", "a", "b c", ""]))
def test_whatever_is_sent_the_file_is_good_or_unchanged(tmp_path_factory: Any, lines: dict[str, Any], name: str) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / "providers.toml").write_text(WRITTEN)
    try:
        set_provider(Settings(home), name, LINES_OF | lines, None)
    except Failure:
        assert (home / "providers.toml").read_text() == WRITTEN
    found = load(Settings(home))
    assert found.faults == ()
    assert "first" in [one.name for one in found.providers]
    assert found.budgets == {"day": {"tokens": 5_000}}
