"""`status`, `wake`, `sleep`, `restart`, `gate`, `window`, `policy`: what is asked of madre, and how it is shown."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import Failure
from schemas.madre import ActorList, ActorStatus, Window

ACTORS = ActorList(
    actors=[
        ActorStatus(name="switch", state="dormant", gate="closed", gate_pinned=True, reason="the environment closed it"),
        ActorStatus(name="hormiguero", state="active", wakes=3, last_wake_ms=24.4, in_flight=2, held=1),
        ActorStatus(name="ears", state="failed", reason="exit 137"),
    ],
    policy="solo_madre",
    mode="windowed",
    windows=[Window(window_id="w1", services=["ears"], ttl_remaining_sec=90.0, reason="band practice")],
)


def moved(name: str, error: str | None = None) -> dict[str, Any]:
    went = {"from": "dormant", "to": "dormant" if error else "active"}
    return {"service": name, **went, "elapsed_ms": 12.3, "error": error}


@pytest.fixture
def with_actors(remote) -> None:
    remote.answers["vx11.madre.list_actors"] = ACTORS.model_dump(mode="json")


class TestStatus:
    def test_what_needs_a_person_comes_first(self, terminal, with_actors) -> None:
        out = terminal("status").out
        assert out.index("ears") < out.index("hormiguero") < out.index("switch")

    def test_each_line_says_state_gate_and_why(self, terminal, with_actors) -> None:
        lines = {line.split()[0]: line for line in terminal("status").out.splitlines() if line}
        assert "○ dormant" in lines["switch"]
        assert "closed (pinned)" in lines["switch"]
        assert "the environment closed it" in lines["switch"]
        assert "24 ms" in lines["hormiguero"]
        assert "2+1 held" in lines["hormiguero"]
        assert "✖ failed" in lines["ears"]
        assert "1 min left: band practice" in lines["window"]

    def test_programs_get_the_same_names_as_the_bus(self, terminal, with_actors) -> None:
        assert terminal("status", "--json").document == ACTORS.model_dump(mode="json")

    def test_nothing_is_cut_off_in_a_pipe(self, terminal, remote, with_actors) -> None:
        """`vx11 status | grep` must find what is there, however narrow the terminal was."""
        long = "because " * 60
        status = ActorStatus(name="x", state="dormant", reason=long)
        remote.answers["vx11.madre.list_actors"]["actors"].append(status.model_dump(mode="json"))
        assert long.strip() in terminal("status", COLUMNS="40").out

    def test_a_look_asks_for_nothing_else(self, terminal, remote, with_actors) -> None:
        terminal("status")
        assert remote.asked == [("vx11.madre.list_actors", {})]


class TestMoves:
    @pytest.mark.parametrize("verb", ["wake", "sleep", "restart"])
    def test_each_actor_is_told_in_turn(self, terminal, remote, verb) -> None:
        remote.answers[f"vx11.madre.{verb}"] = lambda request: moved(request["name"])
        ran = terminal(verb, "switch", "ears", "--reason", "a test")
        asked = [(subject, body["name"], body["reason"]) for subject, body in remote.asked]
        assert asked == [(f"vx11.madre.{verb}", "switch", "a test"), (f"vx11.madre.{verb}", "ears", "a test")]
        assert ran.code == 0
        assert ran.out.splitlines() == ["switch: dormant -> active, 12 ms", "ears: dormant -> active, 12 ms"]

    def test_one_failure_does_not_keep_the_others_from_being_told(self, terminal, remote) -> None:
        def answer(request):
            if request["name"] == "nobody":
                raise Failure("not_found", "there is no actor nobody")
            return moved(request["name"])

        remote.answers["vx11.madre.wake"] = answer
        ran = terminal("wake", "nobody", "switch")
        assert ran.code == 66
        assert "switch: dormant -> active" in ran.out
        assert "there is no actor nobody" in ran.err
        document = terminal("wake", "nobody", "switch", "--json").document
        assert [one["service"] for one in document["moved"]] == ["switch"]
        assert document["failed"][0]["error"] == "not_found"

    def test_what_went_wrong_inside_is_told_and_is_an_exit_code(self, terminal, remote) -> None:
        remote.answers["vx11.madre.wake"] = moved("switch", "exit 137")
        ran = terminal("wake", "switch")
        assert ran.code == 1
        assert "still dormant: exit 137" in ran.out


class TestGate:
    STATUS = ActorStatus(name="switch", state="dormant", gate="window", allowed=False).model_dump(mode="json")

    def test_it_is_shown_without_a_value(self, terminal, remote) -> None:
        card = {"name": "switch", "summary": ""}
        remote.answers["vx11.madre.get_actor"] = {"status": self.STATUS, "card": card}
        assert terminal("gate", "switch").out == "switch: window; may not wake now; dormant\n"

    def test_it_is_set_with_one(self, terminal, remote) -> None:
        remote.answers["vx11.madre.set_gate"] = self.STATUS
        assert terminal("gate", "switch", "window").code == 0
        assert remote.asked == [("vx11.madre.set_gate", {"name": "switch", "gate": "window"})]

    def test_there_are_three(self, terminal, remote) -> None:
        ran = terminal("gate", "switch", "ajar")
        assert ran.code == 2
        assert "on_demand" in ran.err
        assert remote.asked == []


class TestWindow:
    @pytest.fixture(autouse=True)
    def answers(self, remote) -> None:
        window = {"window_id": "w1", "services": ["switch"], "ttl_remaining_sec": 1800.0}
        remote.answers["vx11.madre.open_window"] = {"window": window, "woken": [moved("switch")]}
        remote.answers["vx11.madre.close_window"] = {"window": window, "slept": []}
        remote.answers["vx11.madre.list_windows"] = {"windows": []}

    @pytest.mark.parametrize(
        ("words", "ttl", "mode"),
        [((), 1_800.0, "ttl"), (("--for", "2h"), 7_200.0, "ttl"), (("--hold",), None, "hold")],
    )
    def test_it_lasts_half_an_hour_unless_told_otherwise(self, terminal, remote, words, ttl, mode) -> None:
        assert terminal("window", "open", "switch", *words).code == 0
        assert remote.asked[0][1] == {"services": ["switch"], "ttl_sec": ttl, "mode": mode, "reason": ""}

    @pytest.mark.parametrize("words", [("--for", "soon"), ("--for", "1h", "--hold")])
    def test_a_time_that_is_none_is_refused_before_anybody_is_asked(self, terminal, remote, words) -> None:
        assert terminal("window", "open", "switch", *words).code == 2
        assert remote.asked == []

    def test_the_only_one_needs_no_id(self, terminal, remote) -> None:
        terminal("window", "close")
        terminal("window", "close", "w1")
        assert [body for _, body in remote.asked] == [{"window_id": None}, {"window_id": "w1"}]

    def test_none_is_said(self, terminal) -> None:
        assert terminal("window", "ls").out == "no window is open\n"
        assert terminal("window", "ls", "--json").document == {"windows": []}


class TestPolicy:
    def test_it_is_shown_without_being_changed(self, terminal, remote) -> None:
        remote.answers["vx11.madre.get_policy"] = {
            "policy": "solo_madre",
            "mode": "solo_madre",
            "active": True,
            "running": ["madre", "redis"],
            "expected": ["madre"],
        }
        assert terminal("policy").out == "policy solo_madre, mode solo_madre; awake: madre, redis\n"
        assert [subject for subject, _ in remote.asked] == ["vx11.madre.get_policy"]

    def test_half_done_is_an_exit_code(self, terminal, remote) -> None:
        """A script that puts everything to sleep must notice that something stayed awake."""
        answer = {"status": "partial", "policy": "solo_madre", "executed": [moved("switch", "will not")]}
        remote.answers["vx11.madre.apply_policy"] = answer
        ran = terminal("policy", "solo_madre")
        assert ran.code == 1
        assert "will not" in ran.out
        assert remote.asked == [("vx11.madre.apply_policy", {"policy": "solo_madre"})]
