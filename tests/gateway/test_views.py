"""What is shown of the whole: every field of the contract, nothing that was not observed, nobody woken."""

from __future__ import annotations

import asyncio
import re

import pytest

from gateway.http.observed import FRESH_S
from schemas.errors import Failure
from tests.gateway.scripted import LIST, NOW, actor, listed, window

CORE = {"madre", "redis", "tentaculo_link"}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
LOOKS = (
    "/vx11/status",
    "/operator/api/status",
    "/operator/capabilities",
    "/api/map",
    "/madre/power/status",
    "/madre/power/policy/solo_madre/status",
    "/metrics",
    "/operator/api/metrics",
    "/operator/api/config",
)


def gone(link) -> None:
    link.bus.answers[LIST] = Failure("unavailable", "nobody answers")


async def test_a_look_asks_madre_in_passing_and_nobody_else(link):
    """Passive: her idle clocks do not move, nobody wakes."""
    for path in LOOKS:
        assert (await link.get(path)).status == 200, path
    assert {asked.subject for asked in link.bus.asked} == {LIST}
    assert {asked.headers["vx11-passive"] for asked in link.bus.asked} == {"1"}


async def test_all_who_look_at_the_same_time_share_one_look(link):
    seen = await asyncio.gather(*(link.get("/api/map") for _ in range(50)))
    assert {reply.status for reply in seen} == {200}
    assert len(link.bus.asked) == 1


async def test_a_look_is_fresh_for_a_moment_only(link):
    await link.get("/api/map")
    link.bus.answers[LIST] = listed(actor("switch", "active"))
    async with asyncio.timeout(FRESH_S * 8):
        while not any(node["state"] == "up" for node in await nodes(link) if node["id"] == "switch"):
            await asyncio.sleep(0.01)


async def nodes(link) -> list[dict]:
    return (await link.get("/api/map")).json["nodes"]


async def test_the_public_status_has_every_field(link):
    said = (await link.get("/vx11/status", token=None)).json
    assert set(said) >= {
        "ok",
        "status",
        "module",
        "version",
        "timestamp",
        "mode",
        "policy",
        "ports",
        "modules",
        "madre_available",
        "switch_available",
        "summary",
    }
    assert (said["ok"], said["status"], said["module"]) == (True, "ok", "tentaculo_link")
    assert (said["mode"], said["policy"]) == ("solo_madre", "solo_madre")
    assert said["modules"] == {
        "madre": "up",
        "redis": "up",
        "tentaculo_link": "up",
        "operator_backend": "down",
        "switch": "down",
    }
    assert said["summary"] == {"healthy_modules": 5, "total_modules": 5, "all_healthy": True}
    assert said["ports"]["tentaculo_link"] == link.bound.public.port
    assert (said["madre_available"], said["switch_available"]) == (True, True)
    assert MOMENT.fullmatch(said["timestamp"])
    assert MOMENT.fullmatch(said["observed_at"])


async def test_the_operator_status_has_every_field(link):
    link.bus.answers[LIST] = listed(actor("switch", "active"), actor("operator_backend"), windows=[window("switch")])
    said = (await link.get("/operator/api/status", headers={"X-Correlation-Id": "conversation-7"})).json
    assert set(said) >= {"ok", "status", "policy", "degraded", "core_services", "optional_services", "data"}
    assert said["core_services"] == dict.fromkeys(CORE, True)
    assert set(said["optional_services"]["switch"]) >= {"status", "reason"}
    assert said["optional_services"]["switch"]["status"] == "up"
    data = said["data"]
    assert set(data) >= {"correlation_id", "operational_mode", "status", "modules", "dormant_services", "timestamp"}
    assert data["correlation_id"] == "conversation-7"
    assert data["modules"]["switch"] == {"status": "up", "port": 8002, "power": "active", "observed_at": NOW}
    (dormant,) = data["dormant_services"]
    assert set(dormant) >= {"name", "status", "port", "can_activate", "activation_window"}
    assert (dormant["name"], dormant["port"], dormant["can_activate"]) == ("operator_backend", 8011, True)


async def test_a_sleeper_in_a_window_says_which(link):
    link.bus.answers[LIST] = listed(actor("switch"), windows=[window("switch")])
    (dormant,) = (await link.get("/operator/api/status")).json["data"]["dormant_services"]
    assert dormant["activation_window"] == "w-1"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_capabilities_are_told_to_both_methods(link, method):
    """The seed's own command and its own table differ."""
    said = (await link.ask(method, "/operator/capabilities")).json
    data = said["data"]
    assert said["ok"] is True
    assert set(data) >= {"correlation_id", "operational_mode", "features", "dormant_services", "timestamp"}
    assert all(set(feature) == {"status", "enabled", "reason"} for feature in data["features"].values())
    assert {feature["status"] for feature in data["features"].values()} <= {"on", "off", "dormant"}
    assert all(set(one) >= {"name", "port", "reason", "activation", "can_activate"} for one in data["dormant_services"])
    assert data["features"]["chat"] == {
        "status": "dormant",
        "enabled": True,
        "reason": "operator_backend wakes when it is asked",
    }


async def test_what_is_closed_is_off_and_says_why(link):
    closed = actor("switch", allowed=False, gate="closed", reason="its gate is closed")
    link.bus.answers[LIST] = listed(closed)
    features = (await link.get("/operator/capabilities")).json["data"]["features"]
    assert features["models"] == {"status": "off", "enabled": False, "reason": "its gate is closed"}
    assert features["chat"]["status"] == "off"
    assert (await link.get("/vx11/status")).json["switch_available"] is False


