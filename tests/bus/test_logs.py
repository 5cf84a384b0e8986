"""Logs do not fill the disk, and whoever has one open goes on writing where it now ends."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bus.logs import keep_short

MOST = 1_000


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "madre.log"
    file.touch()
    return file


@pytest.fixture
def writer(log: Path):
    """As `bus.process.write_output_to` opens it."""
    fd = os.open(log, os.O_WRONLY | os.O_APPEND)
    yield fd
    os.close(fd)


def test_a_long_log_is_begun_anew_and_what_was_in_it_is_beside_it(log, writer) -> None:
    os.write(writer, b"a" * MOST + b"old\n")
    keep_short(log.parent, MOST)
    os.write(writer, b"new\n")
    older = log.with_name("madre.log.1")
    assert log.read_text() == "new\n"
    assert older.read_text().endswith("old\n")
    assert older.stat().st_mode & 0o077 == 0


def test_a_short_one_is_left_alone(log, writer) -> None:
    os.write(writer, b"a" * MOST)
    keep_short(log.parent, MOST)
    assert log.stat().st_size == MOST
    assert list(log.parent.iterdir()) == [log]


def test_of_the_older_ones_only_the_last_is_kept(log, writer) -> None:
    for text in (b"1", b"2", b"3"):
        os.write(writer, text * (MOST + 1))
        keep_short(log.parent, MOST)
    assert sorted(file.name for file in log.parent.iterdir()) == ["madre.log", "madre.log.1"]
    assert set(log.with_name("madre.log.1").read_text()) == {"3"}


def test_on_a_full_disk_it_is_begun_anew_without_an_older_one(log, writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The room that it gives back is worth more than what is in it."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    os.write(writer, b"a" * (MOST + 1))
    keep_short(log.parent, MOST)
    assert [(file.name, file.stat().st_size) for file in log.parent.iterdir()] == [("madre.log", 0)]
