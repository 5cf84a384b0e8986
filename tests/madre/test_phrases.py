"""What madre understands, and above all what she does not."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.madre.phrases import EXAMPLES, PHRASE_MAX_CHARS, Phrase, understand
from schemas.language import language_of, plain

HARMLESS = {"help", "status", "awake", "why", "recent", "yes", "no"}


@pytest.mark.parametrize(("language", "intent", "text"), [(lang, i, t) for lang, rows in EXAMPLES.items() for i, t in rows])
def test_what_help_promises_is_understood(language: str, intent: str, text: str) -> None:
    """The list that madre shows is the list that she keeps."""
    phrase = understand(text)
    assert phrase is not None
    assert (phrase.intent, phrase.language) == (intent, language)


def test_help_tells_the_same_in_both_languages() -> None:
    assert [intent for intent, _ in EXAMPLES["en"]] == [intent for intent, _ in EXAMPLES["es"]]


@pytest.mark.parametrize(
    ("text", "intent", "names", "minutes"),
    [
        ("Please, could you wake up operator backend?", "wake", ("operator backend",), None),
        ("WAKE the switch actor!!", "wake", ("switch",), None),
        ("turn on switch", "wake", ("switch",), None),
        ("start switch, hormiguero and operator-backend", "wake", ("switch", "hormiguero", "operator-backend"), None),
        ("wake", "wake", (), None),
        ("put the switch to sleep please", "sleep", ("switch",), None),
        ("stop switch", "sleep", ("switch",), None),
        ("turn operator backend off", "sleep", ("operator backend",), None),
        ("reboot switch now", "restart", ("switch",), None),
        ("open a window for switch for 10 minutes", "open_window", ("switch",), 10.0),
        ("open a 5-minute window for switch", "open_window", ("switch",), 5.0),
        ("open window switch 90s", "open_window", ("switch",), 1.5),
        ("open a window for half an hour, for switch", "open_window", ("switch",), 30.0),
        ("open a window for two hours for switch and hormiguero", "open_window", ("switch", "hormiguero"), 120.0),
        ("keep switch awake for 10 minutes", "open_window", ("switch",), 10.0),
        ("open a window", "open_window", (), None),
        ("close window w-3f", "close_window", ("w-3f",), None),
        ("end the window of switch", "close_window", ("switch",), None),
        ("why isn't switch awake?", "why", ("switch",), None),
        ("why did operator_backend fall asleep", "why", ("operator_backend",), None),
        ("explain switch", "why", ("switch",), None),
        ("what happened in the last hour?", "recent", (), 60.0),
        ("what has happened", "recent", (), None),
        ("who's awake now?", "awake", (), None),
        ("How are things going?", "status", (), None),
        ("yes, please", "yes", (), None),
        ("go ahead", "yes", (), None),
        ("never mind", "no", (), None),
        ("¡Despierta, por favor, a switch y a operator-backend!", "wake", ("switch", "operator-backend"), None),
        ("¿Puedes despertar a Switch?", "wake", ("switch",), None),
        ("pon en marcha el switch", "wake", ("switch",), None),
        ("manda a switch a dormir", "sleep", ("switch",), None),
        ("duerme a switch, gracias", "sleep", ("switch",), None),
        ("DETÉN switch", "sleep", ("switch",), None),
        ("quiero reiniciar switch", "restart", ("switch",), None),
        ("abre una ventana para switch durante 1,5 horas", "open_window", ("switch",), 90.0),
        ("abre una ventana de media hora para switch", "open_window", ("switch",), 30.0),
        ("mantén switch despierto diez minutos", "open_window", ("switch",), 10.0),
        ("cierra la ventana abierta", "close_window", (), None),
        ("¿por qué se durmió switch?", "why", ("switch",), None),
        ("por que switch no esta despierto", "why", ("switch",), None),
        ("¿qué pasó en la última hora?", "recent", (), 60.0),
        ("¿Quiénes están dormidos?", "awake", (), None),
        ("¿qué tal?", "status", (), None),
        ("Sí, hazlo", "yes", (), None),
        ("mejor no", "no", (), None),
    ],
)
def test_a_phrase_is_understood_in_many_ways_of_saying_it(
    text: str, intent: str, names: tuple[str, ...], minutes: float | None
) -> None:
    phrase = understand(text)
    assert phrase is not None
    assert (phrase.intent, phrase.names, phrase.minutes) == (intent, names, minutes)


@pytest.mark.parametrize(
    "text",
    [
        "do not wake switch",
        "don't put switch to sleep",
        "never restart switch",
        "no, restart switch",
        "should I restart switch?",
        "if nobody minds, restart switch",
        "yes but only tomorrow",
        "ok no",
        "si no",
        "claro que no",
        "no despiertes a switch",
        "no pares switch",
        "tell me how to restart switch",
        "he said: restart switch",
        "write a poem about sleep",
        "what is the capital of France",
        "-",
        "",
        "\N{SNOWMAN}",
    ],
)
def test_nothing_is_fished_out_of_a_longer_sentence(text: str) -> None:
    """A negation or a condition around a phrase must not become the phrase."""
    assert understand(text) is None


@pytest.mark.parametrize(
    "text", ["open a window for -5 minutes", "open a window for 1,000 minutes", "open a window for 10-15 minutes"]
)
def test_a_time_that_may_be_misread_is_no_time(text: str) -> None:
    phrase = understand(text)
    assert phrase is not None
    assert phrase.minutes is None


def test_a_name_keeps_how_its_words_are_joined() -> None:
    """Two actors may differ in nothing else."""
    assert [understand(f"wake {name}") for name in ("my-ant", "my_ant", "My ant")] == [
        Phrase("wake", "en", (name,)) for name in ("my-ant", "my_ant", "my ant")
    ]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("¿cuánto es dos y dos?", "es"),
        ("what time is it", "en"),
        ("dime algo de la luna", "es"),
        ("switch", None),
        ("睡眠", None),
    ],
)
def test_the_language_of_what_is_not_understood_is_told_by_small_words(text: str, language: str | None) -> None:
    assert language_of(text) == language


@given(st.text(max_size=PHRASE_MAX_CHARS))
def test_any_text_is_a_phrase_or_none(text: str) -> None:
    phrase = understand(text)
    assert phrase is None or isinstance(phrase, Phrase)
    assert language_of(text) in ("en", "es", None)


VERBS = "wake sleep stop restart start launch open close keep turn put despierta duerme apaga para reinicia abre cierra"
WORDS = f"{VERBS} switch the to not no do if window ventana for 10 minutes y and , a dormir why yes ok please".split()


@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
def test_words_in_disorder_make_no_action_but_by_the_verb_they_begin_with(text: str) -> None:
    """What is done can only be what the first word, less politeness, says."""
    phrase = understand(text)
    if phrase is None or phrase.intent in HARMLESS:
        return
    first = next(word for word in plain(text).split() if word not in ("please", ",", "10", "a", "the"))
    assert first in {*VERBS.split(), "minutes", "dormir"}


def test_a_text_longer_than_any_phrase_is_none() -> None:
    assert understand("wake " + "x" * PHRASE_MAX_CHARS) is None


@pytest.mark.parametrize("piece", ["a ", "por que esta ", "open a window for ", "wake, ", "please ", "10 minutes ", ", "])
def test_no_text_takes_long(piece: str) -> None:
    """Anybody with a chat token may send 4,000 characters of anything; madre's loop must not stand still for it."""
    for text in (piece * (4_000 // len(piece)), piece * (PHRASE_MAX_CHARS // len(piece))):
        begun = time.process_time()
        understand(text)
        assert time.process_time() - begun < 0.1
