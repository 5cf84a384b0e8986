"""`route`: the kinds and the models of a message, for people and for programs."""

from __future__ import annotations

from schemas.errors import Failure
from schemas.switch import Candidate, KindScore, Routed

SUBJECT = "vx11.switch.route"
FOUND = Routed(
    kind="chat",
    how="embedding",
    kinds=[KindScore(kind="chat", score=0.91), KindScore(kind="audio", score=0.06), KindScore(kind="job", score=0.03)],
    language="en",
    candidates=[
        Candidate(provider="ollama", model="llama3.2", score=7.5, why="+5 answers in time"),
        Candidate(provider="openai", model="gpt-4o", score=3, refused="over its budget of today"),
    ],
    cpu_ms=16.04,
)


def test_the_table_says_whose_it_is_and_which_model_would_be_asked(terminal, remote) -> None:
    remote.answers[SUBJECT] = FOUND.model_dump(mode="json")
    ran = terminal("route", "what", "is", "a", "compressor?")
    assert remote.asked == [(SUBJECT, {"text": "what is a compressor?", "model": None, "session_id": ""})]
    kinds, models = ran.out.split("\n\n")
    assert [line.split() for line in kinds.splitlines()[1:]] == [
        ["a", "model", "chat", "91%"],
        ["shubniggurath", "audio", "6%"],
        ["hormiguero", "job", "3%"],
    ]
    best, other = models.splitlines()[1:]
    assert best.split()[:3] == ["1", "ollama/llama3.2", "7.5"]
    assert "+5 answers in time" in best
    assert "not asked: over its budget of today" in other
    assert "by its embedding, in 16.0 ms" in ran.err
    assert "English" in ran.err


def test_what_is_not_for_a_model_says_for_whom_it_is(terminal, remote) -> None:
    found = FOUND.model_copy(update={"kind": "platform", "how": "n-grams", "note": "there is no embedding model"})
    remote.answers[SUBJECT] = found.model_dump(mode="json")
    ran = terminal("route", "who is awake?")
    assert "it is for madre: a model, in the order above, is asked only where madre cannot answer" in ran.err
    assert "▲ there is no embedding model" in ran.err


def test_without_models_madre_would_answer(terminal, remote) -> None:
    remote.answers[SUBJECT] = FOUND.model_copy(update={"candidates": []}).model_dump(mode="json")
    assert "no language model is configured" in terminal("route", "hello there").err


def test_programs_get_the_reply_as_it_is(terminal, remote) -> None:
    remote.answers[SUBJECT] = FOUND.model_dump(mode="json")
    assert terminal("route", "--json", "hello there").document == FOUND.model_dump(mode="json")


def test_a_model_and_a_conversation_may_be_named(terminal, remote) -> None:
    remote.answers[SUBJECT] = FOUND.model_dump(mode="json")
    terminal("route", "hello", "--model", "openai", "--session", "s1")
    assert remote.asked == [(SUBJECT, {"text": "hello", "model": "openai", "session_id": "s1"})]


def test_a_model_that_does_not_exist_is_an_error(terminal, remote) -> None:
    remote.answers[SUBJECT] = Failure("not_found", "no configured provider has the model 'x'; configured: ollama/llama3.2")
    ran = terminal("route", "hello", "--model", "x")
    assert ran.code == 66
    assert "ollama/llama3.2" in ran.err


def test_nothing_and_too_much_are_refused_before_anybody_is_asked(terminal, remote) -> None:
    for words in ([" "], ["a" * 4_001]):
        assert terminal("route", *words).code == 2
    assert remote.asked == []
