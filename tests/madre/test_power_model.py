"""The real power machine in a small world: no order of events breaks it, and it always comes to rest by itself.

Two searches. The explorer visits *every* state of small worlds, without a clock, and proves that from each of them the system
alone can get quiet with every request settled. Hypothesis walks through larger worlds with a clock and more faults.

What they have found in the machine (each with its own test in `test_power*.py`):

- sleep; the instance leaves; the operator's `wake` sends `stay` to nobody; `slept` made it DORMANT: the wake was forgotten.
- r0 runs; the instance is to be replaced; r0 asks its own actor, r1 is held; the stand-in's echo comes and the drain was
  sent all the same: the instance waits for r0, r0 for r1, and r1 for the instance to leave.

And in the driver: a stopped madre with nothing in hand, continued beside her successor, never noticed her.
"""

from __future__ import annotations

import os
from random import Random

import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.madre.explorer import explore
from tests.madre.network import Config
from tests.madre.world import World

LONG = "VX11_LONG_SEARCH"
"""Set it to search for an hour instead of half a minute."""
R0 = frozenset({0})
BOTH = frozenset({0, 1})
MANY = 50

SMALL = {
    "two requests, one sleep": Config(asks=2, budget={"sleep": 1}),
    "the operator wakes while it is put to sleep": Config(asks=1, budget={"sleep": 1, "wake": 1}),
    "it calls itself while it is put to sleep": Config(2, long=R0, nested=(0, 1), awake=True, budget={"sleep": 1}),
    "it calls itself while it is replaced": Config(2, long=R0, nested=(0, 1), awake=True, budget={"replace": 1}),
    "it is replaced while requests come": Config(2, awake=True, budget={"replace": 1}),
    "it is replaced while the operator wakes it": Config(1, awake=True, budget={"replace": 1, "wake": 1}),
    "a message of a sleep is lost": Config(1, awake=True, budget={"sleep": 1, "lose": 1}),
    "two messages of a wake are lost": Config(1, budget={"lose": 2}),
    "two hosts, and madre gives up": Config(1, hosts=2, budget={"giveup": 1}),
    "a crash and a sleep, stock client": Config(1, stock=R0, awake=True, budget={"crash": 1, "sleep": 1}),
    "a stopped instance that goes on": Config(1, awake=True, budget={"freeze": 1, "thaw": 1}),
    "the server restarts": Config(1, awake=True, budget={"restart": 1}),
    "the server restarts during a sleep": Config(0, awake=True, budget={"restart": 1, "sleep": 1}),
    "madre dies during a wake": Config(1, budget={"mcrash": 1}),
    "madre dies during a sleep that is called back": Config(0, awake=True, budget={"mcrash": 1, "sleep": 1, "wake": 1}),
    "a stopped madre and her successor": Config(1, awake=True, budget={"stop": 1}),
    "a stopped madre and her successor during a sleep": Config(0, awake=True, budget={"stop": 1, "sleep": 1}),
    "the gate closes during a sleep": Config(1, awake=True, budget={"sleep": 1, "gate": 1}),
    "a held request grows too old": Config(1, budget={"sleep": 1, "expire": 1}),
}
LARGE = {
    "three requests, two sleeps": Config(3, budget={"sleep": 2}),
    "unsent bytes, two requests, one sleep": Config(2, eager=False, awake=True, budget={"sleep": 1}),
    "unsent bytes, crash": Config(1, eager=False, awake=True, budget={"crash": 1, "sleep": 1}),
    "unsent bytes, madre dies": Config(1, eager=False, awake=True, budget={"mcrash": 1, "sleep": 1}),
    "two requests, the operator wakes": Config(2, budget={"sleep": 1, "wake": 1}),
    "a long handler": Config(2, long=R0, awake=True, budget={"sleep": 1}),
    "it calls itself, two sleeps": Config(2, long=R0, nested=(0, 1), budget={"sleep": 2}),
    "a message is lost, two requests": Config(2, awake=True, budget={"sleep": 1, "lose": 1}),
    "two messages are lost": Config(1, awake=True, hosts=2, budget={"sleep": 1, "lose": 2}),
    "two hosts, lost, given up": Config(1, hosts=2, budget={"giveup": 1, "lose": 1}),
    "two requests, two hosts, given up": Config(2, hosts=2, budget={"giveup": 1}),
    "two requests and a crash": Config(2, budget={"crash": 1}),
    "two crashes": Config(1, budget={"crash": 2}, instances=4),
    "two crashes of idempotent work": Config(1, idempotent=R0, awake=True, budget={"crash": 2}, instances=4),
    "a crash and a sleep": Config(1, awake=True, budget={"crash": 1, "sleep": 1}),
    "two stock clients, crash, sleep": Config(2, stock=BOTH, awake=True, budget={"crash": 1, "sleep": 1}),
    "a freeze and a sleep": Config(1, awake=True, budget={"freeze": 1, "sleep": 1}),
    "a freeze during a wake": Config(1, budget={"freeze": 1, "thaw": 1}),
    "the server restarts, and a sleep": Config(1, awake=True, budget={"restart": 1, "sleep": 1}),
    "the server restarts, stock client": Config(1, stock=R0, awake=True, budget={"restart": 1, "sleep": 1}),
    "the server restarts during a wake": Config(1, budget={"restart": 1}),
    "the server restarts, and a crash": Config(1, awake=True, budget={"restart": 1, "crash": 1}),
    "madre dies, and a sleep": Config(1, awake=True, budget={"mcrash": 1, "sleep": 1}),
    "madre dies, stock client": Config(1, stock=R0, awake=True, budget={"mcrash": 1, "sleep": 1}),
    "madre and an instance die": Config(1, awake=True, budget={"mcrash": 1, "crash": 1}),
    "madre dies twice": Config(1, awake=True, budget={"mcrash": 2, "sleep": 1}),
    "a stopped madre, and a sleep": Config(1, awake=True, budget={"stop": 1, "sleep": 1}),
    "a stopped madre during a wake": Config(1, budget={"stop": 1}),
    "a host dies": Config(1, awake=True, budget={"hostcrash": 1}),
    "a host dies during a sleep": Config(1, stock=R0, awake=True, budget={"hostcrash": 1, "sleep": 1}, instances=4),
    "two requests, the gate closes": Config(2, awake=True, budget={"sleep": 1, "gate": 1}),
    "two requests, one grows too old": Config(2, awake=True, budget={"sleep": 1, "expire": 1}),
}


