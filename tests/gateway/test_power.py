"""The power panel: what madre keeps in the shapes of the contract, and what she is asked."""

from __future__ import annotations

import pytest

from gateway.http.power import only_looks
from schemas.errors import Failure
from schemas.madre import Maintained, Moved, PolicyApplied, WindowClosed, WindowOpened
from tests.gateway.scripted import LIST, NOW, actor, listed, window
from tests.gateway.test_doors import is_error

CORE = ["madre", "redis", "tentaculo_link"]
POST_TASK = ("/madre/power/maintenance/post_task", "/madre/post_task")


def moved(name: str, to: str, **more) -> Moved:
    return Moved(service=name, from_="dormant", to=to, elapsed_ms=3.5, **more)  # type: ignore[arg-type]


async def test_the_status_has_every_field_of_every_service(link):
    link.bus.answers[LIST] = listed(
        actor("switch", "active", instance="i1", since=NOW, idle_s=2.0, wakes=3, last_wake_ms=9.5, reason="asked"),
        windows=[window("switch")],
        mode="windowed",
    )
    said = (await link.get("/madre/power/status")).json
    assert set(said) >= {"status", "services", "policy", "mode", "windows"}
    assert (said["policy"], said["mode"], said["windows"][0]["window_id"]) == ("solo_madre", "windowed", "w-1")
    services = {service["name"]: service for service in said["services"]}
    assert list(services) == [*CORE, "switch"]
    switch = services["switch"]
    assert set(switch) >= {
        "name",
        "state",
        "power",
        "instance",
        "since",
        "idle_s",
        "gate",
        "wakes",
        "last_wake_ms",
        "reason",
    }
    assert (switch["state"], switch["power"], switch["instance"], switch["wakes"]) == ("up", "active", "i1", 3)
    assert services["madre"]["gate"] is services["madre"]["wakes"] is None


async def test_solo_madre_is_active_when_only_the_three_run(link):
    said = (await link.get("/madre/power/policy/solo_madre/status")).json
    assert (said["status"], said["policy_active"]) == ("ok", True)
    assert (said["running_services"], said["expected_services"]) == (CORE, CORE)


@pytest.mark.parametrize(
    "seen", [listed(actor("switch", "active")), listed(actor("switch"), policy="full")], ids=["one more runs", "full"]
)
async def test_solo_madre_is_not_active_otherwise(link, seen):
    link.bus.answers[LIST] = seen
    assert (await link.get("/madre/power/policy/solo_madre/status")).json["policy_active"] is False


async def test_applying_the_policy_reports_what_really_happened_to_each(link):
    executed = [moved("switch", "dormant"), moved("operator_backend", "draining", error="it works on")]
    link.bus.answers["vx11.madre.apply_policy"] = PolicyApplied(status="partial", policy="solo_madre", executed=executed)
    said = (await link.post("/madre/power/policy/solo_madre/apply")).json
    assert (said["status"], said["policy"]) == ("partial", "solo_madre")
    assert said["executed"][0] == {
        "service": "switch",
        "from": "dormant",
        "to": "dormant",
        "elapsed_ms": 3.5,
        "error": None,
    }
    assert said["executed"][1]["error"] == "it works on"
    assert link.bus.of("vx11.madre.apply_policy")[0].body == {"policy": "solo_madre"}


@pytest.mark.parametrize("verb", ["wake", "sleep", "restart"])
async def test_a_service_is_moved_and_the_move_told(link, verb):
    link.bus.answers[f"vx11.madre.{verb}"] = moved("switch", "active")
    reply = await link.post(f"/madre/power/service/switch/{verb}", {"reason": "for a demo"})
    assert reply.json == {"service": "switch", "from": "dormant", "to": "active", "elapsed_ms": 3.5, "error": None}
    asked = link.bus.of(f"vx11.madre.{verb}")[0].body
    assert (asked["name"], asked["reason"]) == ("switch", "for a demo")


@pytest.mark.parametrize(
    ("path", "body", "code", "field"),
    [
        ("/madre/power/service/switch/wake", {"name": "madre"}, "invalid", "name"),
        ("/madre/power/service/switch/wake", {"why": "x"}, "invalid", "why"),
        ("/madre/power/service/swi%20tch/wake", {}, "not_found", None),
        ("/madre/power/window/open", {}, "invalid", "services"),
        ("/madre/power/window/open", {"services": []}, "invalid", "services"),
        ("/madre/power/window/open", {"services": ["switch"], "ttl_sec": "60"}, "invalid", "ttl_sec"),
        ("/madre/power/window/open", {"services": ["switch"], "mode": "forever"}, "invalid", "mode"),
        ("/madre/power/policy/solo_madre/apply", {"policy": "full"}, "invalid", "policy"),
    ],
)
async def test_what_does_not_fit_never_reaches_madre(link, path, body, code, field):
    reply = await link.post(path, body)
    assert is_error(reply, code)
    assert reply.json.get("field") == field
    assert link.bus.asked == []


