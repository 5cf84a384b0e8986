"""The shape of the house: who may import what, how long things may be, what no file may hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("schemas", "bus", "actors", "gateway")

FILE_LINES = 400
FUNCTION_LINES = 60
LONG_FUNCTIONS: dict[str, str] = {}
"""`<file>:<function>` to the reason why it is better whole."""

FORBIDDEN_WORDS = re.compile(
    r"\b(TODO|FIXME|XXX|HACK|WIP|stub|stubs|stubbed|lorem ipsum|not implemented yet)\b|NotImplemented\w*"
)
ALLOWED_WORDS: dict[str, str] = {
    "tests/test_architecture.py": "names the words it looks for",
    "gateway/cli/scan.py": "looks for them, too, for `vx11 doctor --contract`",
    "gateway/cli/contract.py": "names the claim that there are none",
    "tests/cli/test_scan.py": "plants them, to see them found",
    "tests/cli/test_contract.py": "names the claim that there are none",
}
SILENT = re.compile(r"except[^\n]*:\n\s+(pass|\.\.\.)\s*(#[^\n]*)?$", re.MULTILINE)

READERS_OF_THE_ENVIRONMENT: dict[str, str] = {
    "gateway/torture/system.py": "a scratch system is a program of its own and gets the environment that started it",
}
"""Files besides the `__main__`s and the command line that read it, and why."""


def test_the_import_contracts_are_kept():
    """schemas <- bus <- (actors | gateway), and what only bus/ may know: pyproject.toml has the contracts."""
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_is_loaded_from_this_tree(package):
    """Plain names could be shadowed by some installed package."""
    module = import_module(package)
    assert [Path(folder) for folder in module.__path__] == [ROOT / package]


def test_schemas_import_pydantic_and_nothing_else():
    known = sys.stdlib_module_names | {"pydantic", "schemas"}
    assert {(path, name) for path, name in imports("schemas") if name.partition(".")[0] not in known} == set()


def test_the_http_server_is_known_in_the_gateway_only():
    """Actors may be HTTP clients; `aiohttp.web` is a door."""
    assert {(path, name) for path, name in imports("schemas", "bus", "actors") if name.startswith("aiohttp.web")} == set()


def test_the_environment_is_read_at_the_door_only():
    """Below `__main__` and the command line everything is an argument: a test can set it, a reader can find it."""
    readers = {
        str(path)
        for path, tree in trees(*PACKAGES)
        if path.name != "__main__.py" and path.parts[:2] != ("gateway", "cli")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"} and _is_os(node.value)
    }
    assert readers == set(READERS_OF_THE_ENVIRONMENT)
    assert {name for _, name in imports(*PACKAGES)}.isdisjoint({"os.environ", "os.getenv"})


def test_no_file_is_too_long():
    """A long file is a sign that a noun is missing."""
    lines = {str(path): len(text.splitlines()) for path, text in texts(".py", ".js", ".css", ".html")}
    assert {path: count for path, count in lines.items() if count > FILE_LINES} == {}


def test_no_function_is_too_long():
    long = {
        f"{path}:{node.name}"
        for path, tree in trees(*PACKAGES, "tests")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > FUNCTION_LINES
    }
    assert long == set(LONG_FUNCTIONS)


def test_nothing_is_left_for_later():
    """What is not done is an issue, not a note in the code; and no answer is canned."""
    found = {
        f"{path}: {match.group()}"
        for path, text in texts(".py", ".js", ".html", ".md", ".toml", "Makefile")
        for match in FORBIDDEN_WORDS.finditer(text)
        if str(path) not in ALLOWED_WORDS
    }
    assert found == set()


def test_no_error_is_swallowed_without_a_word():
    assert {str(path) for path, text in texts(".py") if SILENT.search(text)} == set()


def test_every_module_says_what_it_is():
    silent = {str(path) for path, tree in trees(*PACKAGES, "tests") if not ast.get_docstring(tree) and path.read_text().strip()}
    assert silent == set()


def test_no_file_name_has_a_version_or_a_date():
    versioned = re.compile(r"(^|[_-])(v\d+|\d{4}|old|legacy|final|copy|tmp|backup)([_.-]|$)")
    assert {str(path) for path, _ in texts(".py") if versioned.search(path.name)} == set()


@pytest.mark.parametrize(
    "text",
    ["# TODO: later", "raise NotImplementedError", "a stub of it", "# FIXME"],
)
def test_the_words_are_found(text):
    assert FORBIDDEN_WORDS.search(text)


def test_a_swallowed_error_is_found():
    assert SILENT.search("try:\n    x()\nexcept OSError:\n    pass\n")


def texts(*endings: str) -> Iterator[tuple[Path, str]]:
    """Our own files, relative to the root, with what is in them."""
    for top in (*PACKAGES, "tests", "deploy", "Makefile", "README.md", "pyproject.toml"):
        found = [ROOT / top] if (ROOT / top).is_file() else sorted((ROOT / top).rglob("*"))
        for path in found:
            if path.is_file() and path.name.endswith(endings) and "__pycache__" not in path.parts:
                yield path.relative_to(ROOT), path.read_text()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), str(path))


def trees(*tops: str) -> Iterator[tuple[Path, ast.Module]]:
    for path, _ in texts(".py"):
        if path.parts[0] in tops:
            yield path, parsed(path)


def imports(*packages: str) -> set[tuple[str, str]]:
    """(file, imported module) of every import statement, also those inside functions."""
    found = set()
    for path, tree in trees(*packages):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {(str(path), alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {(str(path), f"{node.module}.{alias.name}") for alias in node.names}
    return found


def _is_os(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "os"
