"""What the command prints and says: a table for people, a document for programs, an exit code."""

from __future__ import annotations

import json

import pytest

from tests.bench import __main__ as command
from tests.bench.numbers import Rounds
from tests.bench.report import Claim, Figure


def figure(*claims: Claim) -> Figure:
    rounds = Rounds()
    for ours, theirs in ((1.0, 2.0), (3.0, 4.0), (2.0, 4.0)):
        rounds.add("ours", us=ours)
        rounds.add("theirs", us=theirs, p99_ms=7.0)
    return Figure("speed", "how it was measured", rounds, claims)


@pytest.mark.parametrize(
    ("claim", "holds", "gross"),
    [
        (Claim("more is better", 0.8, least=0.75, gross=0.3), True, False),
        (Claim("more is better", 0.5, least=0.75, gross=0.3), False, False),
        (Claim("more is better", 0.2, least=0.75, gross=0.3), False, True),
        (Claim("less is better", 1.0, most=1.5, gross=3.0), True, False),
        (Claim("less is better", 2.0, most=1.5, gross=3.0), False, False),
        (Claim("less is better", 4.0, most=1.5, gross=3.0), False, True),
        (Claim("told only", 4.0), None, False),
        (Claim("told only, within reason", 4.0, gross=3.0), None, True),
    ],
)
def test_a_claim_holds_is_broken_or_grossly_so(claim, holds, gross):
    assert (claim.holds, claim.grossly_broken) == (holds, gross)


def test_the_document_has_every_round_and_what_was_asked():
    document = json.loads(json.dumps(figure(Claim("time", 0.5, (0.9, 1.1), most=0.75)).document()))
    assert document["measured"]["ours"] == {"us": {"median": 2.0, "rounds": [1.0, 3.0, 2.0]}}
    assert document["claims"] == [{"what": "time", "value": 0.5, "unit": "", "noise": [0.9, 1.1], "holds": True, "most": 0.75}]


def test_the_table_leaves_out_what_was_not_measured_and_shows_the_noise():
    lines = list(figure(Claim("time", 0.5, (0.9, 1.1), most=0.25)).lines())
    assert lines[0] == "== speed: how it was measured"
    assert [line.split() for line in lines[2:4]] == [["ours", "2"], ["theirs", "4", "7"]]
    assert lines[-1].split() == ["time", "0.5", "<=", "0.25", "0.90", "to", "1.10", "BROKEN"]


def run(monkeypatch, capsys, *words, claim):
    monkeypatch.setattr(command, "FIGURES", {"speed": lambda home, rounds: figure(claim)})
    code = command.main(words)
    return code, capsys.readouterr().out


def test_the_command_says_by_its_exit_code_whether_all_claims_hold(monkeypatch, capsys):
    """`make bench` in a script."""
    assert run(monkeypatch, capsys, claim=Claim("time", 1.0, most=2.0))[0] == 0
    assert run(monkeypatch, capsys, claim=Claim("time", 3.0, most=2.0))[0] == 1


def test_the_command_prints_one_document_for_programs(monkeypatch, capsys):
    _, out = run(monkeypatch, capsys, "speed", "--json", claim=Claim("time", 1.0, most=2.0))
    document = json.loads(out)
    assert document["machine"]["cores"] >= 1
    assert [one["figure"] for one in document["figures"]] == ["speed"]


def test_a_figure_that_does_not_exist_is_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, "speeed", claim=Claim("time", 1.0))
