"""Web pages of other origins: none, unless they are configured, and then under /v1 only."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.http.settings import HttpSettings, Misconfigured
from schemas.switch import ModelList
from tests.gateway.conftest import Link, OpenLink

APP = "https://app.example"
CHAT = "/v1/chat/completions"
ASKS = {
    "Origin": APP,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
}


def of_cors(headers: Any) -> set[str]:
    return {name for name in headers if name.lower().startswith("access-control-")}


async def ask(link: Link, method: str, path: str, **headers: str) -> Any:
    return await link.ask(method, path, headers=headers)


async def test_unless_configured_no_page_may_ask(link: Link) -> None:
    reply = await link.ask("OPTIONS", CHAT, token=None, headers=ASKS)
    assert reply.status == 405
    assert not of_cors(reply.headers)
    link.bus.answers["vx11.switch.list_models"] = ModelList(models=[])
    reply = await link.get("/v1/models", headers={"Origin": APP})
    assert (reply.status, of_cors(reply.headers), "Vary" in reply.headers) == (200, set(), False)


async def test_a_configured_page_may_ask_without_a_token_whether_it_may_ask(open_link: OpenLink) -> None:
    async with open_link(cors_origins=f"{APP}, http://localhost:3000") as link:
        reply = await link.ask("OPTIONS", CHAT, token=None, headers=ASKS)
        assert (reply.status, reply.text) == (200, "")
        assert reply.headers["Access-Control-Allow-Origin"] == APP
        assert reply.headers["Access-Control-Allow-Headers"] == ASKS["Access-Control-Request-Headers"]
        assert "POST" in reply.headers["Access-Control-Allow-Methods"]
        assert reply.headers["Vary"] == "Origin"
        assert link.bus.asked == []


async def test_what_it_gets_it_may_read_also_errors_and_streams(open_link: OpenLink) -> None:
    async with open_link(cors_origins=APP) as link:
        link.bus.answers["vx11.switch.chat"] = [{"text": "x", "model": "m", "provider": "p", "latency_ms": 1.0}]
        body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
        async with link.stream("POST", CHAT, json=body, headers={"Origin": APP}) as answer:
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, APP)
            await answer.read()
        for method, path, token in (("POST", CHAT, "wrong"), ("GET", "/v1/nothing", ""), ("GET", CHAT, "")):
            reply = await link.ask(method, path, token=token, headers={"Origin": APP})
            assert reply.status >= 400
            assert reply.headers["Access-Control-Allow-Origin"] == APP
            assert "Retry-After" in reply.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("origin", ["https://evil.example", f"{APP}.evil.example", "http://app.example", f"{APP}:8443", "null"])
async def test_another_page_may_not(open_link: OpenLink, origin: str) -> None:
    """Scheme, name and port, exactly."""
    async with open_link(cors_origins=APP) as link:
        reply = await link.ask("OPTIONS", CHAT, token=None, headers={**ASKS, "Origin": origin})
        assert (reply.status, of_cors(reply.headers), reply.headers["Vary"]) == (405, set(), "Origin")


async def test_no_other_address_is_opened_by_it(open_link: OpenLink) -> None:
    async with open_link(cors_origins="*") as link:
        for path in ("/operator/api/chat", "/call/switch/chat", "/madre/power/status", "/nothing", "/"):
            reply = await link.ask("OPTIONS", path, token=None, headers=ASKS)
            assert reply.status in (404, 405), path
            assert not of_cors(reply.headers), path
            assert not of_cors((await link.get(path, headers={"Origin": APP})).headers), path
        control = await link.ask("OPTIONS", CHAT, token=None, headers=ASKS, control=True)
        assert (control.status, of_cors(control.headers)) == (403, set())


async def test_every_origin_may_be_let_in(open_link: OpenLink) -> None:
    async with open_link(cors_origins="*") as link:
        reply = await link.ask("OPTIONS", CHAT, token=None, headers=ASKS)
        assert (reply.status, reply.headers["Access-Control-Allow-Origin"]) == (200, "*")
        assert "Access-Control-Allow-Credentials" not in reply.headers


async def test_header_names_that_are_none_are_not_repeated(open_link: OpenLink) -> None:
    async with open_link(cors_origins=APP) as link:
        for wanted in ("a;b", "x" * 3_000, "<script>"):
            headers = {**ASKS, "Access-Control-Request-Headers": wanted}
            reply = await link.ask("OPTIONS", CHAT, token=None, headers=headers)
            assert "Access-Control-Allow-Headers" not in reply.headers


async def test_with_the_guard_off_only_configured_pages_come_in_and_only_under_v1(open_link: OpenLink) -> None:
    async with open_link(auth_mode="off", cors_origins=APP) as link:
        link.bus.answers["vx11.switch.list_models"] = ModelList(models=[])
        mine, evil = {"Origin": APP}, {"Origin": "https://evil.example"}
        assert (await link.get("/v1/models", token=None, headers=mine)).status == 200
        assert (await link.get("/v1/models", token=None, headers=evil)).status == 403
        assert (await link.get("/api/map", token=None, headers=mine)).status == 403


@pytest.mark.parametrize(
    "text", ["app.example", "https://app.example/", "https://a.example https://b.example", "null", "https://*.example"]
)
def test_what_is_no_origin_stops_the_start(text: str) -> None:
    with pytest.raises(Misconfigured, match="VX11_CORS_ORIGINS"):
        HttpSettings(cors_origins=text).check()


def test_every_page_and_no_token_do_not_go_together() -> None:
    with pytest.raises(Misconfigured, match="every web page"):
        HttpSettings(cors_origins="*", auth_mode="off").check()
