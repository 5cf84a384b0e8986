"""What the source gives away: planted secrets and stubs are found, and there are none of our own."""

from __future__ import annotations

import secrets as randomness

import pytest

from gateway.cli import scan

KEY = "S" + "UA" + "B" * 55
OURS = f"vx11_{randomness.token_hex(4)}_" + "A" * 43


def plant(root, text: str, name: str = "x.py") -> None:
    folder = root / "actors"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)


@pytest.mark.parametrize(
    "line",
    [
        f"seed = {KEY}",
        f"# {OURS}",
        "-----BEGIN RSA PRIVATE " + "KEY-----",
        "use " + "sk-" + "a1" * 20,
        "AKIA" + "A1B2C3D4E5F6G7H8",
        "gh" + "p_" + "a" * 36,
        "redis://:" + "hunter22@localhost/0",
        'API_KEY = "' + "a1b2c3d4e5f6a7b8" + '"',
        '"token": "' + "0123456789abcdef0123" + '"',
    ],
)
def test_a_secret_is_found_and_not_repeated(tmp_path, line) -> None:
    plant(tmp_path, f"first\n{line}\n")
    found = scan.secrets(tmp_path)
    assert found
    assert found[0].startswith("actors/x.py:2: ")
    assert line not in found[0]


@pytest.mark.parametrize(
    "line",
    [
        'TOKEN = settings.get("VX11_TOKEN")',
        'token: str = ""',
        'TOKEN_HEADER = "X-VX11-Token"',
        "redis://:{password}@127.0.0.1",
        'url = "http://user@host"',
        'secret = "change me please now"',
    ],
)
def test_what_only_talks_of_secrets_is_not_one(tmp_path, line) -> None:
    plant(tmp_path, line)
    assert scan.secrets(tmp_path) == []


STUBS = """
class Real:
    def nothing(self): pass
    async def later(self):
        '''One day.'''
    def refuses(self):
        raise NotImplementedError("soon")
    def inner(self):
        def hidden(): ...
        return hidden
"""
NOT_STUBS = """
import abc
from typing import Protocol, overload
class Shape(Protocol):
    def area(self) -> float: ...
class Base(abc.ABC):
    @abc.abstractmethod
    def must(self): ...
@overload
def f(x: int) -> int: ...
def f(x): return x
class Empty(Exception):
    pass
def works():
    raise ValueError("no")
"""


def test_functions_that_only_pretend_are_found(tmp_path) -> None:
    plant(tmp_path, STUBS)
    assert [one.rsplit(" ", 1)[1] for one in scan.stubs(tmp_path)] == ["nothing", "later", "refuses", "hidden"]


def test_promises_that_are_kept_elsewhere_are_no_stubs(tmp_path) -> None:
    plant(tmp_path, NOT_STUBS)
    assert scan.stubs(tmp_path) == []


def test_our_own_source_has_neither() -> None:
    assert len(scan.files()) > 50
    assert scan.secrets() == []
    assert scan.stubs() == []
