"""The closed list of phrases that madre understands, in English and Spanish.

A phrase is understood only when the whole message is one: nothing is fished out of a longer sentence, so that
"do not wake switch" wakes nobody.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from schemas.language import Language, plain

Intent = Literal[
    "help", "status", "awake", "wake", "sleep", "restart", "open_window", "close_window", "why", "recent", "yes", "no"
]

PHRASE_MAX_CHARS = 300
"""No phrase needs more; it bounds what a regular expression can be made to chew on."""
NEAREST = 2
"""So many phrases are named to whom none was understood, where the whole list would be in the way."""

EXAMPLES: dict[Language, tuple[tuple[Intent, str], ...]] = {
    "en": (
        ("status", "status"),
        ("awake", "who is awake"),
        ("wake", "wake switch"),
        ("sleep", "put switch to sleep"),
        ("restart", "restart switch"),
        ("open_window", "open a window for 10 minutes for switch, operator_backend"),
        ("close_window", "close the window"),
        ("why", "why is switch asleep"),
        ("recent", "what happened in the last 10 minutes"),
        ("help", "help"),
    ),
    "es": (
        ("status", "estado"),
        ("awake", "quién está despierto"),
        ("wake", "despierta a switch"),
        ("sleep", "pon a dormir a switch"),
        ("restart", "reinicia switch"),
        ("open_window", "abre una ventana de 10 minutos para switch, operator_backend"),
        ("close_window", "cierra la ventana"),
        ("why", "por qué está dormido switch"),
        ("recent", "qué ha pasado en los últimos 10 minutos"),
        ("help", "ayuda"),
    ),
}
"""What madre says that she understands. The tests hold her to it."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """One understood message. `names` are as they were said, in lower case; which actor is meant is not known here."""

    intent: Intent
    language: Language | None = None
    """None: the words are the same in both languages."""
    names: tuple[str, ...] = ()
    minutes: float | None = None


def understand(text: str) -> Phrase | None:
    """The phrase that `text` is, or None."""
    if len(text) > PHRASE_MAX_CHARS:
        return None
    said = without_politeness(plain(text))
    bare = said.replace(" ,", "")
    for intent, language, pattern in PATTERNS:
        found = pattern.fullmatch(said) or pattern.fullmatch(bare)
        if found:
            parts = found.groupdict()
            return Phrase(intent, language, _names(parts.get("names")), _minutes(parts))
    return None


def nearest(text: str, language: Language) -> list[str]:
    """The NEAREST examples that are most like `text`: those with the most of its words, then of its letters."""
    said = plain(text[:PHRASE_MAX_CHARS])
    words = set(said.split())

    def likeness(example: str) -> tuple[int, float]:
        told = plain(example)
        return len(words & set(told.split())), difflib.SequenceMatcher(None, said, told).ratio()

    return sorted((example for _, example in EXAMPLES[language]), key=likeness, reverse=True)[:NEAREST]


def without_politeness(said: str) -> str:
    """`said` less every "please", and less greetings and thanks at its ends."""
    said = PLEASE.sub("", said).strip()
    while found := (LEADING.match(said) or TRAILING.search(said)):
        said = said[found.end() :] if found.start() == 0 else said[: found.start()]
    return said


def _words(line: str) -> frozenset[str]:
    return frozenset(line.split())


PLEASE = re.compile(r"(?:^| )(?:please|kindly|por favor|porfa|porfavor)(?= |$)")
LEADING = re.compile(
    r"(?:,|hey|hi|hello|madre|(?:can|could|would|will) you|i (?:want|would like) (?:you )?to|"
    r"hola|oye|buenas(?: (?:tardes|noches))?|buenos dias|me gustaria|"
    r"(?:me )?(?:puedes|podrias|puede|podria)|quiero|necesito) "
)
TRAILING = re.compile(r" (?:,|thanks|thank you|(?:right )?now|gracias|ahora(?: mismo)?)$")

NUMBERS = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60,
    "ninety": 90, "un": 1, "una": 1, "uno": 1, "dos": 2, "tres": 3, "cuatro": 4, "cinco": 5, "seis": 6, "siete": 7,
    "ocho": 8, "nueve": 9, "diez": 10, "quince": 15, "veinte": 20, "treinta": 30, "cuarenta": 40, "cincuenta": 50,
    "sesenta": 60, "noventa": 90,
}  # fmt: skip
UNITS = {
    1 / 60: "s sec secs second seconds seg segundo segundos",
    1.0: "m min mins minute minutes minuto minutos",
    60.0: "h hr hrs hour hours hora horas",
    1440.0: "d day days dia dias",
}
"""Minutes in one unit, and what the unit is called."""
MINUTES_IN = {word: minutes for minutes, words in UNITS.items() for word in words.split()}
FRACTIONS = {
    "half an hour": 30.0, "half hour": 30.0, "quarter of an hour": 15.0, "a quarter of an hour": 15.0,
    "media hora": 30.0, "un cuarto de hora": 15.0, "cuarto de hora": 15.0,
}  # fmt: skip


def _names(said: str | None) -> tuple[str, ...]:
    """The parts of a list, each without articles and the word `actor`."""
    parts = (_name(part) for part in SEPARATOR.split(said or ""))
    return tuple(dict.fromkeys(part for part in parts if part))


def _name(part: str) -> str:
    words = part.split()
    while len(words) > 1 and words[0] in FILLERS:
        words.pop(0)
    while len(words) > 1 and words[-1] in FILLERS:
        words.pop()
    return " ".join(words)


SEPARATOR = re.compile(r"(?:^| )(?:, ?)*(?:,|and|y|e)(?: |$)")
FILLERS = _words("the a an el la los las al actor actors actores service services servicio servicios")


def _minutes(parts: dict[str, str | None]) -> float | None:
    fraction, unit = parts.get("fraction"), parts.get("unit")
    if fraction:
        return FRACTIONS[fraction]
    if not unit:
        return None
    count = parts.get("count") or "1"
    return (NUMBERS[count] if count in NUMBERS else float(count.replace(",", "."))) * MINUTES_IN[unit]


def _any(words: Iterable[str]) -> str:
    """One of `words`, the longest first, so that `a` does not hide `an`."""
    return "|".join(sorted(words, key=len, reverse=True))


COUNT = rf"(?P<count>[0-9]+(?:[.,][0-9]{{1,2}})?|{_any(NUMBERS)})"
UNIT = rf"(?P<unit>{_any(MINUTES_IN)})"
FRACTION = rf"(?P<fraction>{_any(FRACTIONS)})"
TIME = rf"(?:{FRACTION}|{COUNT} {UNIT})"
SPAN = rf"(?:{FRACTION}|(?:{COUNT} )?{UNIT})"
"""A time whose count may be missing: "the last hour"."""
NAMES = r"(?P<names>.+?)"
AWAKE = "awake|up|on|running|active|alive|asleep|sleeping|dormant|down|off|stopped|failed|broken|draining|waking"
TELL_ME = r"(?:what is|whats|show(?: me)?|give me|tell me)"
DESPIERTO = "funcionando|durmiendo|en marcha|(?:despiert|activ|encendid|levantad|dormid|apagad|parad|caid|inactiv|averiad)[oa]s?"
DIME = r"(?:cual es|como es|dame|dime|muestra(?:me)?|ensena(?:me)?|ver)"
ABRE_VENTANA = r"(?:abre|abrir)(?: una| la)? ventana"
LAS = r"(?: (?:una|la|las|mi|todas))*"
POR_QUE = r"(?:por que|porque)"
QUE_PASO = r"que (?:ha pasado|paso|ha ocurrido|ocurrio|ha sucedido|sucedio|esta pasando|pasa)"

ENGLISH: tuple[tuple[Intent, str], ...] = (
    ("yes", r"(?:yes|yeah|yep|sure|confirm|confirmed|go ahead|do it|proceed)(?: (?:do it|go ahead|sure|i am sure))?"),
    ("no", r"(?:no )?(?:nope|stop|cancel(?: it)?|abort|never ?mind|forget it|(?:do not|dont)(?: do it)?|wait)"),
    ("help", r"help(?: me)?|commands?|hello|hi|hey|(?:who|what) are you"),
    ("help", r"what (?:can|do) (?:you|i) (?:do|say|ask|understand)(?: you)?"),
    ("status", rf"(?:{TELL_ME} )?(?:the )?(?:system )?(?:status|state|overview|summary)(?: report)?"),
    ("status", r"how (?:are (?:you|things)|is (?:everything|it going|the system))(?: going| doing)?"),
    ("awake", rf"(?:who|what|which|whos|whats)(?: (?:actors?|services?))?(?: (?:is|are))? (?:{AWAKE})"),
    ("awake", r"(?:(?:list|show)(?: me)? )?(?:all )?(?:the )?(?:awake )?(?:actors|services)"),
    ("wake", rf"(?:wake[ -]up|wake|awaken|start|activate|turn on|bring up|launch)(?: {NAMES})?(?: up)?"),
    ("wake", rf"turn {NAMES} on"),
    ("sleep", rf"(?:put|send) {NAMES} to (?:sleep|bed)"),
    ("sleep", rf"let {NAMES} sleep"),
    ("sleep", rf"(?:put to (?:sleep|bed)|sleep|stop|suspend|shut ?down|turn off)(?: {NAMES})?"),
    ("sleep", rf"(?:turn|shut) {NAMES} (?:off|down)"),
    ("restart", rf"(?:restart|reboot|reload|relaunch)(?: {NAMES})?"),
    ("open_window", rf"(?:open )?(?:a |an |the )?{TIME} window(?: (?:for|with|to) {NAMES})?"),
    ("open_window", rf"open (?:a |the )?window(?: (?:for|of|lasting))? {TIME}(?: (?:for|with|to|and) {NAMES})?"),
    ("open_window", rf"open (?:a |the )?window(?: (?:for|with|to))? {NAMES}(?: (?:for|during))? {TIME}"),
    ("open_window", rf"open (?:a |the )?window(?: (?:for|with|to) {NAMES})?"),
    ("open_window", rf"keep {NAMES} (?:awake|up|running)(?: for)?(?: {TIME})?"),
    ("close_window", rf"(?:close|end|shut) (?:a |all |my |the )*(?:open )?windows?(?:(?: (?:of|for|with))? {NAMES})?"),
    ("why", rf"(?:why (?:is|are|isnt|arent)|whys|is|are)(?: not)? {NAMES}(?: not)? (?:{AWAKE})"),
    (
        "why",
        rf"why (?:did(?: not)?|didnt) {NAMES}(?: not)? (?:wake(?: up)?|(?:go to )?sleep|fall asleep|stop|start|fail)",
    ),
    ("why", rf"(?:explain|why) {NAMES}"),
    (
        "recent",
        rf"what(?: has)? happened(?:(?: (?:in|during|over|within))?(?: the)?(?: (?:last|past))? {SPAN}(?: ago)?)?",
    ),
    ("recent", r"what(?: has)? happened (?:recently|lately)|whats (?:new|happening)|what is (?:new|happening)"),
    ("recent", rf"(?:recent )?(?:events|history)(?: (?:in |of |for |from )?(?:the )?(?:last|past) {SPAN})?"),
)
SPANISH: tuple[tuple[Intent, str], ...] = (
    (
        "yes",
        r"(?:si|claro|claro que si|vale|de acuerdo|confirm(?:o|ar|ado)|dale|por supuesto|venga)(?: hazlo| adelante)?",
    ),
    ("yes", r"adelante|hazlo"),
    ("no", r"(?:no )?(?:cancela(?:r|lo)?|olvidalo|dejalo|mejor no|no lo hagas|espera|para|ni hablar|anula|nada)"),
    ("help", r"ayuda|ayudame|comandos?|(?:quien|que) eres|hola|buenas(?: (?:tardes|noches))?|buenos dias"),
    ("help", r"que (?:puedes|sabes|entiendes)(?: (?:hacer|decir))?"),
    ("help", r"que (?:puedo|se puede) (?:hacer|decir|pedir|preguntar)(?:te)?"),
    ("status", rf"(?:{DIME} )?(?:el )?(?:estado|situacion|resumen)(?: (?:del sistema|general|actual|de todo))?"),
    ("status", r"como (?:estas|esta todo|va todo|va|van las cosas|esta el sistema)|que tal(?: todo| estas)?"),
    ("awake", rf"(?:quien(?:es)?|cuales|que(?: actores| servicios)?)(?: (?:esta|sigue|hay)n?)? (?:{DESPIERTO})"),
    ("awake", rf"(?:(?:lista|{DIME}) )?(?:todos )?(?:los )?(?:actores|servicios)(?: despiertos)?"),
    ("wake", rf"(?:despierta|levanta|arranca|inicia|activa|lanza)r?(?: {NAMES})?"),
    ("wake", rf"(?:despertar|enciende|encender|(?:pon|poner) en marcha)(?: {NAMES})?"),
    ("sleep", rf"(?:pon|poner|manda|mandar|echa|echar) {NAMES} a dormir"),
    ("sleep", rf"(?:(?:pon|poner|manda|mandar|echa|echar) a|haz|deja) dormir(?: {NAMES})?"),
    ("sleep", rf"(?:duerme|dormir|deten|detener|(?:apaga|para|suspende|desactiva)r?)(?: {NAMES})?"),
    ("restart", rf"(?:reinicia|rearranca|recarga|relanza)r?(?: {NAMES})?"),
    ("open_window", rf"{ABRE_VENTANA}(?: (?:de|por|durante))? {TIME}(?: (?:para|a|con|de|y) {NAMES})?"),
    ("open_window", rf"{ABRE_VENTANA}(?: (?:para|a|con|de))? {NAMES}(?: (?:de|por|durante))? {TIME}"),
    ("open_window", rf"{ABRE_VENTANA}(?: (?:para|a|con|de) {NAMES})?"),
    ("open_window", rf"(?:manten|mantener|deja) {NAMES} (?:despiert|activ)[oa]s?(?: (?:por|durante))?(?: {TIME})?"),
    (
        "close_window",
        rf"(?:cierra|cerrar|termina|terminar){LAS} ventanas?(?: abiertas?)?(?:(?: (?:de|para|con))? {NAMES})?",
    ),
    ("why", rf"{POR_QUE}(?: no)? (?:esta|sigue)n?(?: no)? (?:{DESPIERTO}) {NAMES}"),
    ("why", rf"{POR_QUE}(?: no)? (?:esta|sigue)n?(?: no)? {NAMES} (?:{DESPIERTO})"),
    ("why", rf"{POR_QUE} {NAMES}(?: no)? (?:esta|sigue)n? (?:{DESPIERTO})"),
    ("why", rf"{POR_QUE}(?: no)?(?: se)? (?:durmio|desperto|paro|apago|arranco|fallo|duerme|despierta) {NAMES}"),
    ("why", rf"{POR_QUE}(?: no)? se ha (?:dormido|despertado|parado|apagado) {NAMES}"),
    ("why", rf"esta {NAMES} (?:{DESPIERTO})"),
    ("why", rf"(?:explica|explicame|{POR_QUE}) {NAMES}"),
    (
        "recent",
        rf"{QUE_PASO}(?:(?: (?:en|durante|desde|desde hace|hace))?(?: (?:el|la|los|las))?(?: ultim[oa]s?)? {SPAN})?",
    ),
    ("recent", rf"{QUE_PASO} (?:ultimamente|recientemente)|que hay de nuevo"),
    ("recent", rf"(?:eventos|historial|novedades)(?: (?:de |en )?(?:el |la |los |las )?ultim[oa]s? {SPAN})?"),
)
BOTH: tuple[tuple[Intent, str], ...] = (("yes", "ok|okay"), ("no", "no(?: no)*"), ("help", "madre"))

PATTERNS: tuple[tuple[Intent, Language | None, re.Pattern[str]], ...] = (
    *((intent, None, re.compile(p)) for intent, p in BOTH),
    *((intent, "en", re.compile(p)) for intent, p in ENGLISH),
    *((intent, "es", re.compile(p)) for intent, p in SPANISH),
)
"""In this order: the first that fits the whole message wins."""
