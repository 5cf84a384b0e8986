"""`vx11 log` without a house: what is told when nobody keeps the log."""

from __future__ import annotations

from schemas.errors import Failure


def test_without_a_keeper_it_says_that_and_where_to_look(terminal):
    """The bus would say that there is no such actor, which is true and no help."""
    ran = terminal("log", "status")
    assert (ran.code, "the keeper does not answer" in ran.err, "vx11 logs keeper" in ran.err) == (69, True, True)


def test_why_the_keeper_cannot_keep_it_is_told_as_it_says_it(terminal, remote):
    remote.answers["vx11.keeper.get_log"] = Failure("unavailable", "keeper.db is there, but its key is not")
    assert "its key is not" in terminal("log", "status").err


def test_with_the_address_of_another_machine_this_ones_log_does_not_pass_for_its(terminal, tmp_path):
    """An export of the wrong machine would be believed."""
    terminal.settings.variables["VX11_URL"] = "http://far:8000"
    for words in (
        ("log", "status"),
        ("log", "export", str(tmp_path / "log.jsonl")),
        ("golden", "greeter"),
        ("trace", "first-call"),
    ):
        ran = terminal(*words)
        assert "VX11_URL points to another" in ran.err, words
    assert list(tmp_path.glob("log.jsonl*")) == []


def test_a_file_that_cannot_be_written_is_said_so(terminal, tmp_path):
    """It is no fault of the program."""
    ran = terminal("log", "export", str(tmp_path / "nowhere" / "log.jsonl"))
    assert (ran.code, "cannot be written: No such file or directory" in ran.err) == (65, True)


def test_madre_is_not_asked_again(terminal):
    """To record her is no help: she cannot be tried in a sandbox."""
    ran = terminal("golden", "madre")
    assert (ran.code, "cannot be asked again" in ran.err, "VX11_RECORD" in ran.err) == (2, True, False)


def test_without_a_reason_nothing_is_accepted(terminal, remote):
    assert terminal("log", "accept").code != 0
    assert remote.asked == []
