"""A history is on disk before anything else happens: what is read back is what was done, also after a kill of torture itself."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gateway.torture.history import (
    EVENTS,
    EXECUTIONS,
    FAULTS,
    HANDLED,
    LOG,
    REQUESTS,
    RUN,
    Asked,
    Execution,
    Journal,
    Logged,
    Struck,
    Told,
    lines,
    outcome_op,
    read_executions,
    read_history,
)
from gateway.torture.run import Plan, check, torture
from schemas.errors import Failure

TREE = Path(__file__).resolve().parents[2]
BEGIN = {"op": "begin", "plan": {}, "at": 0.0}


def written(folder: Path, name: str, *documents: dict) -> None:
    with Journal(folder / name) as journal:
        for document in documents:
            journal.line(**document)


def test_what_was_done_is_read_back(tmp_path):
    ask = {"op": "ask", "kind": "once", "actor": "echo2", "at": 1.0, "deadline": 21.0}
    end = {"at": 2.0, "held_ms": 7}
    written(tmp_path, RUN, BEGIN, {"op": "storm", "activations": 1, "strays": 0}, {"op": "end", "strays": 2, "cycles": 5})
    written(
        tmp_path, REQUESTS,
        {**ask, "n": 1}, {**ask, "n": 2}, {**ask, "n": 3}, {**ask, "n": 4, "kind": "plain", "deadline": 0.0},
        {"op": "ok", "n": 1, "code": "ok", "of": 1, **end}, {"op": "another", "n": 1, "code": "ok", "of": 1, **end},
        {"op": "unknown", "n": 2, "code": "crashed", "of": None, **end},
        {"op": "unknown", "n": 4, "code": "no answer", "of": None, **end},
    )  # fmt: skip
    written(tmp_path, EVENTS, {"op": "publish", "n": 0, "at": 1.0}, {"op": "ok", "n": 0, "at": 1.1, "code": "ok", "seq": 9})
    strike = {"op": "strike", "what": "kill", "victim": "madre", "moment": "any", "pid": 9, "at": 3.0}
    written(
        tmp_path, FAULTS,
        {**strike, "fault": 0}, {"op": "recovered", "fault": 0, "until": 4.0, "answered_s": 0.5, "recovered_s": 1.0},
        {**strike, "fault": 1}, {"op": "missed", "fault": 1}, {**strike, "fault": 2},
    )  # fmt: skip
    written(tmp_path, LOG, {"seq": 9, "subject": "vx11.events.torture.said", "at": 1.05, "body": {"n": 0}})
    history = read_history(tmp_path)
    assert history.asked == [
        Asked(1, "once", 1.0, "ok", 2.0, 2, 7, "echo2", 21.0, 1),
        Asked(2, "once", 1.0, "crashed", 2.0, 1, 7, "echo2", 21.0),
        Asked(3, "once", 1.0, actor="echo2", deadline=21.0),
        Asked(4, "plain", 1.0, "no answer", 2.0, 0, 7, "echo2"),
    ]
    assert history.told == [Told(0, 1.0, "ok", 1.1, 9)]
    assert history.struck == [
        Struck("kill", "madre", "any", 3.0, 4.0, 0.5, 1.0),
        Struck("kill", "madre", "any", 3.0, float("inf")),
    ]
    assert history.log == [Logged(9, "vx11.events.torture.said", 1.05, {"n": 0})]
    assert (history.storm, history.end) == ({"activations": 1, "strays": 0}, {"strays": 2, "cycles": 5})


@pytest.mark.parametrize(
    ("code", "op"),
    [
        ("ok", "ok"),
        ("busy", "failed"),
        ("unavailable", "failed"),
        ("crashed", "unknown"),
        ("timeout", "unknown"),
        ("no answer", "unknown"),
    ],
)
def test_an_outcome_says_whether_it_was_done_surely_not_done_or_unknown(code, op):
    assert outcome_op(code) == op


def test_a_line_that_a_kill_cut_off_is_not_read(tmp_path):
    sink = tmp_path / EXECUTIONS
    whole = {"n": 1, "actor": "echo", "instance": "a", "at": 10.5, "deadline": 15.0}
    sink.write_text(json.dumps(whole) + "\n" + json.dumps({**whole, "n": -1}) + "\n" + json.dumps(whole)[:30])
    assert read_executions(sink) == [Execution(1, "a", 10.5, 15.0)]


def test_a_broken_line_elsewhere_is_no_history(tmp_path):
    """Whatever was there may have been what breaks the promise."""
    (tmp_path / RUN).write_text('{"op": "begin"\n{"op": "end"}\n')
    with pytest.raises(Failure) as failed:
        list(lines(tmp_path / RUN))
    assert (failed.value.code, "line 1" in failed.value.message) == ("invalid", True)


def test_no_sink_is_no_execution(tmp_path):
    assert read_executions(tmp_path / HANDLED) == []


def test_no_history_is_told(tmp_path):
    with pytest.raises(Failure) as failed:
        read_history(tmp_path)
    assert failed.value.code == "not_found"


def test_what_comes_after_the_end_is_dropped(tmp_path):
    """A late answer to a stock client, when the system is being stopped already."""
    with Journal(tmp_path / REQUESTS) as journal:
        journal.write("ask", n=1)
    journal.write("another", n=1)
    assert [line["op"] for line in lines(tmp_path / REQUESTS)] == ["ask"]


@pytest.mark.timeout(120)
async def test_the_verdict_on_the_files_is_the_verdict_and_planted_wrongs_are_found_in_them(tmp_path):
    """A real history of two actors and a scribe, clean; then one line is taken out of each file, and each is missed."""
    home = tmp_path / "home"
    report = await torture(home, Plan(cycles=6, rate=100.0, actors=2, events=20.0))
    folder = home / "history"
    assert check(folder) == report
    assert (report.ok, report.finished, report.verdict.broken) == (True, True, [])
    assert {entry.actor for entry in read_history(folder).asked} == {"echo", "echo2"}
    assert report.verdict.events.handled == report.verdict.events.acked > 0
    assert report.verdict.dated > report.requests / 2
    assert _without(folder / EXECUTIONS, 3, folder) == ["1 were answered ok but never executed"]
    assert _without(folder / HANDLED, -1, folder) == ["1 acknowledged events were never handled"]
    assert "the event log jumps 1 time(s)" in _without(folder / LOG, 5, folder)


def _without(file: Path, number: int, folder: Path) -> list[str]:
    whole = file.read_bytes()
    kept = whole.splitlines(keepends=True)
    del kept[number]
    file.write_bytes(b"".join(kept))
    broken = check(folder).verdict.broken
    file.write_bytes(whole)
    return [sentence.partition(" (first")[0] for sentence in broken]


@pytest.mark.timeout(120)
async def test_a_torture_that_is_killed_leaves_a_history_that_can_be_judged(tmp_path):
    """kill -9 of torture itself in the middle; what was under way is counted, and nothing is called broken for it."""
    code = (
        "import asyncio, sys, pathlib; from gateway.torture.run import Plan, torture;"
        "asyncio.run(torture(pathlib.Path(sys.argv[1]), Plan(seconds=60.0, rate=100.0, events=10.0)))"
    )
    home = tmp_path / "home"
    process = await asyncio.to_thread(subprocess.Popen, [sys.executable, "-c", code, str(home)], cwd=TREE)
    try:
        requests = home / "history" / REQUESTS
        while not requests.exists() or requests.stat().st_size < 30_000:
            assert process.poll() is None
            await asyncio.sleep(0.02)
        left = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()
    report = check(home / "history")
    _, alive = psutil.wait_procs(left, timeout=20)
    assert alive == [], "its system ends with it"
    assert (report.ok, report.finished, report.verdict.broken) == (True, False, [])
    assert report.requests > 50
    assert report.verdict.outcomes["plain"]["ok"] > 0
    assert report.verdict.events.acked > 0
