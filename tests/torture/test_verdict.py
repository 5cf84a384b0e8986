"""The checker finds what is planted among requests: losses, doubles, late work, two instances, wrong answers; no more."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gateway.torture import verdict as checker
from gateway.torture.history import HASTY, HTTP, KINDS, REFUSED, Asked, Execution, History, Struck
from gateway.torture.verdict import ENOUGH, LOSS, Verdict, overlaps, percentiles, recoveries

DEADLINE = 4.5


def clean(number: int = 40) -> tuple[list[Asked], list[Execution]]:
    """A history in which nothing went wrong: one request every 10 ms, two instances one after the other."""
    asked = [Asked(n, KINDS[n % 4], n / 100, "ok", n / 100 + 0.005, 1, of=n) for n in range(number)]
    executions = [Execution(a.n, f"i{a.n // 20}", a.sent + 0.002, a.sent + DEADLINE) for a in asked]
    for entry in asked:
        entry.deadline = 0.0 if entry.kind == "plain" else entry.sent + DEADLINE
    return asked, executions


def judge(asked: list[Asked], executions: list[Execution], struck: Sequence[Struck] = (), strays: int = 0) -> Verdict:
    return checker.judge(History(asked, executions, list(struck), end={"strays": strays}))


def kill(at: float, until: float, victim: str = "madre") -> Struck:
    return Struck("kill", victim, "any", at, until, until - at, until - at)


def one(kind: str, asked: list[Asked]) -> Asked:
    return next(a for a in asked[8:] if a.kind == kind)


def test_a_clean_history_holds():
    verdict = judge(*clean())
    assert verdict.broken == []
    assert verdict.outcomes == {kind: {"ok": 10} for kind in KINDS}
    assert (verdict.second_answers, verdict.executed_twice, verdict.executed_late, verdict.overlaps) == (0, 0, 0, [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_answer_is_found(kind):
    asked, executions = clean()
    one(kind, asked).outcome = ""
    [sentence] = judge(asked, executions).broken[:1]
    assert f"1 {kind} requests ended with 'no answer', which met no fault" in sentence


@pytest.mark.parametrize("outcome", ["crashed", "timeout", "waking", "unavailable", "busy", "internal", "no responders"])
def test_without_a_fault_no_error_is_excused(outcome):
    asked, executions = clean()
    one("once", asked).outcome = outcome
    assert any(repr(outcome) in sentence for sentence in judge(asked, executions).broken)


def test_a_tenth_of_a_percent_is_told_as_well():
    """Each other code is listed even where 99.9 % are good; below that the share itself is a broken promise."""
    asked, executions = clean(4_000)
    asked[9].outcome = "crashed"
    assert 1 - 1 / len(asked) > ENOUGH
    assert len(judge(asked, executions).broken) == 1
    for entry in asked[100:110]:
        entry.outcome = "crashed"
    assert any("only 3989 of 4000" in sentence for sentence in judge(asked, executions).broken)


@pytest.mark.parametrize(("kind", "outcome"), [(kind, outcome) for kind, loss in LOSS.items() for outcome in sorted(loss)])
def test_a_fault_excuses_what_it_met(kind, outcome):
    asked, executions = clean()
    hit = asked[20]
    hit.kind, hit.outcome = kind, outcome
    if outcome in REFUSED:
        del executions[20]
    assert judge(asked, executions, [kill(hit.sent - 0.05, hit.sent + 0.001)]).broken == []


@pytest.mark.parametrize(("at", "until"), [(-1.0, -0.5), (0.5, 1.0)])
def test_a_fault_excuses_nothing_that_it_did_not_meet(at, until):
    """Over before the request was sent, or begun after it had ended."""
    asked, executions = clean()
    hit = asked[20]
    hit.outcome = "crashed"
    assert judge(asked, executions, [kill(hit.sent + at, hit.sent + until)]).broken != []


@pytest.mark.parametrize(("outcome", "broken"), [("timeout", 0), ("waking", 0), ("crashed", 1), ("no answer", 1)])
def test_who_waits_for_a_moment_only_may_be_told_so(outcome, broken):
    asked, executions = clean()
    asked[20].kind, asked[20].outcome = HASTY, outcome
    del executions[20]
    assert len(judge(asked, executions).broken) == broken


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("again", "crashed"),
        ("again", "no answer"),
        ("once", "no answer"),
        ("once", "timeout"),
        ("stream", "internal"),
        (HTTP, "timeout"),
    ],
)
def test_some_outcomes_no_fault_excuses(kind, outcome):
    """A typed request has an answer or one clear error before its deadline; one that may be repeated has an answer."""
    asked, executions = clean()
    hit = asked[20]
    hit.kind, hit.outcome = kind, outcome
    [sentence] = judge(asked, executions, [kill(hit.sent, hit.ended)]).broken
    assert "which no fault excuses" in sentence


def test_a_second_answer_is_found():
    asked, executions = clean()
    asked[3].answers = 2
    verdict = judge(asked, executions)
    assert verdict.second_answers == 1
    assert verdict.broken == ["1 second answers without a fault"]


def test_a_message_to_an_inbox_that_waits_for_nothing_is_a_second_answer():
    verdict = judge(*clean(), strays=2)
    assert verdict.broken == ["2 second answers without a fault"]
    assert verdict.second_answers == 2


def test_an_answer_to_whoever_has_given_up_is_no_second_one():
    asked, executions = clean()
    asked[20].kind, asked[20].outcome = HASTY, "timeout"
    assert judge(asked, executions, strays=1).broken == []


def test_a_second_answer_to_a_request_that_met_no_fault_is_found_among_faults():
    asked, executions = clean()
    asked[3].answers = 2
    assert judge(asked, executions, [kill(asked[3].sent, asked[3].ended)]).broken == []
    assert judge(asked, executions, [kill(asked[30].sent, asked[30].ended)]).broken == ["1 second answers without a fault"]


def test_an_answer_after_a_stock_client_has_given_up_is_counted():
    asked, executions = clean()
    asked[20].outcome, asked[20].answers = "no answer", 1
    asked[24].outcome, asked[24].answers = "no answer", 0
    verdict = judge(asked, executions, [kill(asked[20].sent, asked[24].ended)])
    assert verdict.late_answers == 1


@pytest.mark.parametrize("kind", ["plain", "once", "stream"])
def test_a_second_execution_is_found(kind):
    asked, executions = clean()
    again = one(kind, asked)
    executions.append(Execution(again.n, "i1", 0.5, 9.0))
    verdict = judge(asked, executions, [kill(0.0, 9.0)])
    assert verdict.executed_twice == 1
    assert verdict.broken == [f"1 requests that may run once ran more often (first: number {again.n})"]


def test_what_may_be_repeated_may_run_twice():
    asked, executions = clean()
    executions.append(Execution(one("again", asked).n, "i1", 0.5, 9.0))
    assert judge(asked, executions).broken == []


def test_an_answer_without_an_execution_is_found():
    """An `ok` that nobody worked for is a lie."""
    asked, executions = clean()
    del executions[7]
    assert judge(asked, executions).broken == ["1 were answered ok but never executed (first: number 7)"]


def test_an_execution_after_the_deadline_is_found():
    asked, executions = clean()
    executions[-1].deadline = executions[-1].at - 0.03
    verdict = judge(asked, executions, [kill(0.0, 9.0)])
    assert verdict.executed_late == 1
    assert verdict.broken == [f"1 were executed after their deadline (first: number {asked[-1].n})"]


def test_an_execution_after_the_deadline_that_the_client_set_is_found_whatever_the_handler_was_told():
    """A deadline that was lost on the way would be seen by nobody else."""
    asked, executions = clean()
    hit = one("once", asked)
    executions[hit.n].deadline, executions[hit.n].at = 0.0, hit.deadline + 0.03
    assert judge(asked, executions, [kill(0.0, 9.0)]).executed_late == 1


def test_how_many_carried_a_deadline_is_counted():
    assert judge(*clean()).dated == 30


def test_an_answer_that_is_anothers_is_found():
    asked, executions = clean()
    asked[9].of, asked[13].of = 13, None
    verdict = judge(asked, executions, [kill(0.0, 9.0)])
    assert verdict.others == 2
    assert verdict.broken == ["2 got the answer to another's request (first: number 9)"]


@pytest.mark.parametrize("code", sorted(REFUSED - {"no responders"}))
def test_a_refusal_of_what_was_executed_is_found(code):
    """Who is refused asks again, and believes that nothing has been done."""
    asked, executions = clean()
    asked[9].kind, asked[9].outcome = HASTY, code
    assert judge(asked, executions, [kill(0.0, 9.0)]).refused_executed == 1
    del executions[9]
    assert judge(asked, executions, [kill(0.0, 9.0)]).refused_executed == 0


def test_work_that_nobody_asked_for_is_found():
    asked, executions = clean()
    executions.append(Execution(77, "i1", 0.35, 9.0))
    assert judge(asked, executions).broken == ["1 were executed that nobody asked for (first: number 77)"]


def test_a_request_without_a_deadline_is_never_late():
    asked, executions = clean()
    executions[-1].deadline = asked[-1].deadline = 0.0
    executions[-1].at = 99.0
    assert judge(asked, executions).executed_late == 0


@pytest.mark.parametrize(("n", "at"), [(5, 0.35), (30, 0.05)])
def test_two_instances_at_once_are_found(n, at):
    """The older one still worked after the younger had begun; or the younger began while the older worked."""
    asked, executions = clean()
    executions.append(Execution(n, executions[n].instance, at, 9.0))
    verdict = judge(asked, executions, [kill(0.0, 9.0)])
    assert len(verdict.overlaps) == 1
    assert any("two instances at once" in sentence for sentence in verdict.broken)


def test_an_instance_that_works_inside_the_time_of_another_is_found():
    spans = [("a", 0.0), ("a", 9.0), ("b", 4.0), ("c", 9.5)]
    assert overlaps([Execution(i, name, at, 0.0) for i, (name, at) in enumerate(spans)]) == [
        "echo b began at 4.000 while a worked until 9.000"
    ]


def test_instances_of_two_actors_may_work_at_once():
    spans = [("echo", "a", 0.0), ("echo2", "b", 4.0), ("echo", "a", 9.0), ("echo2", "c", 4.5), ("echo2", "b", 5.0)]
    assert overlaps([Execution(i, name, at, actor=actor) for i, (actor, name, at) in enumerate(spans)]) == [
        "echo2 c began at 4.500 while b worked until 5.000"
    ]


def test_a_system_that_is_not_itself_again_is_found():
    lost = Struck("kill", "host", "any", 0.1, 10.1, 0.2, None)
    assert judge(*clean(), [lost]).broken == ["not itself again after the kill of host"]


def test_crashed_requests_that_nobody_had_begun_are_counted():
    asked, executions = clean()
    asked[9].outcome = asked[21].outcome = "crashed"
    del executions[9]
    assert judge(asked, executions, [kill(0.0, 9.0)]).crashed_unbegun == 1


def test_percentiles():
    assert percentiles([float(n) for n in range(1_000, 0, -1)]) == (501.0, 991.0)
    assert percentiles([]) == (0.0, 0.0)


def test_recoveries_are_told_by_kind_and_all_together():
    struck = [Struck("kill", "madre", "any", n, n + 1.0, n / 100, n / 10) for n in range(200)]
    struck += [Struck("freeze", "actor", "waking", 500.0, 501.0, 0.5, None)]
    madre, actor, all_ = recoveries(struck)
    assert (madre.fault, madre.times, madre.answered_s, madre.recovered_s) == (
        "kill madre",
        200,
        (1.0, 1.98, 1.99),
        (10.0, 19.8, 19.9),
    )
    assert (actor.fault, actor.times, actor.recovered_s) == ("freeze actor", 1, (None, None, None))
    assert (all_.fault, all_.times, all_.recovered_s) == ("all", 201, (10.0, 19.8, None))


def test_one_kind_of_fault_needs_no_sum():
    assert [one.fault for one in recoveries([kill(1.0, 2.0)])] == ["kill madre"]
    assert recoveries([kill(1.0, float("inf"))]) == []
