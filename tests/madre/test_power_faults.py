"""The power machine when things go wrong: forwards that nobody takes, replacements, deaths and silence."""

from __future__ import annotations

import pytest

from actors.madre.effects import Answer, AskHost, Beat, Bury, Close, Forward, Open, Order, Swap
from actors.madre.hold import HELD_MOST
from actors.madre.power import (
    BEATS_MISSED_S,
    BURIAL_S,
    LOOK_S,
    OPENING_S,
    REPEAT_S,
)
from tests.madre.stages import (
    EPOCH,
    ID,
    NOW,
    OWNED,
    RUN,
    STAGES,
    active,
    bury,
    burying,
    draining,
    handover,
    kinds,
    opening,
    prove,
    record,
    request,
    staying,
    waking,
)

GONE = {"owner": "", "instance": "", "host": "", "pid": 0, "born": 0.0, "card_version": ""}
RELEASE = Swap("release", {**GONE, "state": "dormant"})

# -- forwards (5) -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [handover, active])
def test_a_forward_is_repeated_to_the_same_run_until_it_is_acknowledged(stage):
    """A forward to a private subject that nobody listens on is silent."""
    asked = request()
    power = stage(held=[asked], acked=False)
    assert power.tick(NOW + REPEAT_S - 0.01) == []
    assert power.tick(NOW + REPEAT_S) == [Forward(asked, RUN)]
    power.acked(asked.n, NOW + REPEAT_S)
    assert power.tick(NOW + 2 * REPEAT_S) == []


def test_forwards_wait_while_it_is_unknown_whether_the_instance_lives_and_go_on_after():
    """After a reconnect the private subject may not be there yet; that the instance has said that it stays proves it."""
    asked = request()
    power = active(held=[asked], acked=False)
    power.reconnected(NOW)
    prove(power)
    assert Forward(asked, RUN) not in power.tick(NOW + REPEAT_S)
    power.active(ID, RUN, NOW + REPEAT_S, revision=9, epoch=EPOCH, stay=1)
    assert power.tick(NOW + REPEAT_S) == [Forward(asked, RUN)]


def test_a_forward_that_died_with_its_instance_is_answered_crashed():
    asked = request()
    power = active(held=[asked], acked=False)
    power.exited(ID, RUN, NOW)
    [answer] = bury(power, 10)
    assert (answer.held, answer.code, len(power.forwarded)) == (asked, "crashed", 0)


def test_an_idempotent_forward_that_died_with_its_instance_is_held_for_the_next():
    asked = request(idempotent=True)
    power = active(held=[asked], acked=False)
    power.exited(ID, RUN, NOW)
    assert kinds(bury(power, 10)) == ["Activate"]
    assert list(power.held) == [asked]


def test_an_acknowledged_forward_is_not_answered_by_madre():
    """Its caller asks again and hears from the reply cache; two answers are one too many."""
    power = active(held=[request()])
    power.exited(ID, RUN, NOW)
    assert bury(power, 10) == []


def test_repeats_of_what_was_answered_crashed_are_not_executed_later():
    asked, repeat = request(), request(again=True)
    power = active(held=[asked], acked=False)
    power.exited(ID, RUN, NOW)
    power.knock(repeat, NOW)
    assert kinds(bury(power, 10)) == ["Answer"]
    assert not power.held


@pytest.mark.parametrize("repeated", [False, True])
def test_a_request_that_two_instances_died_with_is_buried_with_its_repeats(repeated):
    """Found by reading: its repeats stayed in the hold and killed a third."""
    asked = request(idempotent=True)
    power = active(held=[asked], acked=False)
    power.exited(ID, RUN, NOW)
    bury(power, 10)
    power.active(power.id, "run-b", NOW, revision=11, epoch=EPOCH)
    power.exited(power.id, "run-b", NOW)
    if repeated:
        power.knock(request(idempotent=True, again=True), NOW)
    dead, answer = bury(power, 12)
    assert (dead, answer.code) == (Bury(asked), "crashed")
    assert not power.held