def prove(name: str, config: Config) -> None:
    found = explore(config, most=5_000_000)
    assert not found.violation, "\n".join([name, found.violation, *map(str, found.path)])
    assert not found.stuck, "\n".join([name, "the system alone never gets quiet after:", *map(str, found.stuck)])
    assert found.complete, name


@pytest.mark.parametrize("name", SMALL)
def test_every_state_of_a_small_world_is_right_and_has_a_way_to_rest(name):
    """Never two instances, nothing executed twice, lost or answered twice; and no state without a way out."""
    prove(name, SMALL[name])


@pytest.mark.skipif(LONG not in os.environ, reason=f"an hour; {LONG}=1 runs it")
@pytest.mark.timeout(7_200)
def test_every_state_of_larger_worlds_is_right_and_has_a_way_to_rest():
    for name, config in LARGE.items():
        prove(name, config)


OFTEN = ("sleep", "wake", "replace", "lose", "crash", "mcrash", "restart", "expire")
ONCE = ("giveup", "stop", "freeze", "thaw", "hostcrash", "gate")
FAULTS = dict.fromkeys(OFTEN, 3) | dict.fromkeys(ONCE, 1)


class Walk(RuleBasedStateMachine):
    """A way through a world with a clock, unsent bytes and all faults at once; at its end there are no more of them."""

    @initialize(
        config=st.builds(
            Config,
            asks=st.integers(2, 5),
            long=st.frozensets(st.integers(0, 4)).map(R0.union),
            nested=st.sampled_from([None, (0, 1)]),
            idempotent=st.frozensets(st.integers(0, 4)),
            stock=st.frozensets(st.sampled_from([0, 2, 3, 4])),
            hosts=st.integers(1, 2),
            instances=st.just(MANY),
            awake=st.booleans(),
            eager=st.just(False),
            budget=st.just(FAULTS),
        ),
        order=st.integers(0, 1_000),
    )
    def begin(self, config: Config, order: int) -> None:
        self.world, self.order = World(config), Random(order)

    @rule(picks=st.lists(st.integers(0, 12), min_size=1, max_size=8))
    def steps(self, picks: list[int]) -> None:
        for pick in picks:
            if steps := self.world.steps(timers=False):
                self._do(steps[pick % len(steps)])

    @rule(pick=st.integers(0, 40))
    def fault(self, pick: int) -> None:
        if faults := self.world.faults():
            self._do(faults[pick % len(faults)])

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.0, 2.5, 11.0]))
    def time(self, seconds: float) -> None:
        note(f"{seconds} s pass")
        self.world.advance(seconds)

    def _do(self, step: tuple[object, ...]) -> None:
        note(str(step))
        self.world.do(step)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.calm(self.order)


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=50_000 if LONG in os.environ else 150, stateful_step_count=30, deadline=None)
TestWalk.pytestmark = [pytest.mark.timeout(7_200 if LONG in os.environ else 60)]
