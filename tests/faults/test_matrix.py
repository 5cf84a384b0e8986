"""Each fault of the matrix is shown by tests that exist, and each test of faults is in it."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.faults.matrix import FAULTS

ROOT = Path(__file__).parent.parent.parent
OWN = {"test_chaos.py", "test_promise.py", "test_matrix.py"}
"""Tests of the tools, not of faults."""


def named_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {f"{path.relative_to(ROOT)}::{node.name}" for node in functions if node.name.startswith("test_")}


def test_every_test_that_the_matrix_names_exists() -> None:
    named = {name for names in FAULTS.values() for name in names}
    assert named - {found for name in named for found in named_in(ROOT / name.partition("::")[0])} == set()


def test_every_test_of_faults_is_in_the_matrix() -> None:
    files = (path for path in Path(__file__).parent.glob("test_*.py") if path.name not in OWN)
    here = {name for path in files for name in named_in(path)}
    assert here - {name for names in FAULTS.values() for name in names} == set()
