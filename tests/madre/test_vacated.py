"""When the last owner was gone, as the record tells it: an instance that comes later relies on nobody having worked since."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from actors.madre.driven import Driven
from actors.madre.machine import Machine


@pytest.fixture
def machine():
    return Machine(SimpleNamespace(wire=None), None, run="m1", allowed=lambda _: True)


@pytest.fixture
def driven(machine):
    made = machine.driven["echo"] = Driven(machine.bus, "echo", machine.knock)
    made.power.run = "r1"
    return made


def test_it_is_when_somebody_saw_it_end(machine, driven):
    machine._note_end(driven, "r1", 50.0)
    assert machine._end_of(driven) == 50.0


def test_the_instances_own_word_comes_before_that_of_its_parent(machine, driven):
    """It does nothing after it has left; its process lives a little longer."""
    machine._note_end(driven, "r1", 50.0)
    machine._note_end(driven, "r1", 51.0)
    assert machine._end_of(driven) == 50.0


@pytest.mark.parametrize(("run", "at"), [("r0", 50.0), ("r1", 0.0)], ids=["another's end", "nobody saw it"])
def test_else_it_is_now(machine, driven, run, at):
    before = time.time()
    machine._note_end(driven, run, at)
    assert before <= machine._end_of(driven) <= time.time()


def test_the_end_of_the_next_owner_replaces_it(machine, driven):
    machine._note_end(driven, "r1", 50.0)
    machine._note_end(driven, "r2", 60.0)
    driven.power.run = "r2"
    assert machine._end_of(driven) == 60.0
