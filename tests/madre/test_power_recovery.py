"""The power machine after the worst: failures that repeat, a new madre, a server that was away, a record that was changed."""

from __future__ import annotations

import pytest

from actors.madre.effects import Activate, Answer, AskHost, Beat, Open, Order, Read, StepDown, Swap
from actors.madre.power import (
    BACKOFF_MOST_S,
    BURIAL_S,
    CRASHES_FREE,
    GIVE_UP_S,
    LOOK_S,
)
from tests.madre.stages import (
    EPOCH,
    ID,
    NOW,
    OWNED,
    RUN,
    STAGES,
    active,
    adopting,
    bury,
    burying,
    crash,
    dormant,
    failed,
    found,
    kinds,
    prove,
    record,
    request,
    waking,
)

GONE = {"owner": "", "instance": "", "host": "", "pid": 0, "born": 0.0, "card_version": ""}
RELEASE = Swap("release", {**GONE, "state": "dormant"})

# -- failing ------------------------------------------------------------------------------------------------------------


def test_a_few_crashes_are_answered_by_waking_again():
    power = waking()
    for n in range(CRASHES_FREE):
        assert kinds(crash(power, NOW + n)) == ["Activate"]


def test_one_crash_too_many_fails_and_answers_all_that_is_held():
    power, asked = waking(), request(expires=NOW + 100.0)
    for n in range(CRASHES_FREE):
        crash(power, NOW + n)
    power.active(power.id, RUN, NOW + 9.0, revision=power.revision + 1, epoch=EPOCH)
    power.exited(power.id, RUN, NOW + 9.0, "it crashed")
    power.knock(asked, NOW + 9.0)
    answer, told, written = bury(power, power.revision + 1, NOW + 9.0)
    assert (answer.held, answer.code, told.fact, written) == (asked, "unavailable", "failed", Swap("failed", {}))


def test_an_answered_request_between_two_crashes_makes_them_two_beginnings():
    power = waking()
    for n in range(CRASHES_FREE):
        crash(power, NOW + n)
    power.active(power.id, RUN, NOW, revision=power.revision + 1, epoch=EPOCH)
    power.beaten(Beat(RUN, answered=1), NOW)
    power.exited(power.id, RUN, NOW)
    power.wake(NOW, "asked")
    bury(power, power.revision + 1)
    assert power.state == "waking"


def test_a_heartbeat_without_an_answer_forgives_nothing():
    power = waking()
    crash(power)
    power.active(power.id, "run-b", NOW, revision=11, epoch=EPOCH)
    power.beaten(Beat("run-b"), NOW)
    assert power.crashes == 1


def test_a_clean_sleep_forgives():
    power = waking()
    crash(power)
    power.active(power.id, "run-b", NOW, revision=11, epoch=EPOCH)
    power.slept("run-b", NOW)
    power.swapped("release", 12, NOW)
    assert power.crashes == 0


@pytest.mark.parametrize(("crashes", "pause"), [(3, 1.0), (4, 2.0), (8, 32.0), (9, 60.0), (5_000, BACKOFF_MOST_S)])
def test_the_backoff_doubles_up_to_a_minute(crashes, pause):
    """Found by reading: after 1,026 failures, a day of them, the power of two overflowed and stopped the clock of all."""
    power = burying()
    power.crashes = crashes - 1
    [told, _] = bury(power, 10)
    assert told.retry_after == pause


def test_an_activation_that_died_counts_once():
    """Found by reading: it was counted twice, so that the backoff of a third death was that of a fifth."""
    power = waking()
    power.exited(power.id, RUN, NOW)
    power.read(record(), 7, NOW)
    power.swapped("void", 8, NOW)
    assert power.crashes == 1


def test_a_wake_by_the_operator_is_tried_again_like_one_by_a_request():
    """Found by reading: without a held request the first death before the claim was FAILED at once."""
    power = waking()
    power.exited(power.id, RUN, NOW)
    power.read(record(), 7, NOW)
    assert kinds(power.swapped("void", 8, NOW)) == ["Activate"]


def test_an_activation_that_died_when_nobody_waits_any_more_ends_asleep():
    power = waking(held=[request(expires=NOW + 1.0)])
    power.tick(NOW + 1.0)
    power.exited(power.id, RUN, NOW + 1.0)
    power.read(record(), 7, NOW + 1.0)
    assert power.swapped("void", 8, NOW + 1.0) == []
    assert power.state == "dormant"


def test_after_the_backoff_it_is_dormant_and_the_record_says_so():
    power = failed()
    assert power.tick(NOW + GIVE_UP_S + 0.9) == []
    assert power.tick(NOW + GIVE_UP_S + 1.0) == [Swap("rested", {})]
    assert (power.state, power.quiet) == ("dormant", True)


def test_a_wake_that_ended_in_failure_is_not_kept():
    """Else the backoff would end in a wake that nobody wants any more."""
    power = failed()
    power.tick(NOW + GIVE_UP_S + 1.0)
    power.swapped("rested", 10, NOW)
    assert (power.state, power.wanted) == ("dormant", False)


