"""What is a secret: by its value, its form, its name; and what looks like one and is none."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from bus import redaction
from bus.loading import TREE
from bus.redaction import Redacting, hidden_by, know, know_settings, names_a_secret, redacted, redacted_document, redacted_event
from bus.refusal import refusal
from schemas.errors import Failure
from schemas.message import Message, Secret
from schemas.switch import Chat

OURS = f"vx11_{'0a' * 4}_{'k' * 43}"
SEED = "SU" + "A1B2C3D4" * 7
MODEL_KEY = "sk-" + "a1B2" * 8
DATABASE_KEY = f"x'{'0f' * 32}'"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(redaction, "_known", {})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"wrong token {OURS} from 10.0.0.1", "wrong token *** from 10.0.0.1"),
        (f"seed file holds {SEED}", "seed file holds ***"),
        (f"said: Incorrect API key provided: {MODEL_KEY}", "said: Incorrect API key provided: ***"),
        (f"PRAGMA key = {DATABASE_KEY}", "PRAGMA key = ***"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: ***"),
        ("got Bearer abc.def-ghi, sorry", "got Bearer ***, sorry"),
        ("cannot reach redis://:hunter2@127.0.0.1:6379/0", "cannot reach redis://***@127.0.0.1:6379/0"),
        ('{"user": "ana", "password": "hunter2", "n": 1}', '{"user": "ana", "password": ***, "n": 1}'),
        ("{'api_key': 'hunter2', 'user': 'ana'}", "{'api_key': ***, 'user': 'ana'}"),
        (r"body {\"token\": \"hunter2\"}", r"body {\"token\": ***}"),
        ("GET /x?token=hunter2&limit=3", "GET /x?token=***&limit=3"),
        ("VX11_TOKEN=hunter2 vx11 status", "VX11_TOKEN=*** vx11 status"),
        ("Chat(apiKey='hunter2')", "Chat(apiKey=***)"),
        ("Cookie: a=hunter2; b=hunter3", "Cookie: ***"),
        ("Set-Cookie: a=hunter2; Path=/", "Set-Cookie: ***"),
    ],
)
def test_a_secret_in_a_line_of_a_log_is_not_shown(text, shown):
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "12 tokens in 3.1 s",
        "token_id=0a0a0a0a was used",
        "the monkey: it sleeps",
        "vx11_events is no token, nor is vx11_0a0a0a0a",
        "http://127.0.0.1:8000/api/map?limit=3",
        "KeyError: 'name'",
        "SURE, that is a WORD",
    ],
)
def test_what_only_resembles_one_is_left_alone(text):
    assert redacted(text) == text


@pytest.mark.parametrize("name", ["token", "VX11_TOKEN", "OPENAI_API_KEY", "apiKey", "X-VX11-Token", "user.secret", "nk"])
def test_the_last_word_of_a_name_tells(name):
    assert names_a_secret(name)


@pytest.mark.parametrize("name", ["token_id", "max_tokens", "monkey", "keys", "key_file", "seedling", "tank", ""])
def test_other_names_tell_nothing(name):
    assert not names_a_secret(name)


def test_a_document_loses_its_secrets_and_keeps_its_shape():
    document = {
        "password": "a",
        "n": {"api_key": ["b", 1]},
        "seed": 42,
        "text": f"use {OURS}",
        "token": None,
        "empty": {"key": ""},
    }
    assert redacted_document(document) == {
        "password": "***",
        "n": {"api_key": ["***", 1]},
        "seed": 42,
        "text": "use ***",
        "token": None,
        "empty": {"key": ""},
    }


def test_a_value_that_the_process_was_told_is_hidden_everywhere():
    know_settings(
        {"VX11_LLM_KEY": "correct horse 7", "VX11_REDIS_URL": "redis://:battery-staple-8@h:1/0", "VX11_HTTP_RATE": "200"}
    )
    assert redacted("correct horse 7 and battery-staple-8, 200") == "*** and ***, 200"
    assert redacted_event(b'{"reason": "correct horse 7"}') == b'{"reason": "***"}'
    assert redacted_document(["correct horse 7!"]) == ["***!"]


@pytest.mark.parametrize("value", ["dev", "12345678901", "operator_backend", ""])
def test_a_value_that_may_be_a_word_or_a_number_is_not_hidden(value):
    """A token of that name would take the actor out of every event."""
    know([value])
    assert (
        redacted_event(b'{"actor": "operator_backend", "n": 12345678901}') == b'{"actor": "operator_backend", "n": 12345678901}'
    )


def test_of_two_values_the_longer_one_is_hidden_whole():
    know(["correct-horse-1", "correct-horse-1-battery"])
    assert redacted("correct-horse-1-battery") == "***"


def test_a_value_is_also_known_as_json_writes_it():
    know(['pass"word 1 ñandú'])
    assert redacted(json.dumps({"said": 'pass"word 1 ñandú'})) == '{"said": "***"}'


@pytest.mark.parametrize("secret", [OURS, SEED])
def test_our_own_credentials_do_not_get_into_an_event(secret):
    assert redacted_event(f'{{"said": "it is {secret}!"}}'.encode()) == b'{"said": "it is ***!"}'


def test_what_an_event_has_to_say_is_not_touched():
    """It is its sender's: a key may be a piano's, and a bearer may carry a letter."""
    body = b'{"key": "C sharp", "note": "Bearer of news", "token": "for the bus", "url": "http://a@b/"}'
    assert redacted_event(body) is body


def test_an_error_message_shows_no_credential():
    head, body = refusal(Failure("unavailable", f"no connection with {OURS}", url="redis://:hunter2@h:1"), "conversation-1")
    assert "k" * 20 not in str(head)
    assert json.loads(body)["message"] == "no connection with ***"
    assert b"hunter2" not in body


def test_a_traceback_shows_no_secret():
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(Redacting("%(message)s"))
    try:
        raise RuntimeError(f"login with {OURS}")
    except RuntimeError:
        handler.handle(logging.makeLogRecord({"msg": "it failed: %s", "args": (OURS,), "exc_info": sys.exc_info()}))
    assert "k" * 20 not in out.getvalue()
    assert "RuntimeError: login with ***" in out.getvalue()


def test_a_hostile_text_takes_no_longer_than_its_length():
    """What is logged comes from strangers: an expression that goes back and forth would stop the process."""
    for text in (
        "a" * 200_000,
        "key" * 60_000,
        "token='" + "\\" * 100_000,
        "://" * 60_000,
        "key" + " " * 100_000,
        "sk-" * 60_000,
    ):
        begun = time.perf_counter()
        redacted(text)
        assert time.perf_counter() - begun < 2.0, text[:10]


class Inner(Message):
    pin: Secret = ""


class Outer(Message):
    name: str = ""
    password: Secret = ""
    spare: Secret | None = None
    inner: Inner | None = None
    list_: list[Inner] = Field(default=[], alias="list")
    by_name: dict[str, Inner] = {}
    pins: dict[str, Secret] = {}


def test_what_a_schema_calls_secret_is_hidden_in_any_depth():
    """The gateway knows an event of an actor of one's own by its card only."""
    full = {
        "name": "ana",
        "password": "a",
        "spare": "b",
        "inner": {"pin": "c"},
        "list": [{"pin": "d"}, {}],
        "by_name": {"x": {"pin": "e"}},
        "pins": {"y": "f"},
    }
    assert hidden_by(Outer.model_json_schema(), full) == {
        "name": "ana",
        "password": "***",
        "spare": "***",
        "inner": {"pin": "***"},
        "list": [{"pin": "***"}, {}],
        "by_name": {"x": {"pin": "***"}},
        "pins": {"y": "***"},
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
)


@given(JSON)
def test_a_schema_without_secrets_changes_nothing(document):
    assert hidden_by({"type": "object"}, document) == document
    assert hidden_by(Chat.model_json_schema(), document) == document


def test_a_process_without_logging_of_its_own_shows_no_secret_either():
    """The command line is one: Python writes its warnings to standard error."""
    code = f"import logging; from bus.redaction import *; redact_last_resort(); logging.getLogger('x').warning('it is {OURS}')"
    done = subprocess.run([sys.executable, "-c", code], cwd=TREE, capture_output=True, text=True, check=True)
    assert done.stderr == "it is ***\n"
