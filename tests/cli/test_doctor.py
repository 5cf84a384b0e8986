"""`doctor`: every check can pass and can fail, and what cannot be looked at is not called healthy."""

from __future__ import annotations

import json
import os
import socket
import time
from datetime import UTC, datetime, timedelta

import pytest

from bus.process import started_at
from gateway.cli import doctor
from gateway.cli.check import Check, Finding, examine, failed, passed, skipped
from gateway.cli.doctor import Patient
from gateway.cli.home import recorded
from schemas.errors import Failure

ACTORS = {"actors": [], "policy": "solo_madre", "mode": "solo_madre", "windows": []}


def run_here(home, **more: object) -> None:
    me = {"pid": os.getpid(), "born": started_at(os.getpid())}
    now = datetime.now(UTC).isoformat()
    document = {"nats_url": "", "supervisor": me, "started_at": now, **more}
    (home / "run.json").write_text(json.dumps(document))


@pytest.fixture
def patient(terminal, remote) -> Patient:
    return Patient(terminal.desk, None, remote)


@pytest.fixture
def listening():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield one.getsockname()[1]


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class TestReport:
    async def test_a_failure_inside_a_check_is_its_finding(self) -> None:
        """One check that breaks must not hide what the others would have found."""

        async def breaks(_: None) -> Finding:
            raise Failure("timeout", "no answer")

        async def denied(_: None) -> Finding:
            raise PermissionError(13, "no")

        async def works(_: None) -> Finding:
            return passed("fine")

        found = await examine([Check("a", breaks), Check("b", denied), Check("c", works)], None)
        assert [(name, one.verdict) for name, one in found] == [("a", "fail"), ("b", "fail"), ("c", "pass")]
        assert "no answer" in found[0][1].said

    @pytest.mark.parametrize(("finding", "code"), [(passed("x"), 0), (skipped("x"), 0), (failed("x", "do y"), 1)])
    def test_only_a_failure_is_bad_news(self, terminal, monkeypatch, finding, code) -> None:
        async def one(_: object) -> list[tuple[str, Finding]]:
            return [("it", finding)]

        monkeypatch.setattr(doctor, "_examine", one)
        assert terminal("doctor").code == code
        document = terminal("doctor", "--json").document
        assert document["ok"] == (code == 0)
        assert document["checks"][0]["verdict"] == finding.verdict

    def test_what_to_do_is_said_once(self, terminal, monkeypatch) -> None:
        async def two(_: object) -> list[tuple[str, Finding]]:
            return [("a", failed("x", "vx11 up")), ("a", failed("y", "vx11 up"))]

        monkeypatch.setattr(doctor, "_examine", two)
        assert terminal("doctor").err.count("vx11 up") == 1


def test_when_nothing_runs_the_machine_is_judged_and_the_rest_is_skipped(home, tmp_path) -> None:
    """Before the first start `doctor` says whether there can be one."""
    from gateway.cli.desk import Desk, run_async
    from gateway.cli.remote import open_remote
    from gateway.cli.screen import Screen

    from bus.settings import Settings  # isort: skip

    desk = Desk(Settings(tmp_path / "not" / "yet"), tmp_path, open_remote, Screen())
    found = dict(run_async(doctor._examine(desk)))
    assert {name for name, one in found.items() if one.verdict == "skip"} == {"connection", "round trip", "redis", "event log"}
    assert {name for name, one in found.items() if one.verdict == "fail"} == set()
    assert "`vx11 up` makes it" in found["home"].said
    assert not (tmp_path / "not").exists()


