"""`logs`: the last lines, and what is written from then on, also after a file was replaced."""

from __future__ import annotations

from itertools import islice

import pytest

from gateway.cli.logs import files, followed, last_lines
from schemas.errors import Failure


@pytest.fixture
def folder(home):
    made = home / "logs"
    made.mkdir()
    return made


def test_the_last_lines_of_one_are_shown_as_they_are(terminal, folder) -> None:
    (folder / "madre.log").write_text("one\ntwo\nthree\n")
    assert terminal("logs", "madre", "-n", "2").out == "two\nthree\n"


def test_the_lines_of_several_say_whose_they_are(terminal, folder) -> None:
    (folder / "madre.log").write_text("one\n")
    (folder / "nats.err").write_text("two\n")
    assert terminal("logs").out == "madre  one\nnats.err  two\n"


def test_a_name_that_has_none_is_answered_with_those_that_have(terminal, folder) -> None:
    (folder / "madre.log").write_text("one\n")
    ran = terminal("logs", "mader")
    assert ran.code == 66
    assert "madre" in ran.err


def test_before_the_first_start_there_is_nothing(terminal) -> None:
    ran = terminal("logs")
    assert ran.code == 66
    assert "vx11 up" in ran.err


def test_a_name_never_leads_out_of_the_folder(folder) -> None:
    (folder.parent / "secret.log").write_text("no")
    (folder / "madre.log").write_text("one\n")
    with pytest.raises(Failure):
        files(folder, "../secret")


def test_of_a_huge_file_only_the_end_is_read(folder) -> None:
    path = folder / "x.log"
    path.write_text("".join(f"line {number}\n" for number in range(200_000)))
    assert last_lines(path, 3) == ["line 199997", "line 199998", "line 199999"]


def test_fewer_lines_than_asked_for_are_all(folder) -> None:
    path = folder / "x.log"
    path.write_text("one\ntwo")
    assert last_lines(path, 50) == ["one", "two"]
    assert last_lines(path, 0) == []


def test_following_tells_what_is_written_later_of_old_and_new_files(folder) -> None:
    """Nothing is told twice, half lines wait for their end, and a file that was replaced is read from its beginning."""
    old, new = folder / "old.log", folder / "new.log"
    old.write_text("before\n")

    def append(text: str) -> None:
        with old.open("a") as file:
            file.write(text)

    def rotate() -> None:
        old.rename(folder / "old.1")
        old.write_text("fresh\n")

    steps = iter([lambda: append("hal"), lambda: append("f\n"), lambda: new.write_text("born\n"), rotate])

    def pause(_: float) -> None:
        next(steps, lambda: None)()

    told = followed(lambda: sorted(folder.glob("*.log")), tell_all=False, pause=pause)
    assert list(islice(told, 3)) == [("old", "half"), ("new", "born"), ("old", "fresh")]


def test_following_notices_that_a_file_was_emptied(folder) -> None:
    path = folder / "x.log"
    path.write_text("a long first line\n")
    steps = iter([lambda: path.write_text("short\n")])
    told = followed(lambda: [path], tell_all=False, pause=lambda _: next(steps, lambda: None)())
    assert next(told) == ("x", "short")