def test_a_forward_for_which_there_is_no_room_any_more_is_answered():
    """Found by reading: it vanished without an answer."""
    asked = request(idempotent=True)
    power = active(held=[asked], acked=False)
    power.exited(ID, RUN, NOW)
    for n in range(HELD_MOST):
        power.knock(request(str(n)), NOW)
    answer = bury(power, 10)[0]
    assert (answer.held, answer.code) == (asked, "busy")


# -- replacing ----------------------------------------------------------------------------------------------------------


def test_a_request_waits_for_the_successor_of_who_is_replaced():
    power = draining(recall=False)
    assert power.knock(request(), NOW) == []
    power.slept(RUN, NOW)
    assert kinds(power.swapped("release", 10, NOW)) == ["Activate"]


def test_a_replacement_waits_for_the_last_acknowledgement():
    a, b = request("a"), request("b")
    power = active(held=[a, b], acked=False)
    power.sleep("new code", recall=False)
    assert prove(power) == []
    assert power.acked(a.n, NOW) == []
    assert kinds(power.acked(b.n, NOW)) == ["Order", "Tell"]


def test_an_acknowledgement_before_the_stand_in_is_proven_drains_nothing():
    """Requests would meet nobody."""
    asked = request()
    power = active(held=[asked], acked=False)
    power.sleep("new code", recall=False)
    assert power.acked(asked.n, NOW) == []


def test_who_is_to_be_replaced_is_called_back_by_its_own_request():
    """It waits for the answer, and leaves only when it has it."""
    assert draining(recall=False).knock(request(nested=True), NOW) == [Order("stay", RUN, ID, EPOCH, 1)]


def test_who_is_to_be_replaced_is_kept_by_its_own_request_that_came_early():
    """Counterexample of the model: r0 runs; replace; r0's own request r1 is held; the echo; the drain was sent all the
    same: the instance waited for r0, r0 for r1, r1 in the hold for the instance to leave."""
    power, asked = opening(recall=False), request(nested=True)
    power.knock(asked, NOW)
    assert prove(power) == [Forward(asked, RUN), Close(power.generation)]


def test_the_operators_wake_does_not_keep_who_is_to_be_replaced():
    power = draining(recall=False)
    assert power.wake(NOW, "asked") == []
    power.slept(RUN, NOW)
    assert kinds(power.swapped("release", 10, NOW)) == ["Activate"]


def test_a_replacement_that_was_called_off_is_forgotten():
    """The next drain is an ordinary one."""
    power = draining(recall=False)
    power.knock(request(nested=True), NOW)
    power.active(ID, RUN, NOW, revision=9, epoch=EPOCH, stay=1)
    power.acked(2, NOW)
    prove(power)
    power.sleep("idle")
    prove(power)
    assert kinds(power.knock(request(), NOW)) == ["Order"]


# -- death (7) ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["handover", "active"])
def test_a_death_opens_the_stand_in_at_once(stage):
    """Every moment without it is "no responders"."""
    power = STAGES[stage]()
    assert power.exited(ID, RUN, NOW) == [Open(power.generation)]
    assert power.state == "adopting"


@pytest.mark.parametrize("stage", OWNED)
def test_a_death_is_settled_when_the_last_answers_have_had_their_time(stage):
    power = STAGES[stage]()
    power.exited(ID, RUN, NOW)
    assert RELEASE not in power.tick(NOW + BURIAL_S - 0.01)
    assert power.tick(NOW + BURIAL_S) == [RELEASE]


@pytest.mark.parametrize("stage", OWNED)
def test_a_stranger_that_died_is_not_the_instance(stage):
    power = STAGES[stage]()
    before = power.state, power.phase
    assert power.exited(ID, "run-b", NOW) == []
    assert (power.state, power.phase) == before


@pytest.mark.parametrize("stage", ["dormant", "failed", "burying"])
def test_a_death_that_is_told_twice_counts_once(stage):
    assert STAGES[stage]().exited(ID, RUN, NOW) == []