class TestChecks:
    async def test_an_old_python_fails(self, patient, monkeypatch) -> None:
        assert (await doctor._python(patient)).verdict == "pass"
        monkeypatch.setattr(doctor, "PYTHON", (99, 0))
        assert (await doctor._python(patient)).verdict == "fail"

    async def test_a_home_that_cannot_be_written_fails(self, patient, home, monkeypatch) -> None:
        assert (await doctor._home(patient)).verdict == "pass"
        assert list(home.iterdir()) == []
        monkeypatch.setattr(doctor.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        found = await doctor._home(patient)
        assert found.verdict == "fail"
        assert "No space left" in found.said
        assert list(home.iterdir()) == []

    async def test_a_full_disk_fails(self, patient, monkeypatch) -> None:
        monkeypatch.setattr("bus.space.RESERVE_MB", 0)
        assert (await doctor._disk(patient)).verdict == "pass"
        monkeypatch.setattr("bus.space.RESERVE_MB", 1 << 50)
        monkeypatch.setattr("bus.space.RESERVE_SHARE", 1.1)
        found = await doctor._disk(patient)
        assert found.verdict == "fail"
        assert "VX11_DISK_RESERVE_MB" in found.said

    async def test_a_clock_that_was_never_set_fails(self, patient, monkeypatch) -> None:
        assert (await doctor._clock(patient)).verdict == "pass"
        monkeypatch.setattr(doctor.time, "time", lambda: 1_000.0)
        assert (await doctor._clock(patient)).verdict == "fail"

    async def test_a_clock_that_was_set_back_since_the_start_fails(self, patient, home) -> None:
        """Deadlines are moments: they would all be in the past, or never come."""
        run_here(home, started_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
        patient.run = recorded(patient.desk.settings)
        assert "set back" in (await doctor._clock(patient)).said

    async def test_a_server_that_is_not_the_pinned_one_fails(self, patient, monkeypatch) -> None:
        from bus import nats_server, wheel

        assert "pinned" in (await doctor._nats_server(patient)).said
        monkeypatch.setattr(nats_server, "PINS", {wheel.this_platform(): "0" * 64})
        found = await examine([Check("nats-server", doctor._nats_server)], patient)
        assert found[0][1].verdict == "fail"
        assert "SHA-256" in found[0][1].said

    async def test_a_port_that_nobody_listens_on_fails(self, patient, home, listening) -> None:
        run_here(home, nats_url=f"nats://127.0.0.1:{listening}")
        patient.run = recorded(patient.desk.settings)
        assert (await doctor._ports(patient)).verdict == "pass"
        port = closed_port()
        run_here(home, nats_url=f"nats://127.0.0.1:{listening}", http_url=f"http://127.0.0.1:{port}")
        patient.run = recorded(patient.desk.settings)
        found = await doctor._ports(patient)
        assert found.verdict == "fail"
        assert f"gateway 127.0.0.1:{port}" in found.said

    async def test_usual_ports_that_are_taken_are_named(self, patient, monkeypatch, listening) -> None:
        monkeypatch.setattr(doctor, "USUAL_PORTS", {"bus": listening})
        assert f"{listening} (bus)" in (await doctor._ports(patient)).said
        monkeypatch.setattr(doctor, "USUAL_PORTS", {"bus": closed_port()})
        assert (await doctor._ports(patient)).said == "the usual ones are free"

    async def test_no_connection_fails_unless_nothing_runs(self, patient) -> None:
        assert (await doctor._connection(patient)).verdict == "pass"
        patient.remote, patient.trouble = None, "the server refuses the user client"
        assert (await doctor._connection(patient)).verdict == "fail"
        patient.trouble = "VX11 is not running here (/x)"
        assert (await doctor._connection(patient)).verdict == "skip"

    async def test_a_slow_round_trip_fails(self, patient, remote, monkeypatch) -> None:
        remote.answers["vx11.madre.list_actors"] = ACTORS
        assert (await doctor._round_trip(patient)).verdict == "pass"
        assert len(remote.asked) == doctor.ROUNDS
        clock = iter(range(1_000))
        monkeypatch.setattr(doctor.time, "perf_counter", lambda: float(next(clock)))
        assert (await doctor._round_trip(patient)).verdict == "fail"

    async def test_redis_answers_or_fails(self, patient, home, redis_server) -> None:
        run_here(home, redis_url=redis_server.url)
        patient.run = recorded(patient.desk.settings)
        assert (await doctor._redis(patient)).said.startswith("PONG")
        run_here(home, redis_url=f"redis://127.0.0.1:{closed_port()}/0")
        patient.run = recorded(patient.desk.settings)
        began = time.monotonic()
        found = await examine([Check("redis", doctor._redis)], patient)
        assert found[0][1].verdict == "fail"
        assert time.monotonic() - began < 5

    async def test_a_log_that_is_broken_or_not_kept_fails(self, patient, home, remote) -> None:
        assert (await doctor._event_log(patient)).verdict == "skip"
        run_here(home)
        patient.run = recorded(patient.desk.settings)
        assert "does not answer" in (await doctor._event_log(patient)).said
        remote.answers["vx11.keeper.get_log"] = log_state("whole")
        assert (await doctor._event_log(patient)).verdict == "pass"
        told = {"fault": "missing", "sequence": 9, "told": "event 9 is gone", "found_at": "2026-01-02T03:04:05.000Z"}
        remote.answers["vx11.keeper.get_log"] = log_state("broken", told)
        found = await doctor._event_log(patient)
        assert (found.verdict, "broken at 9" in found.said) == ("fail", True)


def log_state(state: str, *findings: dict[str, object]) -> dict[str, object]:
    place = {"sequence": 0, "hash": "00"}
    numbers = dict.fromkeys(
        ["first_sequence", "last_sequence", "lag", "checkpoints", "trimmed_through", "bytes", "max_bytes", "keep_days"], 1
    )
    return {
        "state": state,
        "reason": "because",
        "genesis": place,
        "head": place,
        "checkpoint": None,
        "verified_at": "",
        "findings": list(findings),
        "indexed_events": 1,
        "indexed_calls": 1,
        "undetectable": [],
        **numbers,
    }
