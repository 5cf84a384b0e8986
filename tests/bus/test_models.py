"""The models folder: what is listed, which one answers, what it is called."""

from __future__ import annotations

import pytest

from bus import models
from bus.settings import Settings
from schemas.errors import Failure
from tests.gguf import write

MIB = models.MIB


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path)


@pytest.fixture
def folder(settings):
    folder = models.folder(settings)
    folder.mkdir()
    return folder


@pytest.fixture
def room(monkeypatch):
    """The memory that is free."""

    def free(megabytes: int) -> None:
        monkeypatch.setattr(models, "free_memory", lambda: megabytes * MIB)

    return free


def names(settings) -> list[str]:
    return [model.name for model in models.listed(settings)]


def test_a_home_without_a_folder_has_no_models(settings):
    assert models.listed(settings) == []
    assert models.default(settings, []) is None


def test_the_folder_may_be_elsewhere(tmp_path):
    settings = Settings(tmp_path / "home", {"VX11_MODELS_DIR": str(tmp_path / "shared")})
    write(tmp_path / "shared", "one")
    assert names(settings) == ["one"]
    assert models.house(settings) == tmp_path / "home" / "models"


def test_the_largest_that_fits_into_half_of_the_free_memory_answers(settings, folder, room):
    """The other half is for everything else that this machine does."""
    write(folder, "small", size=MIB)
    write(folder, "middle", size=400 * MIB)
    write(folder, "large", size=4_000 * MIB)
    for megabytes, name in ((100_000, "large"), (2_000, "middle"), (700, "small"), (10, "small")):
        room(megabytes)
        assert models.default(settings, models.listed(settings)).name == name


def test_the_chosen_one_answers_for_as_long_as_it_is_there(settings, folder, room):
    room(100_000)
    write(folder, "small", size=MIB)
    write(folder, "large", size=10 * MIB)
    models.choose(settings, "small")
    assert models.default(settings, models.listed(settings)).name == "small"
    (folder / "small.gguf").unlink()
    assert models.default(settings, models.listed(settings)).name == "large"
    models.choose(settings, "")
    assert models.chosen(settings) == ""


def test_a_broken_file_is_listed_with_its_fault_and_never_answers(settings, folder):
    (folder / "broken.gguf").write_bytes(b"no model")
    write(folder, "sound")
    assert [(model.name, bool(model.fault)) for model in models.listed(settings)] == [("broken", True), ("sound", False)]
    assert models.default(settings, models.listed(settings)).name == "sound"
    with pytest.raises(Failure, match=r"broken.gguf is no GGUF file"):
        models.find(settings, "broken")
    with pytest.raises(Failure, match="there: broken, sound"):
        models.find(settings, "other")


@pytest.mark.parametrize(
    "more", [{"general__architecture": "nomic-bert"}, {"general__type": "mmproj"}, {"general__type": "adapter"}]
)
def test_what_does_not_converse_is_no_model_to_chat_with(settings, folder, more):
    write(folder, "one", **more)
    (model,) = models.listed(settings)
    assert "holds no model that converses" in model.fault


def test_a_model_in_several_files_is_one(settings, folder):
    for part in (1, 2, 3):
        write(folder, f"big-0000{part}-of-00003", size=MIB)
    (model,) = models.listed(settings)
    assert (model.name, model.bytes, model.fault) == ("big", 3 * MIB, "")
    (folder / "big-00002-of-00003.gguf").unlink()
    (model,) = models.listed(settings)
    assert "cannot be read" in model.fault


def test_a_link_that_leads_nowhere_is_told(settings, folder):
    (folder / "gone.gguf").symlink_to(folder / "nothing")
    (model,) = models.listed(settings)
    assert "cannot be read" in model.fault


def test_a_name_can_be_asked_for_whatever_the_file_is_called(settings, folder):
    """A model's name stands in URLs, in JSON and in `provider/model`."""
    write(folder, "My Model (1) ñ")
    write(folder, "…")
    assert names(settings) == ["My-Model-1-", "model"]


def test_two_files_of_one_name_are_none(settings, folder):
    write(folder, "a b")
    write(folder, "a-b")
    assert {model.fault for model in models.listed(settings)} == {models.SAME_NAME}
    with pytest.raises(Failure, match=models.SAME_NAME):
        models.find(settings, "a-b")


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ({"general__languages": ["en"]}, "offline model, 15M, English"),
        ({"general__languages": ["en", "es"]}, "offline model, 15M, English and Spanish"),
        ({"general__languages": ["en", "es", "fr"]}, "offline model, 15M, multilingual"),
        ({"general__languages": ["xx"]}, "offline model, 15M, xx"),
        ({}, "offline model, 15M"),
        ({"general__name": "none"}, "offline model"),
    ],
)
def test_the_note_says_what_to_expect(settings, folder, more, note):
    write(folder, "one", **more)
    (model,) = models.listed(settings)
    assert model.note == note


def test_the_context_is_bounded_by_the_model_and_by_the_setting(tmp_path):
    write(tmp_path / "models", "one", llama__context_length=8_192)
    for told, tokens in (("", models.CONTEXT), ("1000", 1_000), ("100000", 8_192), ("1", models.CONTEXT_MIN)):
        settings = Settings(tmp_path, {"VX11_MODEL_CONTEXT": told})
        assert models.find(settings, "one").context(settings) == tokens
    with pytest.raises(ValueError, match="VX11_MODEL_CONTEXT"):
        models.find(settings, "one").context(Settings(tmp_path, {"VX11_MODEL_CONTEXT": "much"}))


def test_a_small_model_is_not_let_talk_for_long(tmp_path):
    """It does not always know when it has said all, and a person would wait twenty seconds for nothing."""
    small, large = (models.Model("m", tmp_path / "m.gguf", size) for size in (98_000_000, 4_000_000_000))
    assert small.answer < large.answer


def test_what_is_watched_changes_when_a_model_comes_goes_or_is_chosen(settings, folder):
    def stamps() -> list[int]:
        return [path.stat().st_mtime_ns for path in models.watched(settings)]

    seen = [stamps()]
    for change in (
        lambda: write(folder, "one"),
        lambda: (folder / "one.gguf").write_bytes(b"it grows"),
        lambda: models.choose(settings, "one"),
        (folder / "one.gguf").unlink,
    ):
        change()
        seen.append(stamps())
    assert len({tuple(one) for one in seen}) == len(seen)


def test_this_machine_has_free_memory():
    assert 10 * MIB < models.free_memory() < 2**50
