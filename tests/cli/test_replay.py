"""`replay` at the end: what it says when there was nothing to play."""

from __future__ import annotations

import pytest

from gateway.cli import replay_stage
from schemas.replay import ReplayStatus


@pytest.mark.parametrize(
    ("first", "last", "told"), [(1, 38, "nothing in sequences 1 to 38 matches"), (5000, 38, "the log has nothing in that range")]
)
def test_a_replay_of_nothing_says_that_there_was_nothing(terminal, capsys, first, last, told) -> None:
    """`of sequences 5000 to 38` is a riddle, and a rate of 0 a second no answer."""
    status = ReplayStatus(id="mine", state="done", target="vx11.sandbox.mine.", pace="max", first=first, last=last)
    replay_stage._draw(terminal.desk, status)
    assert capsys.readouterr().out == f"replayed 0 events: {told}\n"
