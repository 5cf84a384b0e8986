"""`vx11 torture`: a system of its own, a table for people, a document for programs, an exit code that says whether it held."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from bus.settings import Settings
from gateway.cli import torture as command
from gateway.cli import torture_report
from gateway.cli.app import app
from gateway.cli.desk import Desk
from gateway.cli.screen import Screen
from gateway.torture import run as runs
from gateway.torture.faults import MOMENTS, VICTIMS, Faults
from gateway.torture.history import RUN, Journal, Struck
from gateway.torture.lives import Events
from gateway.torture.run import Plan, Progress, Report
from gateway.torture.storm import Storm
from gateway.torture.verdict import Verdict, recoveries
from schemas.errors import CODES, Failure


def typed(*words: str, home: Path):
    """Type it; no environment, no terminal."""
    desk = Desk(Settings(home), home, None, Screen())
    return CliRunner().invoke(app, ["torture", *words], obj=desk, catch_exceptions=False)


@pytest.fixture
def made(monkeypatch, tmp_path):
    """What the command asked for, and what it is told instead of a run."""
    told = SimpleNamespace(report=Report(Plan()), plan=None, folder=None)

    async def torture(folder, plan, _):
        told.plan, told.folder = plan, folder
        (folder / "logs").mkdir()
        if isinstance(told.report, Failure):
            raise told.report
        told.report.plan = plan
        return told.report

    monkeypatch.setattr(runs, "torture", torture)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # what a broken run keeps to be looked at goes with the test
    return told


def broken() -> Report:
    verdict = Verdict(outcomes={"once": {"ok": 9, "crashed": 1}}, broken=["1 once requests ended with 'crashed'"])
    return Report(Plan(), cycles=3, requests=10, verdict=verdict)


@pytest.mark.timeout(60)
def test_it_runs_on_a_system_of_its_own_and_leaves_nothing_behind(tmp_path):
    """The home that the command line points to is not even looked at."""
    home = tmp_path / "data"
    home.mkdir()
    ran = typed("--cycles", "3", "--rate", "60", "--seed", "7", "--json", home=home)
    document = json.loads(ran.stdout)
    assert (ran.exit_code, document["ok"], document["cycles"], document["plan"]["seed"]) == (0, True, 3, 7)
    assert document["verdict"]["outcomes"]["plain"]["ok"] > 0
    assert list(home.iterdir()) == []
    assert document["folder"] == ""


def test_the_options_become_the_plan(made, tmp_path):
    typed(
        "--cycles", "5", "--rate", "50", "--seconds", "9", "--kill", "actor", "--kill", "nats-server", "--freeze", "madre",
        "--seed", "3", "--payload", "100", "--storm", "10", "--actors", "3", "--events", "7", "--at", "waking", "--at", "slept",
        home=tmp_path,
    )  # fmt: skip
    assert made.plan == Plan(
        cycles=5, rate=50.0, seconds=9.0, kills=("actor", "nats-server"), freezes=("madre",), seed=3, pad=100, storm=10,
        actors=3, events=7.0, moments=("waking", "slept"),
    )  # fmt: skip


def test_every_moment_can_be_named_and_all_are_meant_when_none_is(made, tmp_path):
    assert tuple(command.Moment) == MOMENTS
    typed(home=tmp_path)
    assert made.plan.moments == MOMENTS
    assert typed("--at", "midnight", home=tmp_path).exit_code == 2


def test_every_victim_can_be_named(made, tmp_path):
    assert tuple(command.Victim) == VICTIMS
    for victim in VICTIMS:
        assert typed("--kill", victim, "--freeze", victim, home=tmp_path).exit_code == 0
    assert typed("--kill", "everybody", home=tmp_path).exit_code == 2


def test_without_a_seed_one_is_drawn_and_shown(made, tmp_path):
    shown = {typed(home=tmp_path).stdout.partition("seed ")[2].split()[0] for _ in range(4)}
    assert len(shown) > 1


def test_the_same_seed_strikes_in_the_same_order():
    """A failure can be looked for again."""

    def order(seed: int) -> list[object]:
        faults = Faults(None, None, None, None, kills=VICTIMS, freezes=VICTIMS, seed=seed)
        return [faults._random.choice([*faults._strikes, *MOMENTS]) for _ in range(20)]

    assert order(1) == order(1) != order(2)


def test_a_promise_that_held_is_zero_and_its_folder_is_gone(made, tmp_path):
    ran = typed(home=tmp_path)
    assert ran.exit_code == 0
    assert "the promise held" in ran.stdout
    assert not made.folder.exists()


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_broken_promise_is_told_is_no_zero_and_keeps_its_traces(made, tmp_path, words):
    made.report = broken()
    ran = typed(*words, home=tmp_path)
    assert ran.exit_code == 1
    assert "ended with 'crashed'" in ran.stdout
    assert str(made.folder) in ran.stdout
    assert (made.folder / "logs").is_dir()


@pytest.mark.parametrize(
    "storm",
    [Storm(10, {"ok": 9, "busy": 1}, 1), Storm(10, {"ok": 10}, 2), Storm(10, {"ok": 10}, 0), Storm(10, {"ok": 10}, 1, 1)],
    ids=["not all answered", "woken twice", "never woken", "a second answer"],
)
def test_a_storm_can_break_the_promise(made, tmp_path, storm):
    made.report = Report(Plan(), storm=storm)
    ran = typed("--storm", "10", home=tmp_path)
    assert ran.exit_code == 1
    assert "BROKEN" in ran.stdout


def test_faults_are_told_with_how_long_they_lasted(made, tmp_path):
    made.report.struck = [
        Struck("kill", "madre", "any", 1.0, 2.0, 0.25, 0.5),
        Struck("kill", "madre", "any", 3.0, 9.0, 0.75, None),
        Struck("freeze", "actor", "waking", 10.0, 11.0, 0.125, 1.0),
    ]
    made.report.verdict.recoveries = recoveries(made.report.struck)
    out = typed(home=tmp_path).stdout
    assert out.index("kill madre") < out.index("freeze actor")
    [madre] = [line for line in out.splitlines() if "kill madre" in line]
    assert madre.split()[2:] == ["2", "0.75", "s", "0.75", "s", "0.75", "s", "never", "never", "never"]
    [every] = [line for line in out.splitlines() if line.startswith("all ")]
    assert every.split()[1] == "3"


def test_every_outcome_has_its_column(made, tmp_path):
    made.report.verdict = Verdict(outcomes={"plain": {"ok": 1_234, "no answer": 5}, "once": {"ok": 7, "crashed": 2}})
    lines = [line.split() for line in typed(home=tmp_path).stdout.splitlines()]
    assert ["requests", "ok", "no", "answer", "crashed"] in lines
    assert ["plain", "1,234", "5", "0"] in lines
    assert ["once", "7", "0", "2"] in lines


def test_a_system_that_does_not_start_is_a_failure_with_its_own_code(made, tmp_path):
    made.report = Failure("unavailable", "the scratch system did not start: no disk")
    ran = typed(home=tmp_path)
    assert ran.exit_code == CODES["unavailable"].exit
    assert "no disk" in ran.stderr
    assert not made.folder.exists()


def test_what_became_of_the_events_and_the_deadlines_is_told(made, tmp_path):
    events = Events(published=9, acked=8, handled=7, lost=1, handled_again=2)
    made.report.verdict = Verdict(outcomes={"once": {"ok": 3}}, dated=3, executed_late=2, events=events)
    out = typed(home=tmp_path).stdout
    assert "events: 9 published, 8 acknowledged, of these 7 handled" in out
    assert "lost: 1; not in the log: 0; handled again: 2" in out
    assert "with a deadline: 3; executed after it: 2" in out


def test_what_is_kept_stays_and_can_be_judged_again(made, tmp_path):
    """The history of a run that was fine, too; the second verdict needs nothing but the files."""
    folder = tmp_path / "kept"
    assert str(folder) in typed("--keep", str(folder), home=tmp_path).stdout
    assert made.folder == folder
    assert typed("--keep", str(folder), home=tmp_path).exit_code == CODES["conflict"].exit
    with Journal(folder / "history" / RUN) as journal:
        journal.write("begin", plan={"cycles": 7, "kills": ["madre"], "a later field": 1})
        journal.write("end", strays=0, cycles=7, seconds=1.5)
    for place in (folder, folder / "history"):
        ran = typed("--check", str(place), "--json", home=tmp_path)
        document = json.loads(ran.stdout)
        assert (ran.exit_code, document["ok"], document["cycles"], document["plan"]["kills"]) == (0, True, 7, ["madre"])


def test_a_history_that_breaks_off_is_said_to(tmp_path):
    with Journal(tmp_path / RUN) as journal:
        journal.write("begin", plan={})
    assert "ended before its end" in typed("--check", str(tmp_path), home=tmp_path).stdout


def test_without_a_history_there_is_nothing_to_check(tmp_path):
    assert typed("--check", str(tmp_path), home=tmp_path).exit_code == CODES["not_found"].exit


def test_how_far_it_is_is_told_in_a_few_lines():
    struck = Struck("kill", "madre", "waking", 1.0)
    now = Progress(Plan(kills=("madre",), events=5.0), "", 3.2, 7, 12_345, Counter(ok=12_300, crashed=2), 15, 14, [struck])
    assert torture_report.progress(now).splitlines() == [
        "7 of 60 cycles, 1 faults",
        "  requests  12,345: 12,300 ok, 2 crashed",
        "  events    15 acknowledged, 14 handled",
        "  last      kill madre at waking",
    ]
    struck.until, struck.answered_s, struck.recovered_s = 2.0, 0.25, 0.75
    assert torture_report.progress(now).splitlines()[-1].endswith("kill madre at waking; answered: 0.25 s, itself again: 0.75 s")
    struck.recovered_s = None
    assert torture_report.progress(now).endswith("answered: 0.25 s, itself again: never")


def test_how_far_it_is_in_a_run_of_so_many_seconds():
    now = Progress(Plan(seconds=300.0), "", 12.3, 40, 5, Counter(ok=5))
    assert torture_report.progress(now) == "12 of 300 s, 40 cycles\n  requests  5: 5 ok"
    assert torture_report.progress(Progress(Plan())) == "starting a scratch system"
