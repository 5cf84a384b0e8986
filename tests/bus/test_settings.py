"""What the environment said, once: which home, which variables, which numbers."""

from __future__ import annotations

import os
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from bus.settings import Settings


def test_the_home_is_what_the_variable_says(tmp_path):
    assert Settings.read({"VX11_HOME": str(tmp_path / "x")}, cwd=tmp_path).home == tmp_path / "x"


def test_a_home_without_a_slash_is_below_where_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Settings.read({"VX11_HOME": "mine"}).home == tmp_path / "mine"


def test_else_it_is_the_nearest_folder_above_that_runs(tmp_path):
    """`vx11 status` works from any folder of the project."""
    for folder in (tmp_path, tmp_path / "a" / "b"):
        (folder / "data").mkdir(parents=True)
    (tmp_path / "data" / "run.json").touch()
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir()
    assert Settings.read({}, cwd=deep).home == tmp_path / "data"
    (tmp_path / "a" / "b" / "data" / "run.json").touch()
    assert Settings.read({}, cwd=deep).home == tmp_path / "a" / "b" / "data"


def test_else_it_is_data_right_here(tmp_path):
    assert Settings.read({}, cwd=tmp_path).home == tmp_path / "data"
    assert Settings.read({"VX11_HOME": ""}, cwd=tmp_path).home == tmp_path / "data"


def test_only_variables_that_are_ours_are_kept(tmp_path):
    """They reach every actor, also one that was downloaded; a cloud key of the shell has no business there."""
    environ = {"VX11_GATE_SWITCH": "closed", "OPENAI_API_KEY": "k", "AWS_SECRET_ACCESS_KEY": "s", "PATH": "/bin", "MY_VX11_": "x"}
    assert Settings.read(environ, cwd=tmp_path).variables == {"VX11_GATE_SWITCH": "closed", "OPENAI_API_KEY": "k"}


def test_what_is_set_to_nothing_is_not_set(tmp_path):
    settings = Settings(tmp_path, {"VX11_A": "", "VX11_B": "b"})
    assert [settings.get("VX11_A", "default"), settings.get("VX11_B", "default"), settings.get("VX11_C")] == ["default", "b", ""]
    assert settings.number("VX11_A", 3) == 3


def test_a_number_is_read_and_what_is_none_is_told_with_what_to_write(tmp_path):
    settings = Settings(tmp_path, {"VX11_WAIT": "2.5", "VX11_PORT": "eight"})
    assert settings.number("VX11_WAIT", 1) == 2.5
    assert settings.number("VX11_OTHER", 1) == 1
    with pytest.raises(ValueError, match="VX11_PORT='eight' is no number; write for instance VX11_PORT=4222"):
        settings.number("VX11_PORT", 4222)


def test_actors_of_ones_own_are_in_the_home_or_where_the_path_says(tmp_path):
    assert Settings(tmp_path).actor_paths == [tmp_path / "actors"]
    path = os.pathsep.join(["/one", "", "/two"])
    assert Settings(tmp_path, {"VX11_ACTORS_PATH": path}).actor_paths == [Path("/one"), Path("/two")]


def test_the_files_of_a_home(tmp_path):
    settings = Settings(tmp_path)
    assert settings.run_file == tmp_path / "run.json"
    assert settings.seed_file("madre") == tmp_path / "nats" / "madre.nk"


def test_settings_are_a_value(tmp_path):
    with pytest.raises(FrozenInstanceError):
        Settings(tmp_path).home = tmp_path
