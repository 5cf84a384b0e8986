"""The power machine by its table and its rules: what each state does with what happens. Time is passed in."""

from __future__ import annotations

import pytest

from actors.madre.effects import Activate, Answer, Close, Forward, Open, Order, Read, Swap, Tell
from actors.madre.hold import HELD_BYTES_MOST, HELD_MOST
from actors.madre.power import DENIED_AGAIN_S, GIVE_UP_S, LOOK_S, REPEAT_S
from tests.madre.stages import (
    EPOCH,
    ID,
    NOW,
    OWNED,
    RUN,
    STAGES,
    active,
    dormant,
    draining,
    failed,
    handover,
    kinds,
    opening,
    prove,
    record,
    request,
    staying,
    waking,
)

# -- a request reaches the stand-in: one row a state --------------------------------------------------------------------


def test_a_request_for_a_sleeper_is_held_and_wakes_it():
    power, asked = dormant(), request()
    assert power.knock(asked, NOW) == [Activate("echo-3-2", 7, EPOCH, "a request for say")]
    assert (power.state, list(power.held)) == ("waking", [asked])


@pytest.mark.parametrize("stage", ["waking", "opening", "staying", "found", "adopting", "burying"])
def test_a_request_while_nothing_more_can_be_done_is_held(stage):
    power, asked = STAGES[stage](), request()
    assert power.knock(asked, NOW) == []
    assert asked in power.held


@pytest.mark.parametrize("stage", ["handover", "active"])
def test_a_request_that_was_still_in_the_stand_ins_queue_is_forwarded(stage):
    """Without this row the text of the protocol held it for ever."""
    power, asked = STAGES[stage](), request()
    assert power.knock(asked, NOW) == [Forward(asked, RUN)]


def test_a_request_while_draining_is_held_and_calls_the_instance_back():
    """Else an actor that calls itself while it is put to sleep waits for itself."""
    power, asked = draining(), request()
    assert power.knock(asked, NOW) == [Order("stay", RUN, ID, EPOCH, 1)]
    assert asked in power.held


def test_a_request_to_a_failed_actor_is_answered_at_once_with_reason_and_retry_after():
    power, asked = failed(), request()
    [answer] = power.knock(asked, NOW + GIVE_UP_S)
    assert answer == Answer(asked, "unavailable", "echo cannot be woken: nobody started it within 10 s", 1.0)


@pytest.mark.parametrize("stage", ["dormant", "waking", "opening", "draining", "staying", "failed"])
def test_a_request_that_may_not_wake_it_is_denied(stage):
    power, asked = STAGES[stage](), request()
    answer, told = power.knock(asked, NOW, allowed=False)
    assert (answer.code, told) == ("off_by_policy", Tell("denied", power.reason_denied()))
    assert asked not in power.held


def test_who_insists_is_denied_each_time_and_told_of_once():
    """Found by reading: a client that hammers at a closed gate filled the durable log, which then takes no more events."""
    power = dormant()
    power.knock(request(), NOW, allowed=False)
    assert kinds(power.knock(request(), NOW + DENIED_AGAIN_S - 0.1, allowed=False)) == ["Answer"]
    assert kinds(power.knock(request(), NOW + DENIED_AGAIN_S, allowed=False)) == ["Answer", "Tell"]


@pytest.mark.parametrize("stage", ["handover", "active", "found", "adopting"])
def test_policy_does_not_stand_between_a_request_and_whoever_is_awake(stage):
    assert not [e for e in STAGES[stage]().knock(request(), NOW, allowed=False) if isinstance(e, Answer)]


def test_two_requests_make_one_wake():
    """However many knock, one activation is in flight (6)."""
    power = waking(held=[request("a")])
    assert power.knock(request("b"), NOW) == []


def test_what_was_held_is_forwarded_in_the_order_of_arrival_before_the_stand_in_leaves():
    a, b = request("a"), request("b")
    power = waking(held=[a, b])
    done = power.active(power.id, RUN, NOW, revision=8, epoch=EPOCH)
    assert done == [Forward(a, RUN), Forward(b, RUN), Close(power.generation)]


