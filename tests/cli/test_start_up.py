"""The command line is there at once, and completes without waking the whole program."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
QUICK_S = 2.0
"""Twelve times what it takes on a machine with nothing else to do."""
HEAVY = ("pydantic", "nats", "aiohttp", "redis", "psutil", "bus")


def vx11(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *words],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_help_comes_at_once() -> None:
    """Whoever has to wait for --help does not ask for it again."""
    began = time.perf_counter()
    ran = vx11("--help")
    assert ran.returncode == 0
    assert "vx11" in ran.stdout
    assert time.perf_counter() - began < QUICK_S


def test_the_commands_are_known_without_importing_what_they_need() -> None:
    """Completion imports the whole tree of commands at each press of Tab."""
    code = f"import sys; import gateway.cli.app; print([m for m in {HEAVY!r} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_events_are_shown_without_importing_the_gateway_itself() -> None:
    """An HTTP server in the way of a look at the log costs more than the look."""
    code = "import sys, gateway.http.lines, gateway.cli.events; print('aiohttp' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_the_shell_completes_commands() -> None:
    ran = vx11(_VX11_COMPLETE="complete_bash", COMP_WORDS="vx11 sta", COMP_CWORD="1")
    assert ran.stdout.split() == ["status"]


def test_every_command_of_the_issue_is_there() -> None:
    out = vx11("--help", COLUMNS="200").stdout
    wanted = "up down status ps wake sleep restart gate window policy call chat logs token new nats-context doctor"
    missing = [name for name in wanted.split() if f" {name} " not in out]
    assert missing == []


def test_every_command_explains_itself() -> None:
    """Also the ones inside groups; a command without words is a riddle."""
    import typer.main

    from gateway.cli.app import app

    silent: list[str] = []

    def look(command: object, path: str) -> None:
        if not (getattr(command, "help", "") or "").strip():
            silent.append(path)
        for name, inner in getattr(command, "commands", {}).items():
            look(inner, f"{path} {name}")

    look(typer.main.get_command(app), "vx11")
    assert silent == []


def test_a_mistyped_command_is_answered_with_the_right_one() -> None:
    ran = vx11("slepe", "switch")
    assert ran.returncode == 2
    assert "sleep" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_not_running_is_said_with_what_to_type(tmp_path: Path) -> None:
    """The commonest of all failures: exit 69, and the next command."""
    ran = vx11("status", VX11_HOME=str(tmp_path / "nothing"), VX11_URL="")
    assert ran.returncode == 69
    assert "not running" in ran.stderr
    assert "vx11 up" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_fault_of_the_program_shows_no_traceback_unless_asked(tmp_path: Path) -> None:
    """A settings file that is a folder: nothing that any command expects."""
    (tmp_path / "run.json").mkdir()
    ran = vx11("status", VX11_HOME=str(tmp_path), VX11_URL="", VX11_DEBUG="")
    assert ran.returncode == 70
    assert "Traceback" not in ran.stderr
    assert "VX11_DEBUG=1" in ran.stderr
    assert "Traceback" in vx11("status", VX11_HOME=str(tmp_path), VX11_URL="", VX11_DEBUG="1").stderr


def test_home_may_be_said_before_the_command(tmp_path: Path) -> None:
    ran = vx11("--home", str(tmp_path / "there"), "status", VX11_HOME=str(tmp_path / "elsewhere"), VX11_URL="")
    assert str(tmp_path / "there") in ran.stderr
