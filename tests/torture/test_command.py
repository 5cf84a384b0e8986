"""`vx11 torture`: a system of its own, a table for people, a document for programs, an exit code that says whether it held."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from bus.settings import Settings
from gateway.cli import torture as command
from gateway.cli.app import app
from gateway.cli.desk import Desk
from gateway.cli.screen import Screen
from gateway.torture import run as runs
from gateway.torture.faults import MOMENTS, VICTIMS, Faults
from gateway.torture.history import Struck
from gateway.torture.run import Plan, Report
from gateway.torture.storm import Storm
from gateway.torture.verdict import Verdict
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
        "--seed", "3", "--payload", "100", "--storm", "10", home=tmp_path,
    )  # fmt: skip
    assert made.plan == Plan(
        cycles=5, rate=50.0, seconds=9.0, kills=("actor", "nats-server"), freezes=("madre",), seed=3, pad=100, storm=10
    )


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
        faults = Faults(None, None, None, kills=VICTIMS, freezes=VICTIMS, seed=seed)
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
    out = typed(home=tmp_path).stdout
    assert out.index("kill madre") < out.index("freeze actor")
    [madre] = [line for line in out.splitlines() if "kill madre" in line]
    assert madre.split()[2:] == ["2", "0.75", "s", "0.75", "s", "never", "never"]


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


def test_how_far_it_is_fits_one_line():
    report = Report(Plan(cycles=60, kills=("madre",)), requests=12_345, cycles=7, struck=[Struck("kill", "madre", "any", 1.0)])
    assert command._progress(report) == "7 of 60 cycles, 12,345 requests, 1 faults"
    report = Report(Plan(seconds=300.0), requests=5, seconds=12.3)
    assert command._progress(report) == "12 of 300 s, 5 requests"
