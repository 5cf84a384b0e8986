"""`new actor`: what is written works as it is, and its name cannot be in anybody's way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli import new_actor
from schemas.errors import Failure

ROOT = Path(__file__).parents[2]


def python(*words: str, path: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(path), str(ROOT)))}
    return subprocess.run([sys.executable, *words], env=environ, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(autouse=True)
def noticed(remote) -> None:
    card = {"name": "greeter", "summary": ""}
    remote.answers["vx11.madre.get_actor"] = {"status": {"name": "greeter", "state": "dormant"}, "card": card}


@pytest.fixture
def actors(terminal, home) -> Path:
    ran = terminal("new", "actor", "greeter")
    assert ran.code == 0
    return home / "actors"


def test_it_is_an_actor_that_the_host_can_load(actors) -> None:
    code = (
        "from pathlib import Path; from bus.loading import TREE, find_actors, load_actor;"
        f"roots = [TREE, Path({str(actors)!r})];"
        "assert 'greeter' in find_actors(roots); print(sorted(load_actor('greeter', roots).requests))"
    )
    ran = python("-c", code, path=ROOT)
    assert ran.stdout.strip() == "['greet']", ran.stderr


def test_its_test_passes_as_it_was_written(actors) -> None:
    """With pytest as it is typed, from the folder of the project, under the project's own settings."""
    ran = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(actors / "greeter"), path=ROOT)
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr


def test_its_test_can_fail(actors) -> None:
    file = actors / "greeter" / "actor.py"
    file.write_text(file.read_text().replace("{request.name}", "you"))
    ran = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(actors / "greeter"), path=ROOT)
    assert "1 failed" in ran.stdout


@pytest.mark.timeout(180)
def test_the_strictest_type_checker_has_nothing_to_say(actors, tmp_path) -> None:
    words = ("-m", "mypy", "--strict", "--explicit-package-bases", "--follow-imports=silent")
    cache = f"--cache-dir={tmp_path / 'cache'}"
    environ = {**os.environ, "MYPYPATH": os.pathsep.join((str(actors), str(ROOT)))}
    config = f"--config-file={ROOT / 'pyproject.toml'}"
    ran = subprocess.run(
        [sys.executable, *words, cache, config, str(actors / "greeter")],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Success" in ran.stdout, ran.stdout + ran.stderr


def test_it_ends_with_what_to_type_next(terminal) -> None:
    ran = terminal("new", "actor", "greeter")
    assert "vx11 call greeter.greet name=Ana" in ran.err
    assert "actor.py" in ran.err


def test_it_comes_back_once_the_actor_can_be_called(terminal, remote) -> None:
    """`vx11 new actor greeter && vx11 call greeter.greet name=Ana` in one line."""
    looks = iter([Failure("not_found", "not yet"), Failure("unavailable", "not yet")])
    found = remote.answers["vx11.madre.get_actor"]

    def answer(_):
        if failure := next(looks, None):
            raise failure
        return found

    remote.answers["vx11.madre.get_actor"] = answer
    assert "not noticed" not in terminal("new", "actor", "greeter").err
    assert len(remote.asked) == 3


def test_without_a_running_vx11_it_is_written_all_the_same(terminal, remote, monkeypatch) -> None:
    monkeypatch.setattr(new_actor, "NOTICED_S", 0.2)
    remote.answers.clear()
    ran = terminal("new", "actor", "greeter")
    assert ran.code == 0
    assert "not noticed it yet" in ran.err


@pytest.mark.parametrize("name", ["Greeter", "my-actor", "2nd", "class", "events", "hb", "", "../x", "a.b", "x" * 65, "ñu"])
def test_a_name_that_is_no_subject_and_no_package_is_refused(terminal, home, name) -> None:
    assert terminal("new", "actor", name).code == 65
    assert not (home / "actors").exists()


@pytest.mark.parametrize("name", ["json", "pydantic", "schemas", "bus", "madre", "switch"])
def test_a_name_that_something_else_has_is_refused(terminal, home, name) -> None:
    """An actor called json would be the standard library's json, or the end of it."""
    ran = terminal("new", "actor", name)
    assert ran.code == 73
    assert f"vx11 new actor my_{name}" in ran.err
    assert not (home / "actors").exists()


def test_nothing_is_ever_written_over(terminal, actors) -> None:
    file = actors / "greeter" / "actor.py"
    file.write_text("mine")
    assert terminal("new", "actor", "greeter").code == 73
    assert file.read_text() == "mine"


def test_a_second_actor_leaves_the_shared_file_alone(terminal, actors) -> None:
    (actors / "conftest.py").write_text("# mine\n")
    assert terminal("new", "actor", "second").code == 0
    assert (actors / "conftest.py").read_text() == "# mine\n"
