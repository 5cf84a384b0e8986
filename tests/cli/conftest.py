"""A command line without a system behind it: what it asks is noted, what it is answered is said by the test."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bus.settings import Settings
from gateway.cli.app import app
from gateway.cli.desk import Desk
from gateway.cli.remote import Reply
from gateway.cli.screen import Screen
from schemas.errors import Failure
from schemas.usage import Usage, UsageDay

Answer = dict[str, Any] | Failure | Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclass
class FakeRemote:
    """Answers by subject; a subject without an answer is `not_found`, as an actor is that does not exist."""

    where: str = "nats://fake"
    answers: dict[str, Answer] = field(default_factory=dict)
    pieces: dict[str, list[dict[str, Any] | Failure]] = field(default_factory=dict)
    """What a stream gives: chunks, then the whole reply; a Failure ends it."""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    wake_ms: int = 0
    conversation: str = ""
    used: list[UsageDay] = field(default_factory=list)

    async def usage(self, days: int) -> Usage:
        return Usage(observed_at="2026-11-23T12:00:00.000Z", days=self.used[:days])

    async def ask(self, subject: str, document: Mapping[str, Any], *, timeout: float, idempotent: bool = False) -> Reply:
        self.asked.append((subject, dict(document)))
        answer = self.answers.get(subject, Failure("not_found", f"nobody answers on {subject}"))
        if isinstance(answer, Failure):
            raise answer
        return Reply(answer(document) if callable(answer) else answer, self.wake_ms)

    async def stream(self, subject: str, document: Mapping[str, Any], *, timeout: float) -> AsyncIterator[Reply]:
        self.asked.append((subject, dict(document)))
        pieces = self.pieces.get(subject, [Failure("not_found", f"nobody answers on {subject}")])
        for number, piece in enumerate(pieces, 1):
            if isinstance(piece, Failure):
                raise piece
            last = number == len(pieces)
            yield Reply(piece, self.wake_ms if last else 0, last)


@dataclass
class Ran:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@dataclass
class Terminal:
    """`vx11` as a function: `terminal("status", "--json")`."""

    settings: Settings
    config: Path
    remote: FakeRemote

    @property
    def desk(self) -> Desk:
        @asynccontextmanager
        async def open_fake(_: Settings) -> AsyncIterator[FakeRemote]:
            yield self.remote

        return Desk(self.settings, self.config, open_fake, Screen())

    def __call__(self, *words: str, stdin: str = "", **environ: str) -> Ran:
        result = CliRunner().invoke(app, list(words), input=stdin, env=environ, obj=self.desk, catch_exceptions=False)
        return Ran(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def remote() -> FakeRemote:
    return FakeRemote()


@pytest.fixture
def terminal(home: Path, tmp_path: Path, remote: FakeRemote) -> Terminal:
    return Terminal(Settings(home), tmp_path / "config", remote)
