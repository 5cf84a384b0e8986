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


def test_without_a_reason_nothing_is_accepted(terminal, remote):
    assert terminal("log", "accept").code != 0
    assert remote.asked == []
