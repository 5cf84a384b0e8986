"""What `run.json` says is believed only as far as the process that wrote it is still there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from bus.process import started_at
from gateway.cli import up
from gateway.cli.home import recorded, running
from gateway.cli.process import processes
from schemas.errors import CODES, Failure

LIVE = "print(1, flush=True); import time; time.sleep(60)"
CHILD = (
    f"import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', {LIVE!r}], stdout=subprocess.PIPE); "
    "p.stdout.readline(); "  # it has become what it is
)
PARENT = CHILD + "print(p.pid, flush=True); import signal; signal.signal(15, lambda *_: (p.kill(), sys.exit())); time.sleep(60)"
DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); print(0, flush=True); time.sleep(60)"


def write_run(home: Path, pid: int, born: float, **more: object) -> None:
    document = {
        "version": "8",
        "nats_url": "nats://127.0.0.1:1",
        "http_url": "http://127.0.0.1:2",
        "redis_url": "",
        "started_at": "2026-01-01T00:00:00Z",
        "supervisor": {"pid": pid, "born": born},
        "pids": {},
        **more,
    }
    (home / "run.json").write_text(json.dumps(document))


class Started:
    """A process that stands for a supervisor; `child` is the pid of the one that it started, 0 for none."""

    def __init__(self, code: str) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert self.process.stdout
        self.child = int(self.process.stdout.readline())
        self.pid = self.process.pid
        self.born = started_at(self.pid)

    def end(self) -> None:
        for pid in filter(None, (self.pid, self.child)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.communicate()


@pytest.fixture
def parent() -> Iterator[Started]:
    made = Started(PARENT)
    yield made
    made.end()


@pytest.fixture
def deaf() -> Iterator[Started]:
    made = Started(DEAF)
    yield made
    made.end()


def test_without_a_file_nothing_runs(terminal) -> None:
    assert recorded(terminal.settings) is None
    with pytest.raises(Failure, match="not running") as refused:
        running(terminal.settings)
    assert refused.value.code == "unavailable"


def test_a_file_whose_process_is_gone_is_not_believed(terminal, home, parent) -> None:
    """After a power cut the file is still there, and another program may have the pid."""
    write_run(home, parent.pid, parent.born - 100)
    with pytest.raises(Failure, match="not running"):
        running(terminal.settings)
    write_run(home, parent.pid, parent.born)
    assert running(terminal.settings).supervisor.pid == parent.pid


@pytest.mark.parametrize("text", ["", "{", "[]", '{"supervisor": 3}', "{}"])
def test_a_file_that_was_cut_off_is_said(terminal, home, text) -> None:
    (home / "run.json").write_text(text)
    with pytest.raises(Failure, match="cannot be understood"):
        recorded(terminal.settings)


def test_the_memory_of_every_process_is_told_with_its_kind(terminal, home, parent) -> None:
    """Parents before children; an actor by the name that madre knows its pid by."""
    write_run(home, parent.pid, parent.born)
    seen = processes(running(terminal.settings), {parent.child: "switch"})
    assert [(one.name, one.depth) for one in seen] == [("supervisor", 0), ("switch", 1)]
    assert all(one.memory_bytes > 1_000_000 for one in seen)
    assert {one.kind for one in seen} == ({"pss"} if sys.platform == "linux" else {"rss"})


def test_a_python_program_is_told_by_its_file(terminal, home, tmp_path) -> None:
    """What holds a language model is the largest of all processes: `python` says nothing to who looks for it."""
    program = tmp_path / "llama.py"
    program.write_text(LIVE)
    start = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-I', {str(program)!r}])"
    code = f"{start}; print(p.pid, flush=True); {LIVE}"
    made = Started(code)
    try:
        write_run(home, made.pid, made.born)
        assert [one.name for one in processes(running(terminal.settings), {})] == ["supervisor", "llama"]
    finally:
        made.end()


def test_ps_shows_who_costs_what_and_who_costs_nothing(terminal, home, remote, parent) -> None:
    actors = [
        {"name": "switch", "state": "active", "pid": parent.child},
        {"name": "ears", "state": "dormant"},
    ]
    windows = {"windows": [], "policy": "solo_madre", "mode": "solo_madre"}
    remote.answers["vx11.madre.list_actors"] = {"actors": actors, **windows}
    write_run(home, parent.pid, parent.born)
    out = terminal("ps").out
    assert "  switch" in out
    assert "memory (" in out
    assert "asleep, without a process: ears" in out
    document = terminal("ps", "--json").document
    assert document["asleep"] == ["ears"]
    assert document["memory_bytes"] == sum(one["memory_bytes"] for one in document["processes"])


def test_ps_works_while_madre_is_silent(terminal, home, remote, parent) -> None:
    """That is when one wants to see the processes most."""
    remote.answers["vx11.madre.list_actors"] = Failure("timeout", "no answer")
    write_run(home, parent.pid, parent.born)
    ran = terminal("ps")
    assert ran.code == 0
    assert str(parent.child) in ran.out
    assert "madre does not answer" in ran.err


def test_down_ends_what_is_recorded_and_waits_for_all_of_it(terminal, home, parent) -> None:
    child = {"pid": parent.child, "born": started_at(parent.child)}
    write_run(home, parent.pid, parent.born, pids={"madre": child})
    ran = terminal("down")
    assert ran.code == 0
    assert "stopped" in ran.out
    assert started_at(parent.child) == 0
    assert started_at(parent.pid) == 0


def test_down_leaves_a_stranger_with_the_same_pid_alone(terminal, home, parent) -> None:
    write_run(home, parent.pid, parent.born - 100)
    ran = terminal("down")
    assert ran.code == 0
    assert "nothing to stop" in ran.err
    assert parent.process.poll() is None


def test_down_ends_what_a_killed_supervisor_left_behind(terminal, home, parent) -> None:
    """Where the system does not end the children of a killed process, they would hold ports and files for ever."""
    child = {"pid": parent.child, "born": started_at(parent.child)}
    write_run(home, parent.pid, parent.born - 100, pids={"madre": child})
    assert terminal("down").code == 0
    assert started_at(parent.child) == 0
    assert parent.process.poll() is None


def test_down_that_takes_too_long_names_who_is_left(terminal, home, deaf) -> None:
    write_run(home, deaf.pid, deaf.born)
    began = time.monotonic()
    ran = terminal("down", "--timeout", "0.3")
    assert time.monotonic() - began < 10
    assert ran.code == 75
    assert f"supervisor (pid {deaf.pid})" in ran.err
    assert f"kill -9 {deaf.pid}" in ran.err


def test_up_refuses_a_home_that_is_in_use(terminal, home, parent, monkeypatch) -> None:
    write_run(home, parent.pid, parent.born)
    ran = terminal("up")
    assert ran.code == 73
    assert f"pid {parent.pid}" in ran.err


def became(monkeypatch) -> list[dict[str, str]]:
    """The environments in which `vx11 up` went on as another program."""
    given: list[dict[str, str]] = []

    def execve(program: str, argv: list[str], environ: dict[str, str]) -> None:
        assert (program, argv[1:]) == (sys.executable, ["-m", "gateway.cli.foreground"])
        given.append(environ)

    monkeypatch.setattr(up.os, "execve", execve)
    return given


def test_up_goes_on_as_a_small_program_on_the_same_home(terminal, monkeypatch) -> None:
    """What a command line needs would be in every process that is forked from it."""
    given = became(monkeypatch)
    assert terminal("up").code == 0
    assert [environ["VX11_HOME"] for environ in given] == [str(terminal.settings.home)]


def test_up_may_be_told_another_home(terminal, monkeypatch, tmp_path) -> None:
    given = became(monkeypatch)
    assert terminal("up", "--home", str(tmp_path / "other")).code == 0
    assert [environ["VX11_HOME"] for environ in given] == [str(tmp_path / "other")]


def test_what_up_becomes_has_nothing_of_the_command_line() -> None:
    code = "import sys, gateway.cli.foreground; sys.exit(sum(name in sys.modules for name in ('typer', 'click', 'rich')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=up.ROOT, check=False).returncode == 0


def test_the_word_that_all_is_up_does_not_go_through_a_proxy(monkeypatch) -> None:
    """The token of a first start is shown with it, and nowhere else."""
    from gateway.cli import foreground

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Not on the screen of a test."""

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as door:
        Thread(target=door.serve_forever, daemon=True).start()
        try:
            assert foreground._answers(f"http://127.0.0.1:{door.server_port}")
        finally:
            door.shutdown()


