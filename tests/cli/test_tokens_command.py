"""`token`: shown once, listed without its secret, revoked for good."""

from __future__ import annotations

import time

from gateway.tokens import TokenFile, digest, id_of


def test_a_new_token_is_shown_once_and_kept_as_a_hash(terminal, home) -> None:
    text = terminal("token", "new", "--scopes", "read,power", "--note", "ana").out.strip()
    kept = TokenFile(home).read()[id_of(text)]
    assert kept.hash == digest(text)
    assert kept.scopes == ("read", "power")
    assert kept.note == "ana"
    assert text not in TokenFile(home).path.read_text()


def test_without_scopes_it_may_look_and_talk_only(terminal, home) -> None:
    """What is made without thinking must not be able to stop anything."""
    assert terminal("token", "new", "--json").document["scopes"] == ["read", "chat"]


def test_it_lasts_as_long_as_was_said(terminal, home) -> None:
    document = terminal("token", "new", "--for", "1h", "--json").document
    kept = TokenFile(home).read()[document["id"]]
    assert not kept.expired(time.time() + 3_500)
    assert kept.expired(time.time() + 3_700)


def test_a_scope_that_does_not_exist_is_refused(terminal, home) -> None:
    ran = terminal("token", "new", "--scopes", "everything")
    assert ran.code == 65
    assert "admin" in ran.err
    assert not TokenFile(home).path.exists()


def test_the_list_has_neither_secret_nor_hash(terminal) -> None:
    made = terminal("token", "new", "--json").document
    for ran in (terminal("token", "ls"), terminal("token", "ls", "--json")):
        assert made["id"] in ran.out
        assert made["token"] not in ran.out
        assert digest(made["token"]) not in ran.out


def test_a_few_letters_of_the_id_are_enough_to_revoke(terminal, home) -> None:
    made = terminal("token", "new", "--json").document
    assert terminal("token", "revoke", made["id"][:5]).code == 0
    assert TokenFile(home).read()[made["id"]].revoked
    assert terminal("token", "ls", "--json").document["tokens"][0]["state"] == "revoked"


def test_letters_that_fit_several_revoke_none(terminal, home) -> None:
    for _ in range(2):
        terminal("token", "new")
    assert terminal("token", "revoke", "").code == 73
    assert not any(token.revoked for token in TokenFile(home).read().values())


def test_an_id_that_is_none_is_not_found(terminal) -> None:
    assert terminal("token", "revoke", "zzzz").code == 66