def test_a_death_that_is_told_twice_is_settled_no_later():
    power = burying()
    power.exited(ID, RUN, NOW + BURIAL_S - 0.01)
    assert power.tick(NOW + BURIAL_S) == [RELEASE]


def test_what_has_crashed_has_not_slept():
    """Its `slept` may come after the report of its exit, which has a code that says more."""
    power = burying()
    assert power.slept(RUN, NOW) == []
    bury(power, 10)
    assert power.crashes == 1


def test_a_process_that_has_left_cleanly_is_no_crash_although_slept_was_lost():
    """Hosts report every exit. Counted as a crash, three lost messages made a healthy actor FAILED."""
    power = draining()
    assert power.exited(ID, RUN, NOW, clean=True) == [RELEASE]
    power.swapped("release", 10, NOW)
    assert (power.state, power.crashes) == ("dormant", 0)


def test_the_exit_after_slept_is_old_news():
    power = staying()
    power.slept(RUN, NOW)
    power.swapped("release", 10, NOW)
    assert power.exited(ID, RUN, NOW, clean=True) == []
    assert power.state == "waking"


def test_a_crash_is_followed_by_another_instance_only_if_somebody_waits():
    assert bury(burying(), 10) == []


@pytest.mark.parametrize("stage", ["handover", "active", "opening", "draining", "staying"])
def test_missed_heartbeats_open_the_stand_in_and_have_the_instance_killed(stage):
    power = STAGES[stage]()
    done = [e for e in power.tick(NOW + BEATS_MISSED_S + 0.1) if not isinstance(e, Answer)]
    assert done == [Open(power.generation), AskHost(RUN, ID, power.host, power.pid, power.born, kill=True)]


@pytest.mark.parametrize("stage", ["active", "draining", "adopting"])
def test_silence_that_is_no_longer_than_three_heartbeats_kills_nobody(stage):
    power = STAGES[stage]()
    done = power.tick(NOW + BEATS_MISSED_S)
    assert not [e for e in done if isinstance(e, Open) or (isinstance(e, AskHost) and e.kill)]


def test_silence_is_not_death():
    """A stopped process is still in the queue group: a second one beside it answered half of the requests."""
    power = active()
    late = NOW + BEATS_MISSED_S + 0.1
    power.tick(late)
    power.knock(request(), late)
    assert (power.state, power.run) == ("adopting", RUN)
    assert "Activate" not in kinds(power.tick(late + 60.0))


def test_the_order_to_kill_is_repeated_until_the_death_is_told():
    power = active()
    late = NOW + BEATS_MISSED_S + 0.1
    power.tick(late)
    assert AskHost(RUN, ID, "", 0, 0.0, kill=True) in power.tick(late + LOOK_S)


def test_a_heartbeat_of_its_own_run_is_a_sign_of_life_and_no_other():
    power = active()
    power.beaten(Beat(RUN), NOW + 5.0)
    power.beaten(Beat("run-b"), NOW + 9.0)
    assert (power.last_beat, power.beat) == (NOW + 5.0, Beat(RUN))


@pytest.mark.parametrize("stage", ["opening", "draining", "staying", "found", "adopting"])
def test_the_host_is_asked_while_nothing_is_heard(stage):
    """`slept` and `exited` may both have been lost."""
    assert "AskHost" in kinds(STAGES[stage]().tick(NOW + LOOK_S))


def test_an_instance_that_has_claimed_has_time_to_open_its_resources():
    """Found by reading: one that loads a model for ten seconds was killed, every time."""
    power = waking()
    power.read(record(state="waking", owner=RUN, instance=power.id), 8, NOW)
    prove(power)
    assert [e.kill for e in power.tick(NOW + OPENING_S) if isinstance(e, AskHost)] == [False]
    late = NOW + OPENING_S + BEATS_MISSED_S + 0.1
    assert [e.kill for e in power.tick(late) if isinstance(e, AskHost)] == [True]
