"""In which language somebody speaks, and why somebody else did not answer, in the same one."""

from __future__ import annotations

import pytest

from schemas.errors import CODES, Failure
from schemas.language import language_of
from schemas.wording import WORDS, unanswered


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("please tell me something about the moon", "en"),
        ("cuéntame algo de la luna", "es"),
        ("cuentame un chiste", "es"),
        ("sí", "es"),
        ("Write my résumé, please", "en"),
        ("¿ok?", "es"),
        ("ok", None),
        ("", None),
        ("a\u0301" * 4_000, "es"),  # letters and accents apart, as some keyboards send them
    ],
)
def test_the_language_is_told_by_small_words_and_accents(text: str, language: str | None) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_failure_can_be_told_in_both_languages_with_its_code(code: str) -> None:
    failure = Failure(code, "that is how it is")
    english, spanish = (unanswered(language, "switch", failure) for language in ("en", "es"))  # type: ignore[arg-type]
    assert english != spanish
    for told in (english, spanish):
        assert told.startswith("switch ")
        assert told.endswith(f": that is how it is ({code})")


def test_words_are_for_codes_that_exist() -> None:
    assert set(WORDS) <= set(CODES)


def test_half_an_answer_is_told_as_such() -> None:
    failure = Failure("crashed", "it died")
    assert unanswered("en", "switch", failure, begun=True) == "switch was cut off in the middle of its answer: it died (crashed)"
    assert unanswered("es", "switch", failure, begun=True) == "switch se ha cortado a mitad de su respuesta: it died (crashed)"