# -- the hold -----------------------------------------------------------------------------------------------------------


def test_past_its_count_the_hold_answers_busy():
    power = waking(held=[request(str(n)) for n in range(HELD_MOST)])
    [answer] = power.knock(request("one more"), NOW)
    assert (answer.code, len(power.held)) == ("busy", HELD_MOST)


def test_past_its_bytes_the_hold_answers_busy():
    power = waking(held=[request("big", body=b"x" * HELD_BYTES_MOST)])
    [answer] = power.knock(request("one more"), NOW)
    assert answer.code == "busy"


def test_what_has_left_the_hold_has_left_its_room():
    power = waking(held=[request("big", body=b"x" * HELD_BYTES_MOST)])
    power.tick(NOW + 5.0)
    assert power.knock(request("one more", expires=NOW + 10.0), NOW + 5.0) == []


def test_a_held_request_is_answered_waking_before_its_own_deadline_and_no_other():
    a, b = request("a", expires=NOW + 1.0), request("b", expires=NOW + 2.0)
    power = waking(held=[a, b])
    answers = [e for e in power.tick(NOW + 1.0) if isinstance(e, Answer)]
    assert [(e.held, e.code, e.retry_after) for e in answers] == [(a, "waking", 1.0)]


def test_a_repeat_of_what_is_held_is_not_held_twice():
    power = waking(held=[request("a")])
    power.knock(request("a", again=True), NOW)
    assert len(power.held) == 1


def test_a_repeat_of_what_was_handed_over_and_lost_with_its_instance_is_held():
    power = waking(held=[request("a", idempotent=True)])
    power.active(power.id, RUN, NOW, revision=8, epoch=EPOCH)
    power.exited(power.id, RUN, NOW)
    power.knock(request("a", again=True), NOW)
    assert len(power.held) == 1


def test_a_first_copy_is_held_even_after_its_repeat():
    """The instance needs the first copy to know that the request was not begun."""
    power = waking(held=[request("a", again=True)])
    power.knock(request("a"), NOW)
    assert len(power.held) == 2


def test_the_same_id_of_two_callers_is_two_requests():
    power = waking(held=[request("a", reply="inbox.1")])
    power.knock(request("a", again=True, reply="inbox.2"), NOW)
    assert len(power.held) == 2


# -- waking (2) ---------------------------------------------------------------------------------------------------------


def test_the_order_to_start_is_repeated_until_it_is_answered():
    power = waking()
    assert power.tick(NOW + REPEAT_S - 0.01) == []
    assert power.tick(NOW + REPEAT_S) == [Activate(power.id, 7, EPOCH, "asked")]
    assert power.tick(NOW + REPEAT_S + 0.01) == []
    assert kinds(power.tick(NOW + 2 * REPEAT_S)) == ["Activate"]


def test_the_claim_has_moved_the_record_to_its_own_revision():
    assert handover().revision == 8


def test_an_instance_of_another_activation_is_not_listened_to():
    power = waking()
    assert power.active("echo-3-0", RUN, NOW, revision=8, epoch=EPOCH) == []
    assert power.state == "waking"


def test_it_is_active_when_the_stand_in_has_left_and_not_before():
    power = handover()
    assert power.state == "handover"
    assert prove(power) == [Swap("active", {})]
    assert power.state == "active"


def test_an_echo_of_an_earlier_turn_of_the_stand_in_proves_nothing():
    power = handover()
    assert power.proven(power.generation - 1, NOW) == []
    assert power.state == "handover"


def test_a_claim_that_was_not_heard_of_is_found_in_the_record():
    """`active` may be lost: after a second the record is read."""
    power = waking()
    assert power.tick(NOW + LOOK_S) == [Read()]
    owned = record(state="waking", owner=RUN, instance=power.id)
    assert kinds(power.read(owned, 8, NOW + LOOK_S)) == ["Open"]
    assert (power.state, power.run, power.revision) == ("adopting", RUN, 8)


