"""Both doors: tokens at every route, the control alias, the shapes of errors, the headers of every answer."""

from __future__ import annotations

import asyncio
import re
import uuid

import pytest

from gateway.http.app import make_parts
from gateway.http.guard import KeyRing
from gateway.http.openai.manner import OPENAI
from gateway.http.routes import OPEN, TABLE, Route
from gateway.http.settings import HttpSettings, Misconfigured
from gateway.tokens import SCOPES
from schemas.errors import CODES, Failure
from tests.gateway.scripted import LIST, ScriptedBus, ScriptedLog

GUARDED = [route for route in TABLE if not route.is_open]
PUBLIC = {
    "/health",
    "/health/live",
    "/health/ready",
    "/",
    "/openapi.json",
    "/vx11/status",
    "/operator/api/events/stream",  # its one-use token is its guard
}
ERROR = {"error", "detail", "message", "status_code", "correlation_id"}


def path_of(route: Route) -> str:
    return re.sub(r"{\w+}", "switch", route.path)


def is_error(reply, code: str) -> bool:
    """Also in OpenAI's shape, which has ours inside."""
    said = reply.json
    if isinstance(said["error"], dict):
        assert set(said["error"]) == {"message", "type", "param", "code", "vx11"}
        assert reply.status in OPENAI.statuses(code)
        assert said["error"]["vx11"]["correlation_id"] == reply.headers["X-Correlation-Id"]
        return said["error"]["vx11"]["error"] == code
    assert set(said) >= ERROR
    assert (reply.status, said["status_code"]) == (CODES[code].status, CODES[code].status)
    assert said["correlation_id"] == reply.headers["X-Correlation-Id"]
    return (said["error"], said["detail"]) == (code, code)


def test_what_needs_no_token_is_this_and_nothing_else():
    assert {route.path for route in TABLE if route.is_open} == PUBLIC


async def test_every_other_route_is_closed_without_and_with_a_wrong_token(link):
    """Default deny."""
    for route in GUARDED:
        missing = await link.ask(route.method, path_of(route), token=None)
        empty = await link.ask(route.method, path_of(route), headers={"X-VX11-Token": ""})
        wrong = await link.ask(route.method, path_of(route), token="wrong")
        assert is_error(missing, "auth_required"), route
        assert missing.headers["WWW-Authenticate"]
        assert is_error(empty, "auth_required"), route
        assert is_error(wrong, "forbidden"), route
    assert link.bus.asked == []


async def test_every_route_wants_its_own_scope(link):
    tokens = {scope: link.new_token(scope) for scope in SCOPES}
    for route in GUARDED:
        others = [scope for scope in SCOPES if scope not in (route.scope, "admin")]
        for scope in others:
            reply = await link.ask(route.method, path_of(route), token=tokens[scope])
            assert is_error(reply, "forbidden"), (route, scope)
            assert (reply.json["error"]["vx11"] if route.manner is OPENAI else reply.json)["scope"] == route.scope


async def test_a_bearer_is_the_same_token_and_two_that_differ_are_400(link):
    bearer = {"Authorization": f"Bearer {link.token}"}
    assert (await link.get("/api/map", token=None, headers=bearer)).status == 200
    assert (await link.get("/api/map", headers=bearer)).status == 200
    assert is_error(await link.get("/api/map", token="other", headers=bearer), "invalid")


async def test_a_token_in_the_query_string_is_none(link):
    """It would be in every log on the way."""
    assert is_error(await link.get(f"/api/map?token={link.token}&X-VX11-Token={link.token}", token=None), "auth_required")


async def test_a_token_revoked_while_the_gateway_runs_is_refused(link):
    text = link.new_token("read")
    assert (await link.get("/api/map", token=text)).status == 200
    link.tokens.revoke(text.split("_")[1])
    async with asyncio.timeout(2):
        while (reply := await link.get("/api/map", token=text)).status == 200:
            await asyncio.sleep(0.005)
    assert is_error(reply, "forbidden")


