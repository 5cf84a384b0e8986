"""What operator_backend itself says to people, every sentence once in each language."""

from __future__ import annotations

from schemas.language import Language

SENTENCES: dict[str, dict[Language, str]] = {
    "platform": {
        "en": "the message is about operating VX11, which madre does",
        "es": "el mensaje trata de manejar VX11, y eso lo hace madre",
    },
    "not_operated": {
        "en": "nothing was done on VX11; if you meant that, madre understands for instance: {phrases}",
        "es": "no se ha hecho nada en VX11; si era eso, madre entiende por ejemplo: {phrases}",
    },
    "job": {
        "en": "this sounds like a job, and who does jobs (hormiguero) is not built yet: a language model answers, "
        "nothing is done",
        "es": "esto parece un trabajo, y quien los hace (hormiguero) aún no existe: responde un modelo de lenguaje, "
        "no se hace nada",
    },
    "audio": {
        "en": "this sounds like work on audio, and who does it (shubniggurath) is not built yet: a language model answers, "
        "nothing is done",
        "es": "esto parece trabajo con audio, y quien lo hace (shubniggurath) aún no existe: responde un modelo de lenguaje, "
        "no se hace nada",
    },
    "cut": {
        "en": "it stopped where an answer of this model must end: to hear more, ask it to go on",
        "es": "se ha parado donde una respuesta de este modelo debe acabar: para oír más, pídele que siga",
    },
    "only_english": {
        "en": "it was made for English, and you wrote in Spanish",
        "es": "está hecho para el inglés: en español responde mal",
    },
}

CANNOT_ACT = (
    "You are a language model in a chat. You neither see nor operate the system VX11, its actors, its jobs or its audio: "
    "never say what state it is in, and never say that you have done something there."
)
"""Told to the model that answers what looked like an order to somebody else."""


def say(language: Language, key: str, /, **parts: object) -> str:
    return SENTENCES[key][language].format(**parts)
