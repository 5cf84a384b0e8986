"""Why somebody did not answer, as people are told it: in their language, with the code. The reason itself stays as it is."""

from __future__ import annotations

from schemas.errors import Failure
from schemas.language import Language

WORDS: dict[str, dict[Language, str]] = {
    "off_by_policy": {"en": "is off by policy", "es": "está cerrado por la política"},
    "unavailable": {"en": "is not available", "es": "no está disponible"},
    "not_found": {"en": "has nothing to answer with", "es": "no tiene con qué responder"},
    "endpoint_not_found": {"en": "is not there", "es": "no está"},
    "not_installed": {"en": "is not installed", "es": "no está instalado"},
    "busy": {"en": "is busy", "es": "está ocupado"},
    "over_budget": {"en": "has no budget left", "es": "ha agotado el presupuesto"},
    "waking": {"en": "is still waking", "es": "todavía está despertando"},
    "timeout": {"en": "was too slow", "es": "ha tardado demasiado"},
    "crashed": {"en": "was cut off", "es": "se ha cortado"},
    "invalid": {"en": "refused the question", "es": "ha rechazado la pregunta"},
    "too_large": {"en": "refused the question", "es": "ha rechazado la pregunta"},
}
OTHERS: dict[Language, str] = {"en": "failed", "es": "ha fallado"}
BEGUN: dict[Language, str] = {"en": " in the middle of its answer", "es": " a mitad de su respuesta"}


def unanswered(language: Language, who: str, failure: Failure, *, begun: bool = False) -> str:
    """`begun`: a part of the answer had been said."""
    words = WORDS.get(failure.code, OTHERS)[language]
    return f"{who} {words}{BEGUN[language] if begun else ''}: {failure.message} ({failure.code})"