def test_a_wake_that_nobody_claims_is_given_up_by_compare_and_set():
    power = waking()
    late = NOW + GIVE_UP_S
    assert power.tick(late) == [Read()]
    assert power.read(record(), 7, late) == [Swap("void", {"state": "dormant"})]
    assert power.state == "waking"


def test_a_wake_is_not_given_up_before_its_time():
    power = waking()
    assert power.read(record(), 7, NOW + GIVE_UP_S - 1.0) == []


def test_giving_up_that_loses_to_a_claim_waits_on():
    """Failing all the same left an instance serving beside a madre that said FAILED."""
    power = waking()
    late = NOW + GIVE_UP_S
    power.read(record(), 7, late)
    assert power.swapped("void", None, late) == [Read()]
    power.read(record(state="waking", owner=RUN, instance=power.id), 8, late)
    assert (power.state, power.run) == ("adopting", RUN)


def test_a_new_activation_has_a_new_id_and_the_revision_that_voided_the_last():
    power = waking(held=[request()])
    first = power.id
    power.exited(first, RUN, NOW, "it crashed")
    assert power.read(record(), 7, NOW) == [Swap("void", {"state": "dormant"})]
    [again] = power.swapped("void", 8, NOW)
    assert (again.revision, again.id != first) == (8, True)


def test_an_exit_before_the_claim_is_looked_into():
    """The process may have claimed, or have lost the claim to another."""
    power = waking()
    assert power.exited(power.id, RUN, NOW) == [Read()]
    power.read(record(state="waking", owner="run-b", instance=power.id), 8, NOW)
    assert (power.state, power.run) == ("adopting", "run-b")


def test_an_exit_of_an_earlier_activation_is_none_of_this_wake():
    assert waking().exited("echo-3-0", RUN, NOW) == []


def test_a_wake_is_counted_and_timed_when_it_leads_to_an_instance():
    power = waking()
    power.active(power.id, RUN, NOW + 0.012, revision=8, epoch=EPOCH)
    assert (power.wakes, power.last_wake_ms) == (1, 12.0)


def test_a_slow_wake_is_counted_and_timed_too():
    """Found by reading: a wake of over a second goes through ADOPTING, and was never counted."""
    power = waking()
    power.read(record(state="waking", owner=RUN, instance=power.id), 8, NOW + LOOK_S)
    prove(power, NOW + LOOK_S)
    power.active(power.id, RUN, NOW + 2.0, revision=8, epoch=EPOCH, stay=1)
    assert (power.wakes, power.last_wake_ms) == (1, 2_000.0)


def test_coming_back_from_a_drain_is_no_wake():
    power = staying()
    power.active(ID, RUN, NOW, revision=9, epoch=EPOCH, stay=1)
    assert power.wakes == 1


# -- sleeping (3) -------------------------------------------------------------------------------------------------------


def test_the_drain_is_sent_when_the_stand_in_is_proven_and_not_before():
    power = active()
    assert power.sleep("idle") == [Open(power.generation)]
    assert prove(power) == [Order("drain", RUN, ID, EPOCH, 0), Tell("draining", "idle")]


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "active"])
def test_only_an_active_instance_is_drained(stage):
    assert STAGES[stage]().sleep("idle") == []


def test_a_request_before_the_drain_is_sent_keeps_the_instance():
    power, asked = opening(), request()
    power.knock(asked, NOW)
    assert prove(power) == [Forward(asked, RUN), Close(power.generation)]


def test_a_forward_that_is_not_acknowledged_keeps_the_instance():
    """It would be sent to a private subject that nobody listens on any more."""
    power = active(held=[request()], acked=False)
    power.sleep("idle")
    assert prove(power) == [Close(power.generation)]


@pytest.mark.parametrize(("stage", "verb"), [("draining", "drain"), ("staying", "stay"), ("adopting", "stay")])
def test_orders_are_repeated_until_they_are_answered(stage, verb):
    power = STAGES[stage]()
    [order] = power.tick(NOW + REPEAT_S)
    assert (order.verb, order.stay) == (verb, power.stay)
    assert power.tick(NOW + REPEAT_S + 0.01) == []