def started(tmp_path, *, routes=TABLE, **settings):
    made = HttpSettings(home=tmp_path, **settings)
    made.check()
    return make_parts(ScriptedBus(), ScriptedBus(), ScriptedLog(), made, routes=routes)


@pytest.mark.parametrize("scope", ["", "everything"])
def test_a_route_without_a_scope_stops_the_start(tmp_path, scope):
    loose = Route("GET", "/loose", "loose", scope, TABLE[0].compose, "Forgotten.")
    with pytest.raises(Misconfigured, match="/loose has no scope"):
        started(tmp_path, routes=(*TABLE, loose))


def test_a_tokens_file_that_cannot_be_read_stops_the_start(tmp_path):
    (tmp_path / "tokens.json").write_text("{")
    with pytest.raises(Misconfigured, match=r"tokens\.json"):
        started(tmp_path)


def test_without_its_c_parser_aiohttp_is_not_used(tmp_path, monkeypatch):
    """The Python parser has let smuggled requests through."""
    from aiohttp.http_parser import HttpRequestParserPy

    monkeypatch.setattr("gateway.http.connection.HttpRequestParser", HttpRequestParserPy)
    with pytest.raises(Misconfigured, match="C parser") as refused:
        started(tmp_path)
    assert refused.value.exit_code == 78


async def test_off_lets_this_machine_in_without_a_token_but_no_foreign_page(open_link):
    async with open_link(auth_mode="off") as link:
        own = link.url("").rstrip("/")
        assert (await link.get("/api/map", token=None)).status == 200
        assert (await link.get("/api/map", token=None, headers={"Origin": own})).status == 200
        assert is_error(await link.get("/api/map", token=None, headers={"Origin": "http://evil.example"}), "forbidden")
        assert is_error(await link.get("/api/map", token=None, headers={"Host": "evil.example"}), "forbidden")


async def test_an_unknown_path_says_what_there_is(link):
    reply = await link.get("/nope/at/all", token=None)
    assert is_error(reply, "endpoint_not_found")
    assert reply.json["path"] == "/nope/at/all"
    assert "POST /operator/api/chat" in reply.json["available_endpoints"]


async def test_a_wrong_method_says_which_are_right(link):
    for route in TABLE:
        reply = await link.ask("PATCH", path_of(route))
        assert is_error(reply, "method_not_allowed"), route
        assert route.method in reply.headers["Allow"].split(", ")


async def test_ids_come_back(link):
    trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    sent = {"X-Correlation-Id": "my-conversation-1", "traceparent": trace}
    reply = await link.post("/madre/power/service/switch/wake", headers=sent)
    assert reply.headers["X-Correlation-Id"] == "my-conversation-1"
    assert reply.headers["traceparent"][:36] == trace[:36]
    asked = link.bus.asked[-1]
    assert asked.headers["correlation_id"] == "my-conversation-1"
    assert asked.headers["traceparent"].split("-")[1] == "ab" * 16
    assert asked.headers["traceparent"] == reply.headers["traceparent"] != trace, "what is asked is below the door's own span"


@pytest.mark.parametrize("sent", ["short", "x" * 65, "with space", 'quo"te-12345'])
async def test_a_correlation_id_of_another_form_is_replaced(link, sent):
    """It goes into logs: what is not harmless is not repeated."""
    reply = await link.get("/health", headers={"X-Correlation-Id": sent})
    made = uuid.UUID(reply.headers["X-Correlation-Id"])
    assert (made.version, made.variant) == (4, uuid.RFC_4122)


async def test_no_answer_may_be_cached_sniffed_or_tells_its_maker(link):
    for path in ("/health", "/nope", "/api/map", "/"):
        headers = (await link.get(path)).headers
        assert (headers["Cache-Control"], headers["X-Content-Type-Options"], headers["Server"]) == (
            "no-store",
            "nosniff",
            "vx11",
        )


