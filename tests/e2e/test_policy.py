"""Who may be awake: gates, windows, leases and the policy, set by HTTP or on the bus, and kept through madre's death."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tests.e2e.house import House, until

VARIABLES = {"VX11_GATE_SWITCH": "closed", "VX11_GATE_OPERATOR_BACKEND": "on_demand"}
"""switch is pinned; of operator_backend the environment says only where it begins."""
TTL_S = 0.5
OPEN = "/madre/power/window/open"
CLOSE = "/madre/power/window/close"


@pytest.fixture(autouse=True)
async def calm(home: House):
    """Every test begins with gates and windows as they are at the start, and everybody asleep."""
    for window in (await home.get("/madre/power/window")).json["windows"]:
        await home.post(CLOSE, {"window_id": window["window_id"]})
    for name in ("notebook", "operator_backend"):
        await home.order("set_gate", name=name, gate="on_demand")
    await home.post("/madre/power/policy/solo_madre/apply")
    return home


async def ask(home: House, actor: str = "notebook", verb: str = "list_lines"):
    return await home.post(f"/call/{actor}/{verb}")


async def set_gate(home: House, gate: str, name: str = "notebook"):
    return await home.ask("PUT", f"/madre/power/gate/{name}", {"gate": gate})


def is_denied(document: dict, service: str) -> bool:
    """The one shape of an answer that policy gives."""
    return (
        document["error"] == "off_by_policy"
        and document["status"] == "OFF_BY_POLICY"
        and document["service"] == service
        and bool(document["message"])
        and bool(document["correlation_id"])
        and bool(document["recommended_action"])
    )


# -- gates ---------------------------------------------------------------------------------------------------------------


async def test_a_closed_gate_is_told_as_policy_by_http(home: House) -> None:
    await set_gate(home, "closed")
    before = await home.last_event()
    answer = await ask(home)
    assert answer.status == 403
    assert is_denied(answer.json, "notebook")
    facts = {one.subject for one in await home.events(before)}
    assert "vx11.events.power.denied.notebook" in facts
    assert "vx11.events.power.activate.notebook" not in facts


async def test_a_closed_gate_is_told_as_policy_on_the_bus(home: House) -> None:
    await set_gate(home, "closed")
    async with home.stock() as client:
        answer = await client.request("vx11.notebook.list_lines", b"{}", timeout=5.0)
    assert answer.headers["Nats-Service-Error-Code"] == "403"
    assert is_denied(json.loads(answer.data), "notebook")


async def test_what_is_off_by_policy_is_no_fault(home: House) -> None:
    """The original showed it as disconnected, and its users went looking for what was broken."""
    await set_gate(home, "closed")
    await ask(home)
    status = (await home.get("/operator/api/status")).json
    assert (status["ok"], status["status"], status["degraded"]) == (True, "ok", False)
    assert status["optional_services"]["notebook"]["status"] == "down"
    (dormant,) = [one for one in status["data"]["dormant_services"] if one["name"] == "notebook"]
    assert (dormant["can_activate"], dormant["activation"]) == (False, "closed")


async def test_an_operator_may_not_wake_through_a_closed_gate_either(home: House) -> None:
    await set_gate(home, "closed")
    answer = await home.post("/madre/power/service/notebook/wake")
    assert answer.status == 403
    assert is_denied(answer.json, "notebook")


async def test_an_opened_gate_lets_it_wake(home: House) -> None:
    await set_gate(home, "closed")
    answer = await set_gate(home, "on_demand")
    assert (answer.status, answer.json["gate"], answer.json["allowed"]) == (200, "on_demand", True)
    assert (await ask(home)).status == 200


async def test_closing_a_gate_puts_to_sleep(home: House) -> None:
    await ask(home)
    await set_gate(home, "closed")
    await home.asleep("notebook")
    assert (await ask(home)).status == 403


async def test_closing_a_gate_lets_what_is_in_hand_finish(home: House) -> None:
    writing = asyncio.create_task(home.post("/call/notebook/write", {"text": "to the end", "seconds": 0.5}))
    await home.begun("to the end")
    await set_gate(home, "closed")
    assert (await writing).status == 200
    await home.asleep("notebook")


async def test_a_gate_that_closes_while_its_actor_wakes_is_obeyed(home: House) -> None:
    """What was accepted before is served; then it sleeps."""
    for _ in range(3):
        first, _, *_ = await asyncio.gather(ask(home), set_gate(home, "closed"))
        assert first.status in (200, 403)
        await home.asleep("notebook")
        assert (await ask(home)).status == 403
        await set_gate(home, "on_demand")


async def test_a_gate_survives_madre(home: House) -> None:
    await set_gate(home, "closed")
    await home.back("madre", await home.kill("madre"))
    answer = await ask(home)
    assert answer.status == 403
    assert is_denied(answer.json, "notebook")


async def test_a_gate_that_the_environment_closed_is_pinned(home: House) -> None:
    """Whoever starts VX11 has the last word; and the answer says which variable it was."""
    answer = await set_gate(home, "on_demand", "switch")
    assert (answer.status, answer.json["error"]) == (409, "conflict")
    assert "VX11_GATE_SWITCH" in answer.json["message"]
    status = await home.status("switch")
    assert (status["gate"], status["gate_pinned"], status["allowed"]) == ("closed", True, False)


async def test_what_was_set_goes_before_what_the_environment_says(home: House) -> None:
    answer = await set_gate(home, "window", "operator_backend")
    assert (answer.status, answer.json["gate"], answer.json["gate_pinned"]) == (200, "window", False)


@pytest.mark.parametrize(
    ("name", "gate", "status"), [("nobody", "closed", 404), ("notebook", "ajar", 400), ("a.b", "closed", 404)]
)
async def test_a_gate_that_does_not_exist_is_refused(home: House, name: str, gate: str, status: int) -> None:
    """In her first seconds madre cannot know who does not exist: 503."""

    async def refused() -> bool:
        answer = await set_gate(home, gate, name)
        assert answer.status in (status, 503)
        return answer.status == status

    await until(refused, f"it is refused with {status}")


async def test_when_the_chat_may_not_wake_madre_answers(home: House) -> None:
    await set_gate(home, "closed", "operator_backend")
    answer = await home.chat("who is awake?")
    assert (answer.status, answer.json["provider"], answer.json["degraded"]) == (200, "madre", True)
    assert "off_by_policy" in answer.json["reason"]
    streamed = await home.chat_stream("who is awake?")
    assert [one.name for one in streamed] == ["chunk", "reply"]
    assert streamed[-1].data["provider"] == "madre"


async def test_when_only_switch_may_not_wake_the_chat_says_why(home: House) -> None:
    """switch is pinned here. The history is kept all the same."""
    answer = (await home.chat("hello")).json
    assert (answer["provider"], answer["history"]) == ("madre", "stored")
    assert "switch is off by policy" in answer["reason"]


# -- windows -------------------------------------------------------------------------------------------------------------


async def test_a_window_wakes_and_says_who_really_woke(home: House) -> None:
    answer = await home.post(OPEN, {"services": ["notebook", "switch"], "ttl_sec": 60})
    assert answer.status == 200
    assert (answer.json["status"], answer.json["state"], answer.json["services_started"]) == ("partial", "open", ["notebook"])
    (failed,) = [move for move in answer.json["moves"] if move["error"]]
    assert failed["service"] == "switch"
    assert "off_by_policy" in failed["error"]
    assert 0 < answer.json["ttl_remaining_sec"] <= 60
    assert (await home.states())["notebook"] == "active"
    assert (await home.get("/vx11/status")).json["mode"] == "windowed"


async def test_a_window_lets_through_a_gate_that_waits_for_one(home: House) -> None:
    await set_gate(home, "window")
    assert (await ask(home)).status == 403
    opened = (await home.post(OPEN, {"services": ["notebook"], "ttl_sec": 60})).json
    assert opened["services_started"] == ["notebook"]
    assert (await ask(home)).status == 200
    await home.post(CLOSE, {"window_id": opened["window_id"]})
    assert (await ask(home)).status == 403


async def test_a_window_ends_by_itself_and_drains(home: House) -> None:
    begun = time.monotonic()
    await home.post(OPEN, {"services": ["notebook"], "ttl_sec": TTL_S})
    await home.asleep("notebook")
    assert time.monotonic() - begun >= TTL_S
    assert (await home.get("/madre/power/window")).json["windows"] == []
    assert "window has ended" in json.dumps(await home.order("explain", name="notebook"))


async def test_the_end_of_a_window_lets_what_is_in_hand_finish(home: House) -> None:
    await home.post(OPEN, {"services": ["notebook"], "ttl_sec": TTL_S})
    answer = await home.post("/call/notebook/write", {"text": "beyond the window", "seconds": 1.5 * TTL_S})
    assert answer.status == 200
    await home.asleep("notebook")


async def test_a_window_survives_madre_and_ends_on_time(home: House) -> None:
    """The original forgot its windows, and whom it had woken for them stayed awake."""
    begun = time.monotonic()
    opened = (await home.post(OPEN, {"services": ["notebook"], "ttl_sec": 4 * TTL_S, "reason": "to be kept"})).json
    await home.back("madre", await home.kill("madre"))
    await until(lambda: answers(home), "madre answers")
    (kept,) = (await home.order("list_windows"))["windows"]
    assert (kept["window_id"], kept["services"], kept["reason"]) == (opened["window_id"], ["notebook"], "to be kept")
    await home.asleep("notebook")
    assert time.monotonic() - begun >= 4 * TTL_S


async def answers(home: House) -> bool:
    return (await home.get("/vx11/status")).json["madre_available"]


async def test_a_window_that_ended_while_madre_was_dead_is_over(home: House) -> None:
    begun = time.monotonic()
    await home.post(OPEN, {"services": ["notebook"], "ttl_sec": TTL_S})
    with home.frozen(home.pid("madre")):
        await until(lambda: time.monotonic() - begun > 1.5 * TTL_S, "its time is over")
    await home.asleep("notebook")
    assert (await home.order("list_windows"))["windows"] == []


async def test_a_window_without_an_end_is_held(home: House) -> None:
    opened = (await home.post(OPEN, {"services": ["notebook"], "mode": "hold"})).json
    assert (opened["deadline"], opened["ttl_remaining_sec"]) == (None, None)
    closed = (await home.post(CLOSE)).json
    assert (closed["state"], closed["services_stopped"]) == ("closed", ["notebook"])


async def test_of_two_windows_the_last_one_counts(home: House) -> None:
    first = (await home.post(OPEN, {"services": ["notebook"], "ttl_sec": 60})).json["window_id"]
    second = (await home.post(OPEN, {"services": ["notebook"], "mode": "hold"})).json["window_id"]
    assert (await home.post(CLOSE)).status == 409, "which?"
    assert (await home.post(CLOSE, {"window_id": first})).json["services_stopped"] == []
    assert (await home.states())["notebook"] == "active"
    assert (await home.post(CLOSE, {"window_id": second})).json["services_stopped"] == ["notebook"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"services": []}, 400),
        ({"services": ["nobody"], "ttl_sec": 60}, 404),
        ({"services": ["notebook"]}, 400),
        ({"services": ["notebook"], "ttl_sec": 0}, 400),
        ({"services": ["notebook"], "ttl_sec": -1}, 400),
        ({"services": ["notebook"], "ttl_sec": 10**9}, 400),
        ({"services": ["notebook"], "ttl_sec": 60, "mode": "hold"}, 400),
        ({"services": ["notebook"], "ttl_sec": "soon"}, 400),
        ({"services": "notebook", "ttl_sec": 60}, 400),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
async def test_a_window_that_cannot_be_is_refused(home: House, body: dict, status: int) -> None:
    assert (await home.post(OPEN, body)).status == status
    assert (await home.get("/madre/power/window")).json["windows"] == []


async def test_a_window_that_is_not_open_cannot_be_closed(home: House) -> None:
    assert (await home.post(CLOSE)).status == 404
    assert (await home.post(CLOSE, {"window_id": "w-none"})).status == 404


async def test_a_lease_keeps_awake_and_can_be_given_back(home: House) -> None:
    lease = await home.order("renew_lease", actor="notebook", ttl_sec=60.0)
    longer = await home.order("renew_lease", actor="notebook", ttl_sec=120.0, lease_id=lease["lease_id"])
    assert longer["expires_at"] > lease["expires_at"]
    assert await home.order("drop_lease", lease_id=lease["lease_id"]) == {}


# -- the policy ----------------------------------------------------------------------------------------------------------


async def test_applying_solo_madre_says_what_really_happened_to_each(home: House) -> None:
    await ask(home)
    await home.chat("hello")
    answer = await home.post("/madre/power/policy/solo_madre/apply")
    assert answer.status == 200
    assert (answer.json["status"], answer.json["policy"]) == ("ok", "solo_madre")
    moves = {move["service"]: (move["from"], move["to"], move["error"]) for move in answer.json["executed"]}
    assert moves == {
        "notebook": ("active", "dormant", None),
        "operator_backend": ("active", "dormant", None),
        "switch": ("dormant", "dormant", None),
    }
    assert all(move["elapsed_ms"] >= 0 for move in answer.json["executed"])
    status = (await home.get("/madre/power/policy/solo_madre/status")).json
    assert (status["policy_active"], sorted(status["running_services"])) == (True, ["madre", "redis", "tentaculo_link"])


async def test_the_gateway_survives_solo_madre(home: House) -> None:
    """The original stopped it, too, and nobody could undo that by HTTP."""
    pids = {name: home.pid(name) for name in ("madre", "redis", "tentaculo_link")}
    await home.post("/madre/power/policy/solo_madre/apply")
    assert {name: home.pid(name) for name in pids} == pids
    assert (await home.get("/health/ready")).status == 200


async def test_solo_madre_is_not_active_while_somebody_is_awake(home: House) -> None:
    await ask(home)
    status = (await home.get("/madre/power/policy/solo_madre/status")).json
    assert (status["policy_active"], "notebook" in status["running_services"]) == (False, True)


async def test_under_the_policy_full_all_that_may_are_awake(home: House) -> None:
    applied = await home.order("apply_policy", policy="full")
    moves = {move["service"]: move["to"] for move in applied["executed"]}
    assert (applied["status"], moves) == ("ok", {"notebook": "active", "operator_backend": "active"})
    state = await home.order("get_policy")
    assert (state["policy"], state["mode"], state["active"]) == ("full", "full", True)


async def test_a_policy_survives_madre(home: House) -> None:
    await home.order("apply_policy", policy="full")
    await home.back("madre", await home.kill("madre"))
    await until(lambda: answers(home), "madre answers")
    assert (await home.order("get_policy"))["policy"] == "full"


async def test_the_panel_shows_all_of_it(home: House) -> None:
    await set_gate(home, "window")
    await home.post(OPEN, {"services": ["notebook"], "ttl_sec": 60})
    status = (await home.get("/madre/power/status")).json
    services = {one["name"]: one for one in status["services"]}
    assert {"madre", "redis", "tentaculo_link", "notebook", "operator_backend", "switch"} <= set(services)
    shown = services["notebook"]
    assert (shown["state"], shown["power"], shown["gate"]) == ("up", "active", "window")
    assert shown["wakes"] > 0
    assert shown["last_wake_ms"] > 0
    assert shown["instance"]
    assert (status["policy"], status["mode"], len(status["windows"])) == ("solo_madre", "windowed", 1)


# -- the loopback alias --------------------------------------------------------------------------------------------------


async def test_the_commands_of_the_seed_work_on_the_loopback_alias(home: House) -> None:
    """Looking, and a post_task that only checks, need no token there."""
    for path in ("/madre/power/status", "/madre/power/policy/solo_madre/status", "/metrics", "/health"):
        assert (await home.get(path, token=None, control=True)).status == 200
    assert (await home.post("/madre/power/maintenance/post_task", {"reason": "look"}, token=None, control=True)).status == 200


async def test_what_acts_needs_its_token_there_too(home: House) -> None:
    for path, body in (
        ("/madre/power/policy/solo_madre/apply", None),
        ("/madre/power/maintenance/post_task", {"apply": True}),
        ("/madre/power/service/notebook/wake", None),
        (OPEN, {"services": ["notebook"], "ttl_sec": 60}),
    ):
        assert (await home.post(path, body, token=None, control=True)).status == 401
        assert (await home.post(path, body, token="wrong", control=True)).status == 403
    assert (await home.post("/madre/power/service/notebook/wake", control=True)).json["to"] == "active"


@pytest.mark.parametrize("headers", [{"Host": "example.org"}, {"Origin": "https://example.org"}, {"Origin": "null"}])
async def test_a_web_page_gets_nothing_there(home: House, headers: dict[str, str]) -> None:
    """Not even a look: a name can be made to point at this machine."""
    assert (await home.get("/madre/power/status", token=None, headers=headers, control=True)).status == 403
    assert (await home.post("/madre/power/policy/solo_madre/apply", headers=headers, control=True)).status == 403


async def test_only_the_control_plane_is_there(home: House) -> None:
    assert (await home.chat("hello", control=True)).status == 404
