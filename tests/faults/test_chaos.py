"""A process is struck at a named moment when a test has ordered it, once, and never otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bus import chaos
from bus.loading import TREE
from bus.settings import Settings

REACHES = """
import sys
from pathlib import Path
from bus import chaos
from bus.settings import Settings
chaos.arm(Settings(Path(), {chaos.FOLDER: sys.argv[1]}))
for n in range(3):
    chaos.point("here")
    print(n, flush=True)
"""


def reach(folder: Path) -> subprocess.Popen[str]:
    """A process that comes to the moment `here` three times and says so each time."""
    return subprocess.Popen([sys.executable, "-c", REACHES, str(folder)], cwd=TREE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("order", "said"), [("kill", ""), ("kill 3", "0\n1\n"), ("kill 4", "0\n1\n2\n")])
def test_it_is_killed_the_nth_time(tmp_path: Path, order: str, said: str) -> None:
    (tmp_path / "here").write_text(order)
    process = reach(tmp_path)
    assert process.communicate()[0] == said
    struck = order != "kill 4"
    assert process.returncode == (-signal.SIGKILL if struck else 0)
    assert (tmp_path / "here.reached").exists() == struck


def test_the_next_one_is_spared(tmp_path: Path) -> None:
    """Its successor must live."""
    (tmp_path / "here").write_text("kill")
    first, second = reach(tmp_path), None
    first.communicate()
    second = reach(tmp_path)
    assert second.communicate()[0] == "0\n1\n2\n"
    assert (tmp_path / "here.reached").read_text() == str(first.pid)


def test_it_is_stopped_and_can_go_on(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("stop")
    process = reach(tmp_path)
    os.waitpid(process.pid, os.WUNTRACED)
    assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
    process.send_signal(signal.SIGCONT)
    assert process.communicate()[0] == "0\n1\n2\n"


def test_without_the_variable_nothing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every ordinary process a moment costs a call."""
    monkeypatch.setattr(chaos, "_reach", lambda _: pytest.fail("looked"))
    chaos.arm(Settings(Path()))
    chaos.point("here")