async def test_a_bug_is_told_as_internal_and_nothing_else(link, monkeypatch, caplog):
    def broken(self, ident):
        raise ZeroDivisionError("the secret of the bug")

    monkeypatch.setattr(KeyRing, "find", broken)
    reply = await link.get("/api/map")
    assert is_error(reply, "internal")
    assert "secret" not in reply.text
    assert "the secret of the bug" in caplog.text
    assert reply.headers["X-Correlation-Id"] in caplog.text


@pytest.mark.parametrize("code", sorted(CODES))
async def test_every_code_of_the_bus_has_its_status_here(link, code):
    link.bus.answers["vx11.madre.wake"] = Failure(code, "because", extra=1, retry_after=2.2)
    reply = await link.post("/madre/power/service/switch/wake")
    assert is_error(reply, code)
    assert reply.json["extra"] == 1
    again = reply.headers.get("Retry-After")
    assert again == ("3" if code in {"busy", "waking", "unavailable"} else None)


async def test_policy_says_so_in_the_one_dialect(link):
    link.bus.answers["vx11.madre.wake"] = Failure("off_by_policy", "its gate is closed", service="switch")
    said = (await link.post("/madre/power/service/switch/wake")).json
    assert {"status", "service", "message", "correlation_id", "recommended_action"} <= set(said)
    assert (said["status"], said["service"]) == ("OFF_BY_POLICY", "switch")


async def test_looks_at_the_alias_need_no_token(link):
    for route in TABLE:
        if route.control and route.method == "GET" and "window" not in route.path:
            assert (await link.get(path_of(route), token=None, control=True)).status == 200, route


async def test_what_acts_at_the_alias_needs_one(link):
    for route in TABLE:
        if route.control and route.method != "GET" and route.only_looks is None:
            reply = await link.ask(route.method, path_of(route), token=None, control=True)
            assert is_error(reply, "auth_required"), route


async def test_the_alias_has_the_control_plane_only(link):
    assert is_error(await link.post("/operator/api/chat", {"message": "hi"}, control=True), "endpoint_not_found")
    assert is_error(await link.get("/api/map", control=True), "endpoint_not_found")


@pytest.mark.parametrize("headers", [{"Host": "evil.example:8001"}, {"Origin": "http://127.0.0.1:8001"}, {"Origin": "null"}])
async def test_the_alias_answers_no_web_page(link, headers):
    assert is_error(await link.get("/madre/power/status", token=None, control=True, headers=headers), "forbidden")
    assert is_error(await link.post("/madre/post_task", token=None, control=True, headers=headers), "forbidden")
    assert link.bus.asked == []


def test_only_open_or_scoped(tmp_path):
    """The table itself passes the check that the start makes."""
    started(tmp_path)
    assert {route.scope for route in TABLE} <= {OPEN, *SCOPES}


async def test_a_waiting_request_says_how_long_the_actor_took_to_wake(link):
    link.bus.answers["vx11.madre.wake"] = {"service": "switch", "from": "dormant", "to": "active", "elapsed_ms": 9.0}
    link.bus.wake_ms = 12
    assert (await link.post("/madre/power/service/switch/wake")).headers["X-Vx11-Wake-Ms"] == "12"
    link.bus.wake_ms = 0
    assert "X-Vx11-Wake-Ms" not in (await link.post("/madre/power/service/switch/wake")).headers
    link.bus.answers["vx11.madre.wake"] = Failure("crashed", "it died", wake_ms=7)
    assert (await link.post("/madre/power/service/switch/wake")).headers["X-Vx11-Wake-Ms"] == "7"


async def test_ready_follows_the_bus_and_live_does_not(link):
    assert (await link.get("/health/ready", token=None)).json == {"status": "ready"}
    link.bus.connected = False
    assert is_error(await link.get("/health/ready", token=None), "unavailable")
    for path in ("/health", "/health/live"):
        assert (await link.get(path, token=None)).json == {"status": "ok"}


async def test_looking_is_answered_when_madre_is_gone(link):
    link.bus.answers[LIST] = Failure("unavailable", "nobody")
    for path in ("/vx11/status", "/operator/api/status", "/api/map", "/metrics", "/madre/power/status"):
        assert (await link.get(path)).status == 200, path
