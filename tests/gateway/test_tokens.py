"""The file of tokens: hashes only, one writer at a time, readable by its owner."""

from __future__ import annotations

import concurrent.futures
import json
import re
import stat

import pytest

from gateway.tokens import FORM, SCOPES, TokenFile, digest, id_of
from schemas.errors import Failure


@pytest.fixture
def file(tmp_path):
    return TokenFile(tmp_path / "home")


def test_a_new_token_is_kept_as_its_hash_only(file):
    token, text = file.new(["read", "chat"], note="for the phone")
    kept = file.path.read_text()
    assert FORM.fullmatch(text)
    assert text not in kept
    assert text.rsplit("_", 1)[-1] not in kept
    assert file.read() == {token.id: token}
    assert (token.id, token.hash, token.scopes, token.note) == (
        id_of(text),
        digest(text),
        ("read", "chat"),
        "for the phone",
    )


def test_only_the_owner_can_read_the_files(file):
    file.ensure()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (file.path, file.first)} == {0o600}


def test_the_first_start_makes_one_token_that_may_do_everything_and_the_second_none(file):
    text = file.ensure()
    assert file.first.read_text() == f"VX11_TOKEN={text}\n"
    assert [token.scopes for token in file.read().values()] == [SCOPES]
    assert file.ensure() == ""
    assert len(file.read()) == 1


def test_revoking_keeps_the_line_and_its_first_moment(file):
    token, _ = file.new()
    first = file.revoke(token.id)
    assert first.revoked
    assert file.revoke(token.id) == first == file.read()[token.id]


def test_an_unknown_id_cannot_be_revoked(file):
    with pytest.raises(Failure, match="not_found"):
        file.revoke("00000000")


@pytest.mark.parametrize("scopes", [["everything"], []])
def test_a_scope_that_does_not_exist_is_refused(file, scopes):
    with pytest.raises(Failure, match="no such scope"):
        file.new(scopes)


def test_a_token_expires_after_its_time(file):
    token, _ = file.new(ttl_s=60)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", token.expires)
    assert not token.expired(0.0)
    assert token.expired(4_000_000_000.0)


def test_writers_at_the_same_time_lose_nothing(file):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: file.new(["read"])[0].id, range(24)))
    assert set(file.read()) == set(made)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"tokens": [{}]}',
        '{"tokens": [{"id": "a", "scopes": ["root"]}]}',
        '{"tokens": [{"id": "a", "scopes": "read"}]}',
    ],
)
def test_a_file_that_cannot_be_understood_is_an_error_with_its_name(file, text):
    """An empty ring would lock everybody out without a word; a guessed one would let somebody in."""
    file.path.parent.mkdir()
    file.path.write_text(text)
    with pytest.raises(Failure, match=r"tokens\.json"):
        file.read()


def test_a_moment_without_an_offset_is_no_expiry(file):
    token, _ = file.new(ttl_s=60)
    document = json.loads(file.path.read_text())
    document["tokens"][0]["expires"] = token.expires.removesuffix("Z")
    file.path.write_text(json.dumps(document))
    with pytest.raises(Failure, match="offset"):
        file.read()