def test_a_start_that_fails_is_told_and_ends_with_its_code(monkeypatch, capsys) -> None:
    from gateway.cli import foreground

    def run(settings, screen, pull="") -> int:
        raise Failure("conflict", "VX11 is already up")

    monkeypatch.setattr(foreground, "run", run)
    monkeypatch.setattr(sys, "argv", ["foreground"])
    assert foreground.main() == CODES["conflict"].exit
    assert "VX11 is already up" in capsys.readouterr().err


def test_a_start_in_the_background_that_fails_is_told_with_its_words(terminal, monkeypatch, home) -> None:
    """What the child printed is all that says why; it must not vanish into a log."""
    code = "import sys; print('no room'); sys.stderr.write('for a database\\n'); raise SystemExit(74)"
    real = subprocess.Popen
    monkeypatch.setattr(up.subprocess, "Popen", lambda argv, **options: real([sys.executable, "-c", code], **options))
    ran = terminal("up", "-d")
    assert ran.code == 74
    assert ran.out == "no room\n"
    assert "for a database" in ran.err
    assert (home / "logs" / "up.log").stat().st_mode & 0o777 == 0o600


def test_what_a_start_in_the_background_writes_after_its_log_was_cut_is_at_its_beginning(terminal, monkeypatch, home) -> None:
    """It was behind as many zeros as had been cut, so that the log was cut again at each look."""
    log = home / "logs" / "up.log"
    code = f"import os; os.write(2, b'x' * 2_000); os.truncate({str(log)!r}, 0); os.write(2, b'goes on'); os._exit(74)"
    real = subprocess.Popen
    monkeypatch.setattr(up.subprocess, "Popen", lambda argv, **options: real([sys.executable, "-c", code], **options))
    assert terminal("up", "-d").code == 74
    assert log.read_bytes() == b"goes on"


