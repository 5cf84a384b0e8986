"""Failures under /v1: OpenAI's shape and statuses, also for what goes wrong before anybody has looked at the request."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.http.openai.manner import ErrorAnswer
from schemas.errors import CODES, Failure
from tests.gateway.conftest import Link, OpenLink, Reply

ASKED = "vx11.switch.chat"
CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}


def error_of(reply: Reply) -> dict[str, Any]:
    ErrorAnswer.model_validate_json(reply.text, strict=True)
    return dict(reply.json["error"])


async def test_every_token_that_is_not_good_is_401(link: Link) -> None:
    """Elsewhere a wrong one is 403; OpenAI's clients know no difference between none and a wrong one."""
    revoked, text = link.tokens.new()
    link.tokens.revoke(revoked.id)
    old = link.tokens.new(ttl_s=-1.0)[1]
    for token in (None, "wrong", text, old):
        for reply in (await link.post(CHAT, HELLO, token=token), await link.get("/v1/models", token=token)):
            assert (reply.status, error_of(reply)["code"]) == (401, "invalid_api_key")
            assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    assert (await link.get("/api/map", token="wrong")).status == 403
    assert link.bus.of(ASKED) == []


async def test_a_token_without_the_scope_is_403(link: Link) -> None:
    reply = await link.post(CHAT, HELLO, token=link.new_token("read"))
    assert (reply.status, error_of(reply)["code"]) == (403, "insufficient_permissions")
    assert "scope chat" in error_of(reply)["message"]


@pytest.mark.parametrize(
    ("failure", "status", "code", "param"),
    [
        (Failure("too_large", "12,000 tokens do not fit"), 400, "context_length_exceeded", None),
        (Failure("not_found", "nobody has it", model="gpt-99"), 404, "model_not_found", "model"),
        (Failure("not_found", "there is no actor switch", actor="switch"), 404, "not_found", None),
        (Failure("over_budget", "the day's money is spent"), 429, "insufficient_quota", None),
        (Failure("busy", "too much", retry_after=2.2), 429, "rate_limit_exceeded", None),
        (Failure("off_by_policy", "its gate is closed"), 403, "off_by_policy", None),
        (Failure("invalid", "stop: too many", field="stop"), 400, "invalid_value", "stop"),
        (Failure("unavailable", "nobody answers"), 503, "unavailable", None),
        (Failure("crashed", "cut off"), 502, "crashed", None),
    ],
    ids=lambda one: one.code if isinstance(one, Failure) else "",
)
async def test_what_switch_refuses_is_said_in_their_words(
    link: Link, failure: Failure, status: int, code: str, param: str | None
) -> None:
    link.bus.answers[ASKED] = failure
    for stream in (False, True):
        reply = await link.post(CHAT, {**HELLO, "stream": stream})
        error = error_of(reply)
        assert (reply.status, error["code"], error["param"]) == (status, code, param)
        assert error["message"] == failure.message
        assert error["vx11"] == {
            **failure.details, "error": failure.code, "correlation_id": reply.headers["X-Correlation-Id"]
        }  # fmt: skip


@pytest.mark.parametrize("code", sorted(CODES))
async def test_every_code_has_a_shape_and_a_status_that_is_described(link: Link, code: str) -> None:
    link.bus.answers[ASKED] = Failure(code, "because", model="m", retry_after=2.2)
    reply = await link.post(CHAT, HELLO)
    told = (await link.get("/openapi.json")).json["paths"][CHAT]["post"]["responses"]
    assert str(reply.status) in told or code in ("endpoint_not_found", "method_not_allowed")
    assert error_of(reply)["vx11"]["error"] == code
    assert reply.headers["X-Request-Id"] == reply.headers["X-Correlation-Id"]
    assert reply.headers.get("Retry-After") == ("3" if code in {"busy", "waking", "unavailable"} else None)


async def test_who_is_over_budget_need_not_try_again(link: Link) -> None:
    """The official client would, three times, at every 429."""
    link.bus.answers[ASKED] = Failure("over_budget", "spent")
    assert (await link.post(CHAT, HELLO)).headers["X-Should-Retry"] == "false"
    link.bus.answers[ASKED] = Failure("busy", "wait", retry_after=1)
    reply = await link.post(CHAT, HELLO)
    assert ("X-Should-Retry" not in reply.headers, reply.headers["Retry-After"]) == (True, "1")


async def test_an_address_that_is_none_and_a_wrong_method(link: Link) -> None:
    for path in ("/v1/completions", "/v1/audio/speech", "/v1/"):
        reply = await link.post(path, HELLO)
        assert (reply.status, error_of(reply)["code"]) == (404, "unknown_url")
    reply = await link.get(CHAT)
    assert (reply.status, error_of(reply)["code"], reply.headers["Allow"]) == (405, "method_not_allowed", "POST")
    assert (await link.get("/v2/models")).json["error"] == "endpoint_not_found", "only under /v1"


async def test_a_body_that_is_no_good(open_link: OpenLink) -> None:
    async with open_link(body_bytes=2_000.0) as link:
        headers = {"Content-Type": "application/json"}
        broken = await link.post(CHAT, b'{"model": ', headers=headers)
        assert (broken.status, error_of(broken)["type"]) == (400, "invalid_request_error")
        long = await link.post(CHAT, b" " * 3_000, headers=headers)
        assert (long.status, error_of(long)["code"]) == (413, "too_large")
        other = await link.post(CHAT, b"model=auto", headers={"Content-Type": "text/plain"})
        assert (other.status, error_of(other)["code"]) == (415, "unsupported_media")
        assert link.bus.of(ASKED) == []


async def test_too_many_requests_are_told_when_to_come_again(open_link: OpenLink) -> None:
    async with open_link(rate=0.5, burst=1.0) as link:
        link.bus.answers[ASKED] = Failure("unavailable", "nobody")
        assert (await link.post(CHAT, HELLO)).status == 503
        reply = await link.post(CHAT, HELLO)
    assert (reply.status, error_of(reply)["code"], reply.headers["Retry-After"]) == (429, "rate_limit_exceeded", "2")


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages.0.role"),
        ({"model": ""}, "model"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
async def test_what_would_be_wrong_in_silence_is_refused_by_its_name(link: Link, more: dict[str, Any], param: str) -> None:
    reply = await link.post(CHAT, {**HELLO, **more})
    error = error_of(reply)
    assert (reply.status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["message"].startswith(f"{param}: ")
    assert link.bus.of(ASKED) == []
