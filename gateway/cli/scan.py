"""What the source itself gives away: secrets that stand in it, and functions that only pretend."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("schemas", "bus", "actors", "gateway", "deploy")
TEXT = frozenset({".py", ".toml", ".yaml", ".yml", ".json", ".conf", ".env", ".sh", ".cfg", ".service", ".html", ".js"})
MOST_BYTES = 1_000_000

SECRETS = {
    "an NKey seed": re.compile(r"\bS[UANOCX][A-Z2-7]{56}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a token of ours": re.compile(r"\bvx11_[0-9a-f]{8}_[A-Za-z0-9_-]{43}\b"),
    "a model provider's key": re.compile(r"\bsk-[A-Za-z0-9_-]{20,}\b"),
    "a cloud key": re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    "a GitHub token": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36,}\b"),
    "a password in a URL": re.compile(r"\b[a-z][a-z0-9+.-]*://[^/\s:@\"'{}$]*:[^/\s:@\"'{}$]{4,}@"),
    "an assigned secret": re.compile(
        r"(?i)\b\w*(?:token|secret|password|passwd|api_?key)\w*[\"']?\s*[:=]\s*[\"'](?=[^\"']*\d)[A-Za-z0-9+/_-]{16,}[\"']"
    ),
}


def files(root: Path = ROOT) -> list[Path]:
    """The source files that are looked at."""
    return [
        path
        for folder in FOLDERS
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in TEXT and path.is_file() and path.stat().st_size <= MOST_BYTES
    ]


def secrets(root: Path = ROOT) -> list[str]:
    """`file:line: what`, never the secret itself."""
    found: list[str] = []
    for path in files(root):
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            found += [f"{path.relative_to(root)}:{number}: {what}" for what, form in SECRETS.items() if form.search(line)]
    return found


def stubs(root: Path = ROOT) -> list[str]:
    """`file:line: function` for each function that does nothing, though nothing says that it may."""
    found: list[str] = []
    for path in files(root):
        if path.suffix == ".py":
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
            found += [f"{path.relative_to(root)}:{one.lineno}: {one.name}" for one in _empty(tree, promised=False)]
    return found


Function = ast.FunctionDef | ast.AsyncFunctionDef


def _empty(node: ast.AST, *, promised: bool) -> Iterator[Function]:
    """`promised`: inside a Protocol, whose methods are elsewhere."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _empty(child, promised=_names(child.bases) & {"Protocol"} != set())
            continue
        if isinstance(child, Function) and not promised and _is_stub(child):
            yield child
        yield from _empty(child, promised=promised)


def _is_stub(function: Function) -> bool:
    declared = _names(function.decorator_list) & {"overload", "abstractmethod"}
    return not declared and all(_nothing(statement) for statement in function.body)


def _nothing(statement: ast.stmt) -> bool:
    """pass, ..., a docstring, or raise NotImplementedError."""
    if isinstance(statement, ast.Pass):
        return True
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return True
    return isinstance(statement, ast.Raise) and "NotImplementedError" in _names([statement.exc])


def _names(nodes: list[ast.expr] | list[ast.expr | None]) -> set[str]:
    """The last names of `a.b.Name`, `Name[...]`, `Name(...)`."""
    return {
        part.attr if isinstance(part, ast.Attribute) else part.id
        for node in nodes
        if node is not None
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute | ast.Name)
    }