def test_a_start_in_the_background_comes_back_once_madre_answers(terminal, monkeypatch, home, remote) -> None:
    """Not when the process is there: `vx11 up -d && vx11 chat` has to work."""
    code = f"""
import json, os, sys, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from bus.process import started_at
print("VX11 is up, export VX11_TOKEN=secret", flush=True)
me = {{"pid": os.getpid(), "born": started_at(os.getpid())}}
json.dump({{"nats_url": "", "supervisor": me}}, open({str(home / "run.json")!r}, "w"))
time.sleep(60)
"""
    made: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def start(_argv, **options):
        made.append(real([sys.executable, "-c", code], **options))
        return made[0]

    monkeypatch.setattr(up.subprocess, "Popen", start)
    silent = iter([Failure("unavailable", "not yet")] * 2)
    actor = {"name": "switch", "state": "dormant"}

    def answer(_):
        if failure := next(silent, None):
            raise failure
        return {"actors": [actor], "policy": "solo_madre", "mode": "solo_madre", "windows": []}

    remote.answers["vx11.madre.list_actors"] = answer
    try:
        ran = terminal("up", "-d")
        assert ran.code == 0
        assert "VX11_TOKEN=secret" in ran.out
        assert "secret" not in (home / "logs" / "up.log").read_text()
        assert "vx11 down" in ran.err
        assert len(remote.asked) == 3
    finally:
        made[0].kill()
        made[0].wait()