async def test_the_map_has_every_node_and_the_edges_of_the_contract(link):
    said = (await link.get("/api/map")).json
    assert set(said) >= {"ok", "nodes", "edges", "counts", "timestamp"}
    assert {node["id"] for node in said["nodes"]} == CORE | {"operator_backend", "switch"}
    assert all(set(node) >= {"id", "label", "state", "port", "role"} for node in said["nodes"])
    declared = {(e["from"], e["to"], e["label"]) for e in said["edges"] if e["kind"] == "declared"}
    assert declared == {
        ("operator_backend", "tentaculo_link", "proxy"),
        ("tentaculo_link", "madre", "route"),
        ("madre", "redis", "cache"),
    }
    up = sum(node["state"] == "up" for node in said["nodes"])
    assert said["counts"] == {"services_up": up, "total_services": 5, "dormant_services": 2}
    assert up == 3
    sleeper = next(node for node in said["nodes"] if node["id"] == "switch")
    assert (sleeper["state"], sleeper["power"]) == ("down", "dormant")
    assert len(str(said)) < 5_000


async def test_an_actor_that_does_not_exist_has_no_node_and_no_edge(link):
    link.bus.answers[LIST] = listed(actor("switch"))
    said = (await link.get("/api/map")).json
    assert {node["id"] for node in said["nodes"]} == CORE | {"switch"}
    assert all("operator_backend" not in (edge["from"], edge["to"]) for edge in said["edges"])


@pytest.mark.parametrize(
    ("state", "health"),
    [
        ("dormant", "down"),
        ("waking", "down"),
        ("handover", "up"),
        ("active", "up"),
        ("draining", "up"),
        ("failed", "down"),
        ("adopting", "unknown"),
    ],
)
async def test_health_follows_the_power_state(link, state, health):
    link.bus.answers[LIST] = listed(actor("switch", state))
    assert next(node for node in await nodes(link) if node["id"] == "switch")["state"] == health


async def test_without_madre_nothing_is_up_that_was_not_seen(link):
    await link.get("/api/map")
    gone(link)
    async with asyncio.timeout(FRESH_S * 8):
        while (said := (await link.get("/api/map")).json)["ok"]:
            await asyncio.sleep(0.01)
    states = {node["id"]: (node["state"], node["power"]) for node in said["nodes"]}
    assert states["madre"] == ("down", "always")
    assert states["switch"] == states["operator_backend"] == ("unknown", "unknown")
    assert next(node for node in said["nodes"] if node["id"] == "switch")["observed_at"] == NOW
    status = (await link.get("/vx11/status")).json
    assert (status["ok"], status["status"], status["mode"], status["policy"]) == (False, "down", "unknown", "unknown")
    assert status["switch_available"] is False
    assert (await link.get("/madre/power/policy/solo_madre/status")).json["policy_active"] is None
    health = (await link.get("/operator/api/status")).json["core_health"]["madre"]
    assert health["last_seen"] < health["observed_at"]


async def test_without_a_connection_madre_is_unknown_not_down(link):
    """Who cannot look has seen nothing."""
    link.bus.connected = False
    assert (await link.get("/vx11/status")).json["modules"]["madre"] == "unknown"
    assert link.bus.asked == []


async def test_a_failed_actor_is_degraded_and_unwell(link):
    link.bus.answers[LIST] = listed(actor("switch", "failed", reason="it crashed three times"), actor("operator_backend"))
    status = (await link.get("/vx11/status")).json
    assert (status["status"], status["ok"], status["switch_available"]) == ("degraded", True, False)
    assert status["summary"] == {"healthy_modules": 4, "total_modules": 5, "all_healthy": False}
    assert (await link.get("/operator/api/status")).json["degraded"] is True


async def test_redis_is_seen_by_asking_it(link, cache):
    class Away:
        async def ping(self):
            raise Failure("unavailable", "the cache does not answer")

    link.parts.observed._cache = Away()
    said = (await link.get("/operator/api/status")).json
    assert (said["core_services"]["redis"], said["status"], said["ok"]) == (False, "degraded", True)


async def test_the_configuration_has_every_setting_with_its_source_and_no_secret(open_link):
    async with open_link(
        token="a-secret-of-my-own", given=frozenset({"VX11_TOKEN", "VX11_HTTP_RATE"}), other={"OPENAI_API_KEY": "sk-1"}
    ) as link:
        reply = await link.get("/operator/api/config")
    data = reply.json["data"]
    assert set(data) >= {
        "single_entrypoint",
        "solo_madre_default",
        "token_guard_enforced",
        "correlation_id_enabled",
        "endpoints",
        "timestamp",
    }
    assert (data["solo_madre_default"], data["token_guard_enforced"]) == (True, True)
    assert "POST /operator/api/chat" in data["endpoints"]
    settings = {line["name"]: (line["value"], line["source"]) for line in data["settings"]}
    assert settings["VX11_HTTP_BODY_BYTES"] == ("1048576", "default")
    assert settings["VX11_HTTP_RATE"] == ("200", "environment")
    assert settings["VX11_TOKEN"] == settings["OPENAI_API_KEY"] == ("***", "environment")
    assert "a-secret" not in reply.text
    assert "sk-1" not in reply.text


async def test_the_page_at_the_root_says_what_is_here_and_what_is_not_yet(link):
    reply = await link.get("/", token=None)
    assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "console is not built yet" in reply.text