@pytest.mark.parametrize("stage", ["staying", "adopting"])
def test_the_newest_stay_that_is_answered_hands_over(stage):
    power = STAGES[stage]()
    done = power.active(ID, RUN, NOW, revision=9, epoch=EPOCH, stay=1)
    assert (done[-1], power.state) == (Close(power.generation), "handover")


@pytest.mark.parametrize("stage", ["staying", "adopting"])
@pytest.mark.parametrize(("run", "epoch", "stay"), [(RUN, EPOCH, 0), (RUN, EPOCH, 2), (RUN, EPOCH - 1, 1), ("run-b", EPOCH, 1)])
def test_any_other_answer_is_not_the_one_that_was_asked_for(stage, run, epoch, stay):
    """A late answer to an older `stay` made madre leave while the instance left, too: no responders."""
    power = STAGES[stage]()
    assert power.active(ID, run, NOW, revision=9, epoch=epoch, stay=stay) == []


@pytest.mark.parametrize("stage", ["dormant", "failed", "handover", "active", "opening", "draining", "found", "burying"])
def test_an_answer_that_nobody_waits_for_changes_nothing(stage):
    power = STAGES[stage]()
    before = power.state, power.phase
    assert power.active(ID, RUN, NOW, revision=9, epoch=EPOCH, stay=power.stay) == []
    assert (power.state, power.phase) == before


def test_the_operators_wake_calls_a_draining_instance_back():
    assert draining().wake(NOW, "asked") == [Order("stay", RUN, ID, EPOCH, 1)]


def test_the_operators_wake_before_the_drain_keeps_the_instance():
    power = opening()
    assert power.wake(NOW, "asked") == [Close(power.generation)]


def test_the_operators_wake_is_not_forgotten_when_the_instance_was_already_gone():
    """Counterexample of the model: sleep; the instance leaves; wake sends `stay` to nobody; `slept` made it DORMANT."""
    power = draining()
    power.wake(NOW, "asked")
    power.slept(RUN, NOW)
    assert kinds(power.swapped("release", 10, NOW)) == ["Activate"]


@pytest.mark.parametrize("stage", ["found", "adopting", "burying"])
def test_a_wake_of_what_is_not_known_to_live_is_kept_until_it_is(stage):
    power = STAGES[stage]()
    assert power.wake(NOW, "asked") == []
    power.slept(RUN, NOW)
    assert kinds(power.swapped("release", 10, NOW))[-1] == "Activate"


def test_a_wake_that_was_answered_is_not_kept():
    power = draining()
    power.wake(NOW, "asked")
    power.active(ID, RUN, NOW, revision=9, epoch=EPOCH, stay=1)
    prove(power)
    power.sleep("idle")
    prove(power)
    power.slept(RUN, NOW)
    assert power.swapped("release", 10, NOW) == []


@pytest.mark.parametrize("stage", ["handover", "active"])
def test_waking_who_is_awake_does_nothing(stage):
    assert STAGES[stage]().wake(NOW, "asked") == []


@pytest.mark.parametrize("stage", ["dormant", "failed"])
def test_a_wake_wakes(stage):
    assert kinds(STAGES[stage]().wake(NOW, "asked")) == ["Activate"]


def test_who_slept_is_let_go_at_once():
    power = draining()
    assert kinds(power.slept(RUN, NOW)) == ["Swap"]
    assert power.swapped("release", 10, NOW) == []
    assert (power.state, power.run, power.revision, power.reason) == ("dormant", "", 10, "asleep")


def test_who_slept_while_requests_wait_is_followed_by_another():
    power = staying()
    power.slept(RUN, NOW)
    assert power.swapped("release", 10, NOW) == [Activate(power.id, 10, EPOCH, "requests wait")]


@pytest.mark.parametrize("stage", OWNED)
def test_the_stand_in_is_there_when_somebody_leaves_unasked(stage):
    power = STAGES[stage]()
    power.slept(RUN, NOW)
    assert power.standing


@pytest.mark.parametrize("stage", OWNED)
def test_a_stranger_who_slept_is_not_the_instance(stage):
    assert STAGES[stage]().slept("run-b", NOW) == []
