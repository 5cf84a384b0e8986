"""`chat`: the answer as it comes, who gave it, and what was missing."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from gateway.cli.chat import converse
from schemas.errors import Failure

SUBJECT = "vx11.operator_backend.chat"
REPLY: dict[str, Any] = {
    "response": "Hello there",
    "model_used": "m",
    "model": "m",
    "provider": "p",
    "latency_ms": 12.0,
    "correlation_id": "c" * 8,
    "session_id": "s1",
    "message_id": "m1",
    "status": "ok",
    "degraded": False,
    "fallback_source": None,
    "reason": None,
    "history": "stored",
}


def test_the_pieces_are_the_answer_and_it_is_not_said_twice(terminal, remote) -> None:
    remote.pieces[SUBJECT] = [{"text": "Hello "}, {"text": "there"}, REPLY]
    ran = terminal("chat", "hi", "you")
    assert ran.out == "Hello there\n"
    assert remote.asked[0][1]["message"] == "hi you"
    assert "m (p), 12 ms, session s1" in ran.err


def test_an_answer_without_pieces_is_said_whole(terminal, remote) -> None:
    remote.pieces[SUBJECT] = [REPLY]
    assert terminal("chat", "hi").out == "Hello there\n"


def test_a_new_beginning_is_not_glued_to_what_was_cut_off(terminal, remote) -> None:
    again = {"text": "Hello there", "restart": True, "speaker": {"provider": "madre", "model": "madre"}}
    remote.pieces[SUBJECT] = [{"text": "Hel"}, again, REPLY]
    ran = terminal("chat", "hi")
    assert ran.out == "Hel\nHello there\n"
    assert "(that was cut off; madre from the beginning:)" in ran.err


@pytest.mark.parametrize(
    ("said", "told"),
    [("hi you", "— small goes on (one was cut off)"), ("¿qué tal?", "— sigue small (one se ha cortado)")],
)
def test_who_goes_on_in_the_middle_is_named_beside_the_text(terminal, remote, said, told) -> None:
    """In the language of the question; a pipe gets the text alone."""
    begins, goes_on = ({"provider": p, "model": m, "characters": 3} for p, m in (("one", "big"), ("two", "small")))
    remote.pieces[SUBJECT] = [
        {"text": "", "speaker": begins},
        {"text": "Hel"},
        {"text": "lo", "speaker": goes_on},
        {**REPLY, "speakers": [begins, goes_on]},
    ]
    ran = terminal("chat", said)
    assert ran.out == "Hello\n"
    assert told in ran.err
    assert "big (one), small (two), 12 ms" in ran.err


def test_what_is_to_be_known_of_the_model_and_why_it_was_this_one_is_said(terminal, remote) -> None:
    remote.pieces[SUBJECT] = [{**REPLY, "note": "offline model, 135M, English", "reason": "the configured order"}]
    err = terminal("chat", "hi").err.splitlines()
    assert {"  offline model, 135M, English", "  the configured order"} <= set(err)


def test_a_model_can_be_wished_for(terminal, remote) -> None:
    remote.pieces[SUBJECT] = [REPLY]
    terminal("chat", "--model", "openai/gpt", "hi")
    assert remote.asked[0][1]["model"] == "openai/gpt"


def test_programs_get_the_whole_reply_and_nothing_else(terminal, remote) -> None:
    remote.pieces[SUBJECT] = [{"text": "Hello "}, REPLY]
    assert terminal("chat", "hi", "--json").document == REPLY


def test_who_answered_instead_and_why_is_said(terminal, remote) -> None:
    worse = {"degraded": True, "status": "degraded", "fallback_source": "madre", "reason": "no model is configured"}
    remote.pieces[SUBJECT] = [{**REPLY, **worse}]
    assert "madre answered: no model is configured" in terminal("chat", "hi").err
    assert "responde madre: no model is configured" in terminal("chat", "¿hola?").err


@pytest.mark.parametrize(("said", "how"), [("sleep switch", "yes"), ("¿duerme switch?", "sí")])
def test_how_to_say_yes_is_told_to_who_asks_once(terminal, remote, said, how) -> None:
    """A yes of its own would begin another conversation, and a model would answer it."""
    remote.pieces[SUBJECT] = [{**REPLY, "pending": True}]
    assert f"next  vx11 chat --session s1 {how}" in terminal("chat", said).err
    assert "next" not in terminal("chat", said, "--json").err


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("off_by_policy", "vx11 window open switch --for 30m"),
        ("over_budget", "vx11 usage"),
        ("unavailable", "vx11 call switch.list_providers"),
        ("crashed", "vx11 logs switch"),
    ],
)
def test_what_can_be_done_about_a_missing_model_is_told(terminal, remote, code, told) -> None:
    remote.pieces[SUBJECT] = [{**REPLY, "degraded": True, "fallback_source": "madre", "fallback_code": code, "reason": "why"}]
    assert f"next  {told}" in terminal("chat", "hi").err


def test_a_whole_answer_advises_nothing(terminal, remote) -> None:
    remote.pieces[SUBJECT] = [REPLY]
    assert "next" not in terminal("chat", "hi").err


def test_a_conversation_that_is_not_kept_is_said(terminal, remote) -> None:
    remote.pieces[SUBJECT] = [{**REPLY, "history": "unavailable"}]
    assert "history is unavailable" in terminal("chat", "hi").err


@pytest.mark.parametrize("code", ["off_by_policy", "crashed", "unavailable", "not_found"])
def test_madre_answers_when_operator_backend_cannot(terminal, remote, code) -> None:
    """The chat is how one asks what is wrong: it must not be the first thing to fail."""
    remote.pieces[SUBJECT] = [Failure(code, "it is closed")]
    remote.answers["vx11.madre.chat"] = {"response": "Nobody is awake.", "understood": True}
    ran = terminal("chat", "who is awake?", "--session", "s9")
    assert ran.out == "Nobody is awake.\n"
    assert f": it is closed ({code})" in ran.err
    assert "switch" not in ran.err, "what is advised is about operator_backend"
    assert remote.asked[-1] == ("vx11.madre.chat", {"message": "who is awake?", "session_id": "s9"})


def test_madre_does_not_answer_what_has_begun(terminal, remote) -> None:
    """Half an answer of one and a whole one of another would read as one."""
    remote.pieces[SUBJECT] = [{"text": "Hel"}, Failure("crashed", "cut off")]
    ran = terminal("chat", "hi")
    assert ran.code == 70
    assert ran.out == "Hel\n"
    assert len(remote.asked) == 1


def test_a_timeout_is_no_reason_to_ask_another(terminal, remote) -> None:
    remote.pieces[SUBJECT] = [Failure("timeout", "no answer")]
    assert terminal("chat", "hi").code == 75


def test_a_pipe_is_one_message(terminal, remote) -> None:
    remote.pieces[SUBJECT] = [REPLY]
    assert terminal("chat", stdin="line one\nline two\n").code == 0
    assert remote.asked[0][1]["message"] == "line one\nline two"


def test_an_empty_pipe_says_so(terminal, remote) -> None:
    assert terminal("chat", stdin="").code == 2


def test_a_message_that_is_too_long_is_not_sent(terminal, remote) -> None:
    assert terminal("chat", "x" * 4_001).code == 65
    assert remote.asked == []


def test_a_conversation_goes_on_in_its_session_and_survives_an_error(terminal, remote, monkeypatch, capsys) -> None:
    """A failed turn is told, also the first; the next one goes on in the same session."""
    said = iter(["one", "", "two", "three", "/quit"])
    monkeypatch.setattr(builtins, "input", lambda _: next(said))
    turns = iter([[Failure("timeout", "too slow")], [REPLY], [REPLY]])

    async def stream(subject, document, *, timeout):
        remote.pieces[subject] = next(turns)
        async for piece in type(remote).stream(remote, subject, document, timeout=timeout):
            yield piece

    monkeypatch.setattr(remote, "stream", stream)
    converse(terminal.desk)
    first, second, third = [body.get("session_id") for _, body in remote.asked]
    assert first == second
    assert (len(first), third) == (16, "s1"), "its own, and then what the answer says"
    assert "too slow" in capsys.readouterr().err


def test_the_end_of_input_ends_the_conversation(terminal, monkeypatch, capsys) -> None:
    def closed(_: str) -> str:
        raise EOFError

    monkeypatch.setattr(builtins, "input", closed)
    converse(terminal.desk)
    assert "Traceback" not in capsys.readouterr().err
