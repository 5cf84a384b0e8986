"""`doctor --contract`: each claim is tried on the system, and each check can say that it is not kept."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass, field
from typing import Any

import pytest

from bus.process import started_at
from gateway.cli import contract, house, scan
from gateway.cli.contract import SHAPES
from gateway.cli.home import Process, Running
from gateway.cli.house import Answered, House
from schemas.errors import Failure

ANSWER: dict[str, Any] = {
    "response": "yes",
    "model_used": "m",
    "model": "m",
    "latency_ms": 1.5,
    "correlation_id": "",
    "session_id": "",
    "message_id": "m1",
    "provider": "p",
    "status": "ok",
    "degraded": False,
    "history": "stored",
}
POLICY = {
    "policy": "solo_madre",
    "mode": "solo_madre",
    "active": True,
    "running": ["madre", "redis", "tentaculo_link"],
    "expected": ["madre", "redis", "tentaculo_link"],
}
SLEEPER = {"name": "switch", "state": "dormant", "gate": "on_demand", "wakes": 4}
CARD = {"name": "switch", "summary": "", "verbs": [{"name": "chat", "subject": "vx11.switch.chat"}]}


@dataclass
class FakeHouse(House):
    """A gateway that keeps the contract, until a test changes what it says."""

    bus_side: Any = None
    told: dict[tuple[str, str], Answered] = field(default_factory=dict)
    guard: dict[str, int] = field(default_factory=lambda: {"none": 401, "wrong": 403, "two": 400, "query": 401})

    @property
    def remote(self) -> Any:
        return self.bus_side

    async def ask(self, method, path, *, body=None, token=None, headers=None) -> Answered:
        if answer := self.told.get((method, path)):
            return answer
        kind = "wrong" if token else "query" if "?" in path else "two" if "Authorization" in (headers or {}) else ""
        kind = kind or ("none" if token == "" and path != "/health" else "")
        if kind:
            return Answered(self.guard[kind], {}, {})
        fields = next((fields for m, p, fields in SHAPES if (m, p) == (method, path)), ())
        return Answered(200, dict.fromkeys(fields, 0), headers or {})


@pytest.fixture
def well(home, remote) -> FakeHouse:
    """A system with nothing wrong."""
    me = Process(os.getpid(), started_at(os.getpid()))
    run = Running(home, "8", "nats://127.0.0.1:1", "http://127.0.0.1:2", "", "", "", me, {})
    made = FakeHouse(run, None, None, "right", bus_side=remote)  # type: ignore[arg-type]
    ids = {"correlation_id": made.correlation_id, "session_id": made.session_id}
    header = {house.CORRELATION: made.correlation_id}
    made.told["POST", "/operator/api/chat"] = Answered(200, {**ANSWER, **ids}, header)
    for subject in ("vx11.operator_backend.chat", "vx11.switch.chat"):
        made.records.append({"subject": subject, "correlation_id": made.correlation_id, "code": "ok"})
    status = "/madre/power/policy/solo_madre/status"
    services = {"expected_services": POLICY["expected"], "running_services": POLICY["expected"]}
    made.told["GET", status] = Answered(200, dict.fromkeys(SHAPES[-1][2], 0) | services, {})
    made.told["POST", "/madre/power/service/switch/wake"] = Answered(403, {"status": "OFF_BY_POLICY"}, {})
    lines = [
        {"message_id": "1", "role": "user", "text": house.SAID, "at": ""},
        {"message_id": "2", "role": "assistant", "text": "yes", "at": ""},
    ]
    kept = {"session_id": made.session_id, "title": "", "lines": lines}
    gone: list[bool] = []

    def get_session(_):
        if gone:
            raise Failure("not_found", "no such conversation")
        return kept

    def refuse(_):
        raise Failure("invalid", "no such field")

    madre = {"name": "madre", "summary": "", "verbs": [{"name": "probe", "subject": "vx11.madre.probe"}]}
    remote.answers |= {
        "vx11.madre.get_policy": POLICY,
        "vx11.madre.list_actors": {"actors": [SLEEPER], "policy": "solo_madre", "mode": "solo_madre", "windows": []},
        "vx11.madre.get_actor": lambda asked: {"status": SLEEPER, "card": madre if asked["name"] == "madre" else CARD},
        "vx11.madre.set_gate": SLEEPER,
        "vx11.madre.probe": refuse,
        "vx11.switch.chat": Failure("off_by_policy", "its gate is closed"),
        "vx11.madre.run_maintenance": {
            "status": "ok",
            "checks": {"streams": "ok"},
            "counts": {},
            "missing": ["database"],
            "elapsed_ms": 1.0,
        },
        "vx11.operator_backend.get_session": get_session,
        "vx11.operator_backend.delete_session": lambda _: gone.append(True) or {},
    }
    return made


def answers_chat(well: FakeHouse, **changed: Any) -> None:
    before = well.told["POST", "/operator/api/chat"]
    well.told["POST", "/operator/api/chat"] = Answered(200, {**before.body, **changed}, before.headers)


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(house, "RECORD_S", 0.0)


TO_COME = {"database integrity", "hormiguero readiness", "shubniggurath readiness"}


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.name)
async def test_a_system_that_keeps_its_word_passes(well, check, monkeypatch) -> None:
    """And what does not exist yet is neither passed nor failed, but named."""
    monkeypatch.setattr(contract, "ALWAYS", set(POLICY["expected"]))
    found = await check.look(well)
    assert found.verdict == ("later" if check.name in TO_COME else "pass"), found.said


def test_every_claim_of_the_issue_has_its_check() -> None:
    wanted = {
        "single entrypoint", "solo_madre default", "no hardcoded secrets", "no stubs", "correlation flow",
        "token guard", "database integrity", "dormant gates", "real operator backend", "chat switch-first",
        "e2e structure", "hormiguero readiness", "shubniggurath readiness",
    }  # fmt: skip
    assert {check.name for check in contract.CHECKS} == wanted


class TestBrokenWords:
    """One broken promise each."""

    async def test_another_socket_that_listens(self, well) -> None:
        with socket.socket() as stranger:
            stranger.bind(("127.0.0.1", 0))
            stranger.listen()
            found = await contract.single_entrypoint(well)
            assert found.verdict == "fail"
            assert f":{stranger.getsockname()[1]}" in found.said

    async def test_a_bus_that_can_be_reached_from_outside(self, well) -> None:
        with socket.socket() as bus:
            bus.bind(("0.0.0.0", 0))
            bus.listen()
            port = bus.getsockname()[1]
            well.run = Running(**{**vars(well.run), "nats_url": f"nats://127.0.0.1:{port}"})
            assert (await contract.single_entrypoint(well)).verdict == "fail"

    async def test_a_gateway_that_is_not_healthy(self, well) -> None:
        well.told["GET", "/health"] = Answered(503, {}, {})
        assert (await contract.single_entrypoint(well)).verdict == "fail"

    async def test_another_policy(self, well, remote) -> None:
        remote.answers["vx11.madre.get_policy"] = {**POLICY, "policy": "full"}
        found = await contract.solo_madre_default(well)
        assert (found.verdict, found.next) == ("fail", "vx11 policy solo_madre")

    async def test_one_of_the_three_is_not_running(self, well) -> None:
        """madre cannot see Redis; the gateway does."""
        told = well.told["GET", "/madre/power/policy/solo_madre/status"]
        told.body["running_services"] = ["madre", "tentaculo_link"]
        assert "not running: redis" in (await contract.solo_madre_default(well)).said

    async def test_a_gateway_that_expects_others(self, well) -> None:
        key = ("GET", "/madre/power/policy/solo_madre/status")
        well.told[key] = Answered(200, {"expected_services": ["madre"]}, {})
        assert (await contract.solo_madre_default(well)).verdict == "fail"

    async def test_a_secret_in_the_source(self, well, monkeypatch) -> None:
        monkeypatch.setattr(scan, "secrets", lambda: ["a.py:1: a key"] * 5)
        found = await contract.no_hardcoded_secrets(well)
        assert found.verdict == "fail"
        assert "and 2 more" in found.said

    async def test_a_token_that_was_once_shipped_and_still_opens(self, well) -> None:
        well.guard["wrong"] = 200
        assert (await contract.no_hardcoded_secrets(well)).verdict == "fail"

    async def test_a_key_that_others_can_read(self, well, home) -> None:
        (home / "nats").mkdir()
        (home / "nats" / "client.nk").touch(mode=0o644)
        (home / "nats" / "client.nk").chmod(0o644)
        assert "client.nk" in (await contract.no_hardcoded_secrets(well)).said

    async def test_a_stub_in_the_source(self, well, monkeypatch) -> None:
        monkeypatch.setattr(scan, "stubs", lambda: ["a.py:1: nothing"])
        assert (await contract.no_stubs(well)).verdict == "fail"

    async def test_a_verb_that_takes_anything(self, well, remote) -> None:
        remote.answers["vx11.madre.probe"] = {"ok": True}
        assert "probe" in (await contract.no_stubs(well)).said

    @pytest.mark.parametrize("lost", ["header", "body", "record"])
    async def test_a_correlation_id_that_gets_lost(self, well, impatient, lost) -> None:
        if lost == "header":
            chat = well.told["POST", "/operator/api/chat"]
            well.told["POST", "/operator/api/chat"] = Answered(200, chat.body, {})
        if lost == "body":
            answers_chat(well, correlation_id="another-one")
        if lost == "record":
            well.records.clear()
        found = await contract.correlation_flow(well)
        assert found.verdict == "fail"
        assert lost in found.said

    @pytest.mark.parametrize(("case", "status"), [("none", 200), ("wrong", 401), ("two", 200), ("query", 200)])
    async def test_a_hole_in_the_guard(self, well, case, status) -> None:
        well.guard[case] = status
        assert (await contract.token_guard(well)).verdict == "fail"

    async def test_a_guard_that_is_off(self, well) -> None:
        well.guard = dict.fromkeys(well.guard, 200)
        assert "the guard is off" in (await contract.token_guard(well)).said

    async def test_a_closed_gate_that_lets_through(self, well, remote) -> None:
        well.told["POST", "/madre/power/service/switch/wake"] = Answered(200, {}, {})
        assert (await contract.dormant_gates(well)).verdict == "fail"

    async def test_a_closed_gate_that_a_message_opens(self, well, remote) -> None:
        remote.answers["vx11.switch.chat"] = Failure("invalid", "it woke to say so")
        assert "answered invalid" in (await contract.dormant_gates(well)).said

    async def test_a_refusal_that_does_not_say_it_is_policy(self, well) -> None:
        well.told["POST", "/madre/power/service/switch/wake"] = Answered(403, {"error": "forbidden"}, {})
        assert (await contract.dormant_gates(well)).verdict == "fail"

    async def test_a_refused_sleeper_that_woke_all_the_same(self, well, remote) -> None:
        remote.answers["vx11.madre.get_actor"] = {"status": {**SLEEPER, "state": "active"}, "card": CARD}
        assert "woke" in (await contract.dormant_gates(well)).said

    async def test_the_gate_is_put_back_whatever_happens(self, well, remote) -> None:
        async def breaks(*_: Any, **__: Any) -> Answered:
            raise Failure("unavailable", "gone")

        well.ask = breaks
        with pytest.raises(Failure):
            await contract.dormant_gates(well)
        assert [body["gate"] for subject, body in remote.asked if subject == "vx11.madre.set_gate"] == [
            "closed",
            "on_demand",
        ]

    async def test_nobody_asleep_is_no_success(self, well, remote) -> None:
        awake = {"actors": [{**SLEEPER, "state": "active"}], "policy": "full", "mode": "full", "windows": []}
        remote.answers["vx11.madre.list_actors"] = awake
        assert (await contract.dormant_gates(well)).verdict == "skip"

    async def test_a_history_that_is_not_what_was_said(self, well, remote) -> None:
        remote.answers["vx11.operator_backend.get_session"] = {"session_id": "x", "title": "", "lines": []}
        assert (await contract.real_operator_backend(well)).verdict == "fail"

    async def test_a_history_that_is_unavailable(self, well) -> None:
        answers_chat(well, history="unavailable", reason="Redis is away")
        assert "Redis is away" in (await contract.real_operator_backend(well)).said

    async def test_a_conversation_that_survives_its_deletion(self, well, remote) -> None:
        remote.answers["vx11.operator_backend.delete_session"] = {}
        assert "still there" in (await contract.real_operator_backend(well)).said

    async def test_switch_that_was_not_asked(self, well, impatient) -> None:
        well.records.clear()
        assert (await contract.chat_switch_first(well)).verdict == "fail"

    async def test_another_that_answers_and_does_not_say_so(self, well) -> None:
        answers_chat(well, degraded=True, fallback_source=None, reason=None)
        assert (await contract.chat_switch_first(well)).verdict == "fail"
        answers_chat(well, degraded=True, fallback_source="madre", reason="no model")
        well._chat = None
        assert (await contract.chat_switch_first(well)).verdict == "pass"

    async def test_a_field_that_is_missing(self, well) -> None:
        well.told["GET", "/api/map"] = Answered(200, {"ok": True}, {})
        assert "GET /api/map" in (await contract.e2e_structure(well)).said

    async def test_a_field_of_another_kind(self, well) -> None:
        answers_chat(well, latency_ms="fast")
        assert "latency_ms" in (await contract.e2e_structure(well)).said

    async def test_a_look_that_wakes_somebody(self, well) -> None:
        class Waker(FakeHouse):
            async def ask(self, *words: Any, **options: Any) -> Answered:
                self.activated.append("switch")
                return await super().ask(*words, **options)

        well.__class__ = Waker
        assert "looking woke switch" in (await contract.e2e_structure(well)).said

    @pytest.mark.parametrize("name", ["correlation_flow", "real_operator_backend", "chat_switch_first", "e2e_structure"])
    async def test_a_chat_that_fails(self, well, name) -> None:
        well.told["POST", "/operator/api/chat"] = Answered(503, {"error": "unavailable"}, {})
        assert (await getattr(contract, name)(well)).verdict == "fail"

    async def test_maintenance_that_fails(self, well, remote) -> None:
        broken = {"status": "failed", "checks": {"streams": "gone"}, "counts": {}, "missing": [], "elapsed_ms": 1.0}
        remote.answers["vx11.madre.run_maintenance"] = broken
        assert (await contract.database_integrity(well)).verdict == "fail"

    async def test_a_database_that_is_there_is_judged(self, well, remote) -> None:
        checks = {"checks": {"integrity_check": "ok"}, "counts": {}, "missing": [], "elapsed_ms": 1.0}
        remote.answers["vx11.madre.run_maintenance"] = {"status": "ok", **checks}
        assert (await contract.database_integrity(well)).verdict == "pass"
        remote.answers["vx11.madre.run_maintenance"] = {"status": "partial", **checks}
        assert (await contract.database_integrity(well)).verdict == "fail"

    async def test_an_actor_that_exists_but_cannot_be_loaded(self, well, remote) -> None:
        there = {"actors": [{**SLEEPER, "name": "hormiguero"}], "policy": "full", "mode": "full", "windows": []}
        remote.answers["vx11.madre.list_actors"] = there
        assert (await contract.hormiguero(well)).verdict == "pass"
        broken = {"name": "hormiguero", "summary": "", "error": "ImportError"}
        remote.answers["vx11.madre.get_actor"] = {"status": SLEEPER, "card": broken}
        assert (await contract.hormiguero(well)).said == "ImportError"


def test_the_contract_needs_a_running_system(terminal) -> None:
    assert terminal("doctor", "--contract").code == 69


async def test_the_token_made_for_the_check_is_worthless_afterwards(home, nats_server) -> None:
    """Also when the check breaks in the middle."""
    import json

    from bus.settings import Settings
    from gateway.tokens import TokenFile

    me = {"pid": os.getpid(), "born": started_at(os.getpid())}
    run = {"nats_url": nats_server.url, "http_url": "http://127.0.0.1:1", "supervisor": me}
    (home / "run.json").write_text(json.dumps(run))
    (home / "nats").mkdir()
    shutil.copy(nats_server.seed_file("client"), home / "nats")
    with pytest.raises(RuntimeError):
        async with house.open_house(Settings(home)) as opened:
            assert not next(iter(TokenFile(home).read().values())).revoked
            assert opened.bus.connected
            raise RuntimeError
    assert [bool(one.revoked) for one in TokenFile(home).read().values()] == [True]
