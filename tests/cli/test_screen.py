"""Data on stdout, exactly as it is; talk on stderr."""

from __future__ import annotations

import json

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.app import app
from gateway.cli.screen import Screen, _json, plain

WITHOUT_DATA = {"up", "down", "logs", "call"}
"""They print no document of their own; `call` always prints the one of the actor."""


def test_every_command_that_shows_data_has_json() -> None:
    without = set()

    def look(command: object, path: str) -> None:
        inner = getattr(command, "commands", None)
        if inner is None and not any("--json" in parameter.opts for parameter in command.params):
            without.add(path.strip())
        for name, one in (inner or {}).items():
            look(one, f"{path} {name}")

    look(typer.main.get_command(app), "")
    assert without - {"torture"} <= WITHOUT_DATA


def test_on_a_narrow_terminal_names_and_ids_stay_whole(monkeypatch, capsys) -> None:
    """They are what is typed next; a sentence may take two lines."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    ids = ["408fa840-6f5a-4031-bf17-84f88c57113a", "operator_backend"]
    Screen().table((">when", "why", "conversation", "by"), [("3 min ago", "a request for chat that has a reason", *ids)])
    printed = capsys.readouterr().out
    assert [one for one in ids if one not in printed] == []
    assert "…" not in printed


@pytest.mark.parametrize("text", ["a\tb", ":bee: [bold]x[/bold]", "x" * 500, "ñandú 日本"])
def test_a_line_of_data_is_printed_as_it_is(capsys, text) -> None:
    Screen().line(text)
    assert capsys.readouterr().out == text + "\n"


def test_words_are_not_taken_for_markup(capsys) -> None:
    Screen().talk(":bee: [bold]x[/bold]")
    Screen().table(("name",), [(":bee: [red]x",)])
    said = capsys.readouterr()
    assert ":bee: [bold]x[/bold]" in said.err
    assert ":bee: [red]x" in said.out


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert plain("a\x1b[2J\x07\x9bb\r\n\tc") == "a[2Jb\n\tc"


@given(st.text() | st.just("\ud800") | st.just("\x9b2J"))
def test_json_is_exact_and_printable(text: str) -> None:
    """What a program reads back is what the actor said, whatever characters it used."""
    printed = _json({"text": text})
    assert json.loads(printed) == {"text": text}
    assert plain(printed) == printed
    printed.encode()
