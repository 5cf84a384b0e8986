"""Looking at an actor's source: its card, or what is wrong with it, and where; nothing that an author writes gets past it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bus.examine import blame, examine, watched
from bus.host import CHANGED_SINCE, _stamp
from bus.loading import TREE, load_actor
from bus.settings import Settings

GOOD = """from bus import Actor

actor = Actor({name!r}, summary="waits", idle_after=300)
"""


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    return [TREE, tmp_path]


@pytest.fixture
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Of an actor that no other test has: what is imported stays imported."""
    name = f"waiter_{abs(hash(request.node.nodeid))}"
    file = tmp_path / name / "actor.py"
    file.parent.mkdir()
    file.write_text(GOOD.format(name=name))
    return file


def look(source: Path, roots: list[Path], **variables: str) -> dict:
    return examine(source.parent.name, roots, Settings(source.parent, variables))


def test_a_good_source_makes_a_card(source, roots) -> None:
    card = look(source, roots)["card"]
    assert (card["name"], card["error"], card["idle_after"], card["built_in"]) == (source.parent.name, "", 300, False)


@pytest.mark.parametrize(("text", "seconds"), [("0.5", 0.5), ("", 300)])
def test_one_variable_is_the_idle_time_of_all(source, roots, text, seconds) -> None:
    """So that a test of sleeping need not wait for what was declared."""
    assert look(source, roots, VX11_IDLE_AFTER=text)["card"]["idle_after"] == seconds


@pytest.mark.parametrize(("text", "told"), [("soon", "VX11_IDLE_AFTER='soon' is no number"), ("0", "more than 0")])
def test_a_wrong_idle_time_is_told(source, roots, text, told) -> None:
    assert told in look(source, roots, VX11_IDLE_AFTER=text)["card"]["error"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("def", "SyntaxError: invalid syntax ({0}/actor.py, line 4)"),
        ("1 / 0", "ZeroDivisionError: division by zero ({0}/actor.py, line 4)"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module' ({0}/actor.py, line 4)"),
        ("import json; json.loads('x')", "Expecting value: line 1 column 1 (char 0) ({0}/actor.py, line 4)"),
        ("raise SystemExit(3)", "SystemExit: 3 ({0}/actor.py, line 4)"),
        ("actor = 3", "must declare `actor = Actor("),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(source, roots, line, told) -> None:
    """The line of the author's own file, however deep in a library it was raised."""
    source.write_text(f"{source.read_text()}{line}\n")
    assert told.format(source.parent.name) in look(source, roots)["card"]["error"]


def test_a_mistake_in_a_file_beside_it_is_told_with_that_file(source, roots) -> None:
    name = source.parent.name
    (source.parent / "helper.py").write_text("\n\nx = [1, 2\n")
    source.write_text(f"import {name}.helper\n{source.read_text()}")
    assert f"({name}/helper.py, line 3)" in look(source, roots)["card"]["error"]


def test_all_of_its_folder_is_watched(source, roots) -> None:
    """Also while it is wrong, and the folder itself: what is missing may come."""
    (source.parent / "unused.py").write_text("")
    source.write_text("def")
    assert {str(source), str(source.parent / "unused.py"), str(source.parent)} <= set(look(source, roots)["files"])
    assert watched("nobody", roots) == []


def test_the_version_changes_with_the_source_and_not_with_its_neighbours(source, roots) -> None:
    first = look(source, roots)["card"]["card_version"]
    (source.parent / "notes.py").write_text("x = 1\n")
    assert look(source, roots)["card"]["card_version"] == first
    source.write_text(source.read_text() + "\n# more\n")
    assert look(source, roots)["card"]["card_version"] != first


def test_nothing_compiled_is_left_beside_an_actor_of_ones_own(source, roots) -> None:
    """It is known by second and size: an edit of one word for another as long would not be seen."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = False
    try:
        load_actor(source.parent.name, roots)
        assert not (source.parent / "__pycache__").exists()
        assert sys.dont_write_bytecode is False
    finally:
        sys.dont_write_bytecode = before


def test_what_changed_while_it_was_imported_is_looked_at_again(source, roots) -> None:
    """Which of the two was imported is not known; its own time says that it is up to date."""
    begun = look(source, roots)["begun"]
    os.utime(source, ns=(begun + 1, begun + 1))
    assert _stamp(source, before=begun) == CHANGED_SINCE != _stamp(source)
    os.utime(source, ns=(begun - 10**9, begun - 10**9))
    assert _stamp(source, before=begun) == _stamp(source) == begun - 10**9


def test_a_date_in_the_future_is_no_change(source, roots) -> None:
    """It was looked at again four times a second until that date came: half a core for a clock that had once been wrong."""
    begun = look(source, roots)["begun"]
    future = begun + 3_600 * 10**9
    os.utime(source, ns=(future, future))
    assert _stamp(source, before=begun) == CHANGED_SINCE, "nobody knows when it was written"
    assert _stamp(source, before=begun, known=future - 1) == CHANGED_SINCE
    assert _stamp(source, before=begun, known=future) == future == _stamp(source)


def test_the_cost_of_its_import_is_told(source, roots) -> None:
    source.write_text(f"import time\ntime.sleep(0.05)\n{source.read_text()}")
    found = look(source, roots)
    assert 0.05 <= found["took"] < 5
    assert found["dormant"]


def test_an_error_from_nowhere_has_no_place(roots) -> None:
    assert blame(RuntimeError("lost"), roots) == "RuntimeError: lost"
