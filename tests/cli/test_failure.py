"""A failure says what happened, why, and what to do next; programs get its code and its document."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.advice import explain
from schemas.errors import CODES, Failure

ROOT = Path(__file__).parents[2]
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3|4|9|10)\d(?:;\d+)*m")


@pytest.mark.parametrize("code", sorted(CODES))
def test_each_code_ends_with_its_own_exit_code(terminal, remote, code) -> None:
    """Scripts tell `busy` from `off_by_policy` by the number, as HTTP clients do by the status."""
    remote.answers["vx11.madre.list_actors"] = Failure(code, "so it is")
    ran = terminal("status")
    assert ran.code == CODES[code].exit
    assert "so it is" in ran.err
    assert ran.out == ""


@pytest.mark.parametrize("code", sorted(CODES))
def test_whoever_can_do_something_is_told_what(code) -> None:
    steps = explain(Failure(code, "so it is"), actor="switch").next
    without = {"too_large", "unsupported_media", "method_not_allowed", "cancelled", "not_installed"}
    assert bool(steps) == (code not in without)


def test_policy_never_looks_like_a_fault() -> None:
    """Another sign, another colour, and the command that opens the gate."""
    told = explain(Failure("off_by_policy", "switch stays off", service="switch"))
    assert told.glyph != explain(Failure("internal", "broken")).glyph
    assert told.next[0][0] == "vx11 window open switch --for 30m"


def test_the_time_to_wait_is_told() -> None:
    told = explain(Failure("busy", "no room", retry_after=3))
    assert told.next[0][0] == "try again in 3 s"


def test_details_that_nobody_foresaw_are_not_swallowed() -> None:
    told = explain(Failure("conflict", "it is taken", holder="ana", pid=7))
    assert told.why == "holder: ana, pid: 7"


def test_the_failure_of_one_actor_is_told_with_its_name(terminal, remote) -> None:
    remote.answers["vx11.madre.wake"] = Failure("off_by_policy", "it may not wake")
    ran = terminal("wake", "switch")
    assert ran.code == 77
    assert "vx11 gate switch on_demand" in ran.err


def test_programs_get_the_error_document(terminal, remote) -> None:
    remote.answers["vx11.madre.list_actors"] = Failure("busy", "no room", retry_after=3)
    ran = terminal("status", "--json")
    assert ran.code == 75
    assert ran.document == {"error": "busy", "message": "no room", "correlation_id": "", "retry_after": 3}


def test_what_is_typed_wrongly_is_invalid_and_names_the_field(terminal) -> None:
    ran = terminal("window", "open", "switch", "--for", "30d")
    assert ran.code == CODES["invalid"].exit
    assert "ttl_sec" in ran.err


def test_an_answer_of_another_version_is_no_traceback(terminal, remote) -> None:
    remote.answers["vx11.madre.list_actors"] = {"actors": "none"}
    ran = terminal("status")
    assert ran.code == CODES["internal"].exit
    assert "this version" in ran.err


def test_nobody_steers_the_terminal_from_inside_an_error(terminal, remote) -> None:
    """An escape sequence in a model's or an actor's words could clear the screen or worse."""
    remote.answers["vx11.madre.list_actors"] = Failure("internal", "red\x1b[2Jgone\x07")
    assert "red[2Jgone" in terminal("status").err


def in_terminal(home: Path, **environ: str) -> str:
    """What `vx11 status` without a VX11 prints on a real terminal."""
    master, slave = pty.openpty()
    environ = {**os.environ, "VX11_HOME": str(home), "VX11_URL": "", "TERM": "xterm-256color", **environ}
    environ = {name: value for name, value in environ.items() if value or name == "VX11_URL"}
    subprocess.run(
        [sys.executable, "-m", "gateway.cli", "status"], cwd=ROOT, env=environ, stdout=slave, stderr=slave, check=False
    )
    os.close(slave)
    found = b""
    while True:
        try:
            data = os.read(master, 65_536)
        except OSError:  # Linux: the other end has been closed
            break
        if not data:
            break
        found += data
    os.close(master)
    return found.decode()


def test_colour_is_for_terminals_whose_owner_wants_it(tmp_path) -> None:
    assert COLOUR.search(in_terminal(tmp_path, NO_COLOR=""))
    assert not COLOUR.search(in_terminal(tmp_path, NO_COLOR="1"))


def test_without_utf8_the_signs_are_letters(tmp_path) -> None:
    """An old console shows `x`, not a question mark, and nothing breaks."""
    environ = {**os.environ, "VX11_HOME": str(tmp_path), "VX11_URL": "", "PYTHONIOENCODING": "ascii"}
    ran = subprocess.run([sys.executable, "-m", "gateway.cli", "status"], cwd=ROOT, env=environ, capture_output=True, check=False)
    assert ran.returncode == 69
    assert ran.stderr.startswith(b"x VX11 is not running")
