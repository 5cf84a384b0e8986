"""Finding and importing actors: built-in ones, the user's own, and what is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bus.actor import Actor
from bus.loading import TREE, as_told, check_told, find_actors, load_actor, roots_of
from bus.settings import Settings
from schemas.errors import Failure

ACTOR = "from bus import Actor\nactor = Actor({name!r}, summary='x', idle_after=60)\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder for actors of one's own; what is imported from it is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, name: str, text: str = "") -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "actor.py").write_text(text or ACTOR.format(name=name))


def test_the_roots_are_the_tree_and_the_users_folders(tmp_path):
    assert roots_of(Settings(tmp_path)) == [TREE, tmp_path / "actors"]


def test_every_folder_with_an_actor_file_is_an_actor(own):
    write(own, "own_one")
    write(own, "bad name")
    (own / "no_actor").mkdir()
    (own / "file").touch()
    found = find_actors([TREE, own, own / "absent"])
    assert "own_one" in found
    assert {"madre", "switch", "operator_backend"} <= set(found)
    assert {"bad name", "no_actor", "file"}.isdisjoint(found)
    assert found == sorted(found)


def test_an_actor_of_ones_own_is_imported_from_its_folder(own):
    write(own, "own_two")
    assert load_actor("own_two", [TREE, own]).name == "own_two"


def test_a_built_in_name_stays_the_built_in_actor(own):
    """A folder called madre in the user's home must not become the control plane."""
    write(own, "madre", "raise SystemExit('a wolf in madre clothing')")
    actor = load_actor("madre", [TREE, own])
    assert Path(actor.requests["chat"].run.__code__.co_filename).is_relative_to(TREE / "actors")


@pytest.mark.parametrize("text", ["x = 1\n", "actor = 'greeter'\n", ACTOR.format(name="somebody_else")])
def test_a_module_that_declares_no_actor_of_its_name_is_told_what_to_write(own, text):
    write(own, "own_three", text)
    with pytest.raises(TypeError, match=r"must declare `actor = Actor\('own_three'"):
        load_actor("own_three", [TREE, own])


def test_what_the_module_raises_is_raised(own):
    write(own, "own_four", "raise RuntimeError('no way')")
    with pytest.raises(RuntimeError, match="no way"):
        load_actor("own_four", [TREE, own])


def test_the_idle_time_of_all_can_be_set_from_outside(own):
    write(own, "own_five")
    roots = [TREE, own]
    assert load_actor("own_five", roots, Settings(own)).idle_after == 60
    assert load_actor("own_five", roots, Settings(own, {"VX11_IDLE_AFTER": "1.5"})).idle_after == 1.5
    assert load_actor("own_five", roots).idle_after == 60, "the declaration is untouched"


@pytest.mark.parametrize("name", ["switch", "operator_backend"])
def test_declaring_an_actor_imports_nothing_heavy(name):
    """Every parked process and every card would pay for it."""
    heavy = ("aiohttp", "faststream", "redis", "numpy", "onnxruntime", "opentelemetry")
    code = f"import sys, actors.{name}.actor; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=TREE, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "1,,2", "1,2,3,4,5,6,7,8,9,10"])
def test_pauses_between_tries_that_are_none_are_refused_before_anything_starts(tmp_path, text):
    with pytest.raises(Failure, match="invalid"):
        check_told(Settings(tmp_path, {"VX11_RETRY_S": text}))


def test_the_operator_may_set_the_pauses_between_tries(tmp_path):
    actor = Actor("own", summary="x")
    assert actor.retries == (1.0, 2.0, 4.0, 30.0)
    assert as_told(actor, Settings(tmp_path, {"VX11_RETRY_S": "0.5, 2"})).retries == (0.5, 2.0)
