"""Who may come in: the token, its scopes, and where a request comes from."""

from __future__ import annotations

import time

import pytest

from gateway.http import guard
from gateway.http.guard import Caller, KeyRing, admitted, presented
from gateway.tokens import SCOPES, Token, TokenFile, digest
from schemas.errors import Failure

TEXT = "vx11_0123abcd_" + "s" * 43
NOW = 1_000_000.0


def ring(**more) -> dict[str, Token]:
    return {"0123abcd": Token("0123abcd", digest(TEXT), ("read",), **more)}


def until_forbidden(text: str, keys: KeyRing) -> None:
    """The file is looked at again after a moment."""
    deadline = time.monotonic() + 2.0
    with pytest.raises(Failure, match="forbidden"):
        while time.monotonic() < deadline:
            admitted(text, keys.find, NOW)


def code(call) -> str:
    with pytest.raises(Failure) as failure:
        call()
    return failure.value.code


@pytest.mark.parametrize(
    ("tokens", "authorizations", "found"),
    [
        (["t"], [], "t"),
        ([], ["Bearer t"], "t"),
        ([], ["bearer  t "], "t"),
        (["t"], ["Bearer t"], "t"),
        (["t", "t"], [], "t"),
        (["", " t "], [], "t"),
        (["t"], ["Basic eDp5"], "t"),
    ],
)
def test_one_token_is_found_wherever_it_stands(tokens, authorizations, found):
    assert presented(tokens, authorizations) == found


@pytest.mark.parametrize(
    ("tokens", "authorizations", "expected"),
    [
        ([], [], "auth_required"),
        ([""], [], "auth_required"),
        (["  "], ["Bearer "], "auth_required"),
        ([], ["Basic eDp5"], "auth_required"),
        (["a", "b"], [], "invalid"),
        (["a"], ["Bearer b"], "invalid"),
        ([], ["Bearer a", "Bearer b"], "invalid"),
    ],
)
def test_none_is_401_and_two_that_differ_are_400(tokens, authorizations, expected):
    """Two proxies in a row may each add a token; guessing which one counts is how requests are smuggled."""
    assert code(lambda: presented(tokens, authorizations)) == expected


def test_the_right_token_brings_its_scopes():
    assert admitted(TEXT, ring().get, NOW) == Caller("0123abcd", frozenset({"read"}))


@pytest.mark.parametrize("text", [TEXT[:-1] + "x", "vx11_ffffffff_" + "s" * 43, "wrong", TEXT + "s", TEXT[:-1]])
def test_a_wrong_token_is_403(text):
    assert code(lambda: admitted(text, ring().get, NOW)) == "forbidden"


def test_a_revoked_or_expired_token_is_403():
    assert code(lambda: admitted(TEXT, ring(revoked="2026-01-01T00:00:00Z").get, NOW)) == "forbidden"
    assert code(lambda: admitted(TEXT, ring(expires="1970-01-01T00:00:00Z").get, NOW)) == "forbidden"
    assert admitted(TEXT, ring(expires="2999-01-01T00:00:00Z").get, NOW).id == "0123abcd"


def test_a_scope_is_needed_and_admin_stands_for_all():
    assert code(lambda: Caller("x", frozenset({"read"})).needs("power")) == "forbidden"
    for scope in SCOPES:
        Caller("x", frozenset({"admin"})).needs(scope)
        Caller("x", frozenset({scope})).needs(scope)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8001", "[::1]:8001", "[::1]", "LOCALHOST:1"])
def test_this_machine_is_near(host):
    guard.near(host, [])


@pytest.mark.parametrize("host", ["", "evil.example", "127.0.0.1.evil.example:8001", "192.168.1.7:8001", "localhost.evil"])
def test_another_host_is_not(host):
    """After rebinding a name a browser sends the name of the page, not of this machine."""
    assert code(lambda: guard.near(host, [])) == "forbidden"


def test_a_web_page_is_not_near_unless_the_door_served_it():
    assert code(lambda: guard.near("127.0.0.1:8000", ["http://127.0.0.1:8000"])) == "forbidden"
    guard.near("127.0.0.1:8000", ["http://127.0.0.1:8000"], own_pages=True)
    for origin in ("http://evil.example", "null", "https://127.0.0.1:8000", "http://127.0.0.1:9000"):
        assert code(lambda origin=origin: guard.near("127.0.0.1:8000", [origin], own_pages=True)) == "forbidden"


def test_the_ring_reads_the_file_again_when_it_has_changed(tmp_path):
    """Rotation without a restart."""
    file = TokenFile(tmp_path)
    keys = KeyRing(file)
    token, text = file.new(["read"])
    assert admitted(text, keys.find, NOW).id == token.id
    file.revoke(token.id)
    until_forbidden(text, keys)


def test_the_ring_keeps_what_it_has_when_the_file_is_broken(tmp_path):
    file = TokenFile(tmp_path)
    _, text = file.new(["read"])
    keys = KeyRing(file)
    assert admitted(text, keys.find, NOW)
    file.path.write_text("{")
    assert keys.find("unknown") is None  # which looks at once
    assert admitted(text, keys.find, NOW)


def test_without_its_file_no_token_of_it_is_good(tmp_path):
    file = TokenFile(tmp_path)
    _, text = file.new(["read"])
    keys = KeyRing(file)
    file.path.unlink()
    until_forbidden(text, keys)


def test_the_token_of_the_environment_may_do_everything(tmp_path):
    keys = KeyRing(TokenFile(tmp_path), "a token of my own")
    assert admitted("a token of my own", keys.find, NOW) == Caller("env", frozenset(SCOPES))
    assert code(lambda: admitted("another", keys.find, NOW)) == "forbidden"


def test_a_revoked_token_is_not_good_again_because_the_environment_has_it(tmp_path):
    """The banner asks to export the first token; revoking it must still end it."""
    file = TokenFile(tmp_path)
    token, text = file.new()
    keys = KeyRing(file, text)
    assert admitted(text, keys.find, NOW).id == token.id
    file.revoke(token.id)
    until_forbidden(text, keys)