# -- a new madre, a server that was away (8) ----------------------------------------------------------------------------


def test_a_new_madre_stands_in_first_and_then_asks_the_owner_and_its_host():
    power = found()
    assert power.state == "adopting"
    assert prove(power) == [Order("stay", RUN, ID, EPOCH, 1), AskHost(RUN, ID, "h", 5, 2.0)]


def test_a_new_madre_stands_in_for_who_has_no_owner():
    power = STAGES["dormant"]()
    assert (power.state, power.standing, power.opened) == ("dormant", True, True)


@pytest.mark.parametrize("stage", STAGES)
def test_a_higher_epoch_in_the_record_means_another_madre(stage):
    power = STAGES[stage]()
    assert power.read(record(epoch=EPOCH + 1), 20, NOW) == [StepDown(EPOCH + 1)]


@pytest.mark.parametrize("purpose", ["release", "void", "active", "failed", "rested", "note", "mend"])
def test_a_record_that_somebody_else_has_changed_is_read(purpose):
    assert active().swapped(purpose, None, NOW) == [Read()]


def test_a_release_that_was_refused_is_tried_again_at_the_new_revision():
    power = burying()
    power.tick(NOW + BURIAL_S)
    power.swapped("release", None, NOW)
    assert power.read(record(owner=RUN), 12, NOW) == [RELEASE]
    assert power.revision == 12


@pytest.mark.parametrize("stage", OWNED)
def test_a_record_that_lost_its_owner_by_somebodys_hand_is_mended(stage):
    """Found by reading: the running instance was buried alive, and the next one started beside it."""
    power = STAGES[stage]()
    before = power.state
    assert power.read(None, 12, NOW) == [Swap("mend", {})]
    assert (power.state, power.run) == (before, RUN)


@pytest.mark.parametrize("stage", ["dormant", "failed"])
def test_an_owner_that_nobody_has_heard_of_is_asked(stage):
    power = STAGES[stage]()
    assert kinds(power.read(record(owner=RUN, instance=ID), 12, NOW)) == ["Open"]
    assert (power.state, power.run) == ("adopting", RUN)


def test_who_stood_still_counts_nobodys_silence_and_looks_at_the_record():
    power = active()
    assert power.late(NOW + 60.0) == [Read()]
    assert power.tick(NOW + 60.0) == []


def test_who_stood_still_with_nothing_in_hand_has_nothing_to_look_at():
    assert dormant().late(NOW) == []


@pytest.mark.parametrize("stage", OWNED)
def test_after_a_reconnect_whoever_was_awake_must_prove_itself_again(stage):
    """Subscriptions are gone; forwards may have vanished; nobody's silence during the outage counts."""
    power = STAGES[stage]()
    stay = power.stay
    assert power.reconnected(NOW + 60.0) == [Open(power.generation)]
    assert prove(power, NOW + 60.0)[0] == Order("stay", RUN, ID, EPOCH, stay + 1)
    assert not [e for e in power.tick(NOW + 60.0 + LOOK_S) if isinstance(e, AskHost) and e.kill]


def test_after_a_reconnect_a_wake_looks_at_the_record_at_once():
    power = waking()
    assert kinds(power.reconnected(NOW)) == ["Open"]
    assert power.tick(NOW) == [Read()]


def test_after_a_reconnect_a_burial_goes_on():
    power = burying()
    assert kinds(power.reconnected(NOW)) == ["Open"]
    assert power.tick(NOW + BURIAL_S) == [RELEASE]


@pytest.mark.parametrize("stage", ["dormant", "failed"])
def test_after_a_reconnect_sleepers_need_nothing(stage):
    """The client subscribes the stand-in again by itself."""
    assert STAGES[stage]().reconnected(NOW) == []


def test_a_host_that_was_started_anew_is_asked_about_who_was_awake():
    assert kinds(active().ask_host()) == ["AskHost"]
    assert dormant().ask_host() == []


# -- the record ---------------------------------------------------------------------------------------------------------


def test_nothing_is_noted_in_the_record_under_a_claim_that_is_on_its_way():
    """It would move the revision, and the claim of a healthy instance would be refused."""
    assert waking().note() == []
    assert dormant().note() == [Swap("note", {})]


def test_an_activation_names_the_revision_that_its_claim_replaces():
    power = dormant()
    power.swapped("note", 12, NOW)
    assert power.knock(request(), NOW) == [Activate("echo-3-2", 12, EPOCH, "a request for say")]


def test_a_read_that_brings_nothing_new_changes_nothing():
    power = adopting()
    assert power.read(record(owner=RUN), 12, NOW) == []
    assert (power.state, power.phase, power.revision) == ("adopting", "staying", 12)


def test_answers_to_what_is_held_are_errors_of_the_one_vocabulary():
    asked = request()
    power = waking(held=[asked])
    assert isinstance(power.tick(NOW + 4.5)[0], Answer)