async def test_a_window_opens_and_says_who_really_woke(link):
    awake = Moved(service="greeter", from_="active", to="active", elapsed_ms=0.0)  # since before
    woken = [moved("switch", "handover"), moved("operator_backend", "failed", error="it crashed"), awake]
    link.bus.answers["vx11.madre.open_window"] = WindowOpened(window=window("switch", "operator_backend"), woken=woken)
    said = (await link.post("/madre/power/window/open", {"services": ["switch", "operator_backend"], "ttl_sec": 60})).json
    assert set(said) >= {"window_id", "created_at", "deadline", "services_started", "state", "ttl_remaining_sec"}
    assert (said["status"], said["state"], said["services_started"]) == ("partial", "open", ["switch"])
    assert said["moves"][1]["error"] == "it crashed"


async def test_a_window_closes_and_says_who_really_sleeps(link):
    asleep = Moved(service="greeter", from_="dormant", to="dormant", elapsed_ms=0.0)  # since before
    slept = [Moved(service="switch", from_="active", to="dormant", elapsed_ms=3.5), asleep]
    link.bus.answers["vx11.madre.close_window"] = WindowClosed(window=window("switch"), slept=slept)
    said = (await link.post("/madre/power/window/close")).json
    assert (said["status"], said["state"], said["services_stopped"]) == ("ok", "closed", ["switch"])
    assert link.bus.of("vx11.madre.close_window")[0].body == {"window_id": None}


async def test_windows_are_listed_in_passing(link):
    link.bus.answers["vx11.madre.list_windows"] = {"windows": []}
    assert (await link.get("/madre/power/window")).json == {"windows": []}
    assert link.bus.of("vx11.madre.list_windows")[0].headers["vx11-passive"] == "1"


async def test_a_gate_is_set(link):
    link.bus.answers["vx11.madre.set_gate"] = actor("switch", gate="closed")
    reply = await link.ask("PUT", "/madre/power/gate/switch", {"gate": "closed"})
    assert (reply.status, reply.json["gate"]) == (200, "closed")
    assert link.bus.of("vx11.madre.set_gate")[0].body == {"name": "switch", "gate": "closed"}
    link.bus.answers["vx11.madre.set_gate"] = Failure("conflict", "the environment has closed it")
    assert is_error(await link.ask("PUT", "/madre/power/gate/switch", {"gate": "on_demand"}), "conflict")


def maintained(status="ok") -> Maintained:
    return Maintained(
        status=status, checks={"redis": "up"}, counts={"events": 7}, missing=["database", "backups"], elapsed_ms=12.5
    )


@pytest.mark.parametrize("path", POST_TASK)
async def test_a_post_task_says_what_it_found_and_what_does_not_exist_yet(link, path):
    link.bus.answers["vx11.madre.run_maintenance"] = maintained("partial")
    said = (await link.post(path, {"reason": "evening"})).json
    assert set(said) >= {
        "status",
        "out_dir",
        "db_path",
        "db_size_mb",
        "apply_retention",
        "sqlite",
        "backup",
        "backup_rotation",
        "retention",
        "log",
        "counts",
        "elapsed_ms",
    }
    assert (said["status"], said["apply_retention"], said["reason"]) == ("partial", False, "evening")
    assert (said["checks"], said["counts"], said["elapsed_ms"]) == ({"redis": "up"}, {"events": 7}, 12.5)
    nothing = {name for name, value in said.items() if value is None}
    assert nothing | {"database", "backups"} == set(said["missing"])
    assert "sqlite" in nothing


@pytest.mark.parametrize("path", POST_TASK)
async def test_at_the_alias_a_post_task_that_only_checks_needs_no_token(link, path):
    link.bus.answers["vx11.madre.run_maintenance"] = maintained()
    assert (await link.post(path, token=None, control=True)).status == 200
    assert (await link.post(path, {"apply": False}, token=None, control=True)).status == 200
    assert is_error(await link.post(path, {"apply": True}, token=None, control=True), "auth_required")
    assert (await link.post(path, {"apply": True}, control=True)).json["apply_retention"] is True
    assert [asked.body["apply"] for asked in link.bus.asked] == [False, False, True]


@pytest.mark.parametrize(
    ("body", "looks"),
    [
        (b"", True),
        (b"{}", True),
        (b'{"apply":false}', True),
        (b'{"apply":true}', False),
        (b'{"apply":1}', False),
        (b"{", False),
    ],
)
def test_what_might_act_counts_as_acting(body, looks):
    assert only_looks(body) is looks
