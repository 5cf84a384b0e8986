"""What madre says, in English and Spanish: every sentence of hers once in each language."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from actors.madre.phrases import EXAMPLES
from schemas.errors import Failure
from schemas.language import Language
from schemas.madre import ActorList, ActorStatus, Explanation, Moved, Transition, Window
from schemas.power import State

TOLD_TRANSITIONS = 20
"""More lines than this nobody reads in a chat; how many were left out is said."""
TOLD_NAMES = 30

SENTENCES: dict[str, dict[Language, str]] = {
    "i_am": {
        "en": "I am madre, the control plane. I am not a language model: I understand these phrases and no others.",
        "es": "Soy madre, el plano de control. No soy un modelo de lenguaje: entiendo estas frases y ninguna más.",
    },
    "not_understood": {
        "en": "I do not understand that. I am madre, not a language model; I understand only this:",
        "es": "Eso no lo entiendo. Soy madre, no un modelo de lenguaje; solo entiendo esto:",
    },
    "confirm_hint": {
        "en": "Before I stop anything I ask you for a yes.",
        "es": "Antes de parar algo te pido un sí.",
    },
    "whom": {"en": 'Whom? Say for instance "{example}".', "es": "¿A quién? Di por ejemplo «{example}»."},
    "how_long": {
        "en": 'For how long? Say for instance "{example}".',
        "es": "¿Cuánto tiempo? Di por ejemplo «{example}».",
    },
    "unknown_actor": {
        "en": 'There is no actor "{name}", so I did nothing. There are: {known}.',
        "es": "No hay ningún actor «{name}», así que no he hecho nada. Hay: {known}.",
    },
    "nearest": {"en": "Did you mean {nearest}?", "es": "¿Querías decir {nearest}?"},
    "ambiguous_actor": {
        "en": 'By "{name}" you may mean {known}. Say it exactly; I did nothing.',
        "es": "Con «{name}» puedes querer decir {known}. Dilo exactamente; no he hecho nada.",
    },
    "no_actors": {"en": "none", "es": "ninguno"},
    "one_only": {"en": "One at a time, please: which of {names}?", "es": "De uno en uno: ¿cuál de {names}?"},
    "bad_time": {
        "en": "A window lasts from 1 second to {days} days; I did nothing.",
        "es": "Una ventana dura de 1 segundo a {days} días; no he hecho nada.",
    },
    "bad_look_back": {
        "en": "I look back from 1 second to {days} days.",
        "es": "Miro atrás de 1 segundo a {days} días.",
    },
    "may_not": {
        "en": "Your token may chat, but not move actors (that needs the scope power). I did nothing.",
        "es": "Tu token permite chatear, pero no mover actores (eso pide el permiso power). No he hecho nada.",
    },
    "needs_session": {
        "en": "To {what} I need a yes, and to know that the yes is yours I need a session_id with both messages. I did nothing.",
        "es": "Para {what} necesito un sí, y para saber que el sí es tuyo necesito un session_id en los dos mensajes. "
        "No he hecho nada.",
    },
    "carries": {
        "en": "I cannot {what} from inside this conversation: {names} carries it. I did nothing; "
        'on the command line it is "{command}".',
        "es": "No puedo desde esta conversación ({what}): {names} la lleva. No he hecho nada; "
        "en la línea de órdenes es «{command}».",
    },
    "ask_sleep": {
        "en": "I am going to put {names} to sleep: it finishes the work it has and then stops.",
        "es": "Voy a poner a dormir a {names}: termina el trabajo que tiene y después para.",
    },
    "ask_restart": {
        "en": "I am going to restart {names}: it finishes the work it has, stops, and starts again.",
        "es": "Voy a reiniciar {names}: termina el trabajo que tiene, para y vuelve a arrancar.",
    },
    "ask_close": {
        "en": "I am going to close the window {window} ({names}): they may sleep once they have finished their work.",
        "es": "Voy a cerrar la ventana {window} ({names}): podrán dormir cuando terminen su trabajo.",
    },
    "ask_yes": {
        "en": "Shall I? Say yes within {seconds} seconds, or no.",
        "es": "¿Lo hago? Di sí antes de {seconds} segundos, o no.",
    },
    "to_sleep": {"en": "put {names} to sleep", "es": "poner a dormir a {names}"},
    "to_restart": {"en": "restart {names}", "es": "reiniciar {names}"},
    "to_close": {"en": "close the window {window}", "es": "cerrar la ventana {window}"},
    "cancelled": {"en": "All right. I did not {what}.", "es": "De acuerdo. Eso no lo hago: {what}."},
    "dropped": {"en": "(I did not {what}: there was no yes.)", "es": "(Sin un sí no lo hago: {what}.)"},
    "expired": {
        "en": "That yes came too late, after more than {seconds} seconds, so I did not {what}. Ask me again.",
        "es": "Ese sí ha llegado tarde, pasados {seconds} segundos, y no lo he hecho: {what}. Pídemelo otra vez.",
    },
    "nothing_pending": {
        "en": "I have not asked you anything, so there is nothing to say yes or no to.",
        "es": "No te he preguntado nada, así que no hay a qué decir sí o no.",
    },
    "already_asleep": {"en": "{names}: already asleep.", "es": "{names}: ya dormía."},
    "moved": {"en": "{service}: {before} → {after} ({ms} ms).", "es": "{service}: {before} → {after} ({ms} ms)."},
    "restarted": {"en": "{service} was restarted ({ms} ms).", "es": "{service} se ha reiniciado ({ms} ms)."},
    "unmoved": {"en": "{service} is {after}, as before.", "es": "{service} está {after}, como antes."},
    "not_moved": {
        "en": "{service} is {after}: it did not work. {error}",
        "es": "{service} está {after}: no ha funcionado. {error}",
    },
    "under_way": {
        "en": "{service}: still under way, it goes on. Ask me for the status.",
        "es": "{service}: todavía en marcha, sigue. Pídeme el estado.",
    },
    "failed": {"en": "{service}: I could not. {why}.", "es": "{service}: no he podido. {why}."},
    "could_not": {"en": "I could not do that. {why}.", "es": "No he podido. {why}."},
    "summary": {
        "en": "Policy {policy}, mode {mode}. {awake} of {total} actors awake.",
        "es": "Política {policy}, modo {mode}. {awake} de {total} actores despiertos.",
    },
    "awake": {"en": "Awake: {names}.", "es": "Despiertos: {names}."},
    "not_awake": {"en": "Not awake: {names}.", "es": "No despiertos: {names}."},
    "nobody": {"en": "nobody", "es": "nadie"},
    "window_line": {
        "en": "Window {window}: {names}, {left}.",
        "es": "Ventana {window}: {names}, {left}.",
    },
    "no_window": {"en": "No window is open.", "es": "No hay ninguna ventana abierta."},
    "left": {"en": "{time} left", "es": "quedan {time}"},
    "until_closed": {"en": "until it is closed", "es": "hasta que se cierre"},
    "opened": {
        "en": "The window {window} is open for {time}: {names}.",
        "es": "La ventana {window} está abierta durante {time}: {names}.",
    },
    "closed": {"en": "The window {window} is closed.", "es": "La ventana {window} está cerrada."},
    "which_window": {
        "en": 'Several windows are open. Which? Say for instance "close window {window}".',
        "es": "Hay varias ventanas abiertas. ¿Cuál? Di por ejemplo «cierra la ventana {window}».",
    },
    "unknown_window": {
        "en": 'No open window is "{name}" or is for it.',
        "es": "Ninguna ventana abierta es «{name}» ni es para eso.",
    },
    "is": {"en": "{service} is {state}.", "es": "{service} está {state}."},
    "because": {"en": "{sentence}", "es": "Anotado, en inglés: {sentence}"},
    "happened": {"en": "In the last {time}:", "es": "En los últimos {time}:"},
    "nothing_happened": {
        "en": "In the last {time} nothing happened.",
        "es": "En los últimos {time} no ha pasado nada.",
    },
    "left_out": {"en": "… and {count} before that.", "es": "… y {count} antes."},
}

STATES: dict[Language, dict[State, str]] = {
    "en": {
        "dormant": "asleep",
        "waking": "waking",
        "adopting": "being looked for",
        "handover": "just awake",
        "active": "awake",
        "draining": "finishing its work",
        "failed": "failed",
    },
    "es": {
        "dormant": "dormido",
        "waking": "despertando",
        "adopting": "sin confirmar",
        "handover": "recién despierto",
        "active": "despierto",
        "draining": "terminando su trabajo",
        "failed": "averiado",
    },
}

CODES_ES = {
    "off_by_policy": "La política no lo permite",
    "not_found": "No existe",
    "conflict": "Choca con el estado actual",
    "timeout": "No ha respondido a tiempo",
    "unavailable": "No está disponible",
    "busy": "Está ocupado",
    "crashed": "Se ha caído",
    "waking": "Todavía está despertando",
    "storage_full": "No queda sitio para guardar",
}
"""The reasons of failures come in English; the code is what can be said in Spanish, and the reason follows it."""

UNITS: dict[Language, tuple[tuple[str, str], tuple[str, str], tuple[str, str]]] = {
    "en": (("hour", "hours"), ("minute", "minutes"), ("second", "seconds")),
    "es": (("hora", "horas"), ("minuto", "minutos"), ("segundo", "segundos")),
}


def say(language: Language, key: str, /, **parts: object) -> str:
    return SENTENCES[key][language].format(**parts)


def help_text(language: Language, sentence: str) -> str:
    """`sentence`, then every phrase that is understood."""
    lines = (f"- {example}" for _, example in EXAMPLES[language])
    return "\n".join((say(language, sentence), *lines, say(language, "confirm_hint")))


def example(language: Language, intent: str) -> str:
    return next(text for made, text in EXAMPLES[language] if made == intent)


def listed(language: Language, names: Iterable[str]) -> str:
    """`a, b and c`; `nobody` when there is none, and a count in place of what is past TOLD_NAMES."""
    all_names = list(names)
    if not all_names:
        return say(language, "nobody")
    told = all_names[:TOLD_NAMES]
    if len(all_names) > len(told):
        return f"{', '.join(told)}… (+{len(all_names) - len(told)})"
    joint = " and " if language == "en" else " y "
    return joint.join([", ".join(told[:-1]), told[-1]]) if told[1:] else told[0]


def time_told(language: Language, seconds: float) -> str:
    """`1 hour 30 minutes`, from whole seconds, without what is zero."""
    whole = max(1, round(seconds))
    counts = (whole // 3600, whole // 60 % 60, whole % 60)
    return " ".join(f"{n} {unit[n != 1]}" for n, unit in zip(counts, UNITS[language], strict=True) if n)


def failure_told(language: Language, failure: Failure) -> str:
    """The reason of a failure, with its code."""
    why = failure.message.rstrip(".") or failure.code
    if language == "en":
        return f"{why[0].upper()}{why[1:]} ({failure.code})"
    return f"{CODES_ES.get(failure.code, 'Ha fallado')} ({failure.code}: {why})"


def moved_told(language: Language, verb: str, moved: Moved) -> str:
    """What became of one actor that was to `wake`, `sleep` or `restart`."""
    states = STATES[language]
    if moved.error:
        return say(language, "not_moved", service=moved.service, after=states[moved.to], error=moved.error)
    if verb == "restart" and moved.to == "active":
        return say(language, "restarted", service=moved.service, ms=round(moved.elapsed_ms))
    if moved.from_ == moved.to:
        return say(language, "unmoved", service=moved.service, after=states[moved.to])
    before, after = states[moved.from_], states[moved.to]
    return say(language, "moved", service=moved.service, before=before, after=after, ms=round(moved.elapsed_ms))


def is_awake(actor: ActorStatus) -> bool:
    return actor.state in ("active", "handover", "draining")


def awake_told(language: Language, actors: Sequence[ActorStatus]) -> str:
    states = STATES[language]
    awake = (a.name if a.state == "active" else f"{a.name} ({states[a.state]})" for a in actors if is_awake(a))
    others = (f"{a.name} ({states[a.state]})" for a in actors if not is_awake(a))
    told = say(language, "awake", names=listed(language, awake))
    return f"{told}\n{say(language, 'not_awake', names=listed(language, others))}"


def status_told(language: Language, state: ActorList) -> str:
    awake = sum(map(is_awake, state.actors))
    summary = say(language, "summary", policy=state.policy, mode=state.mode, awake=awake, total=len(state.actors))
    return "\n".join((summary, awake_told(language, state.actors), windows_told(language, state.windows)))


def windows_told(language: Language, windows: Sequence[Window]) -> str:
    if not windows:
        return say(language, "no_window")
    lines = [window_told(language, window) for window in windows[:TOLD_NAMES]]
    if len(windows) > len(lines):
        lines.append(f"… (+{len(windows) - len(lines)})")
    return "\n".join(lines)


def window_told(language: Language, window: Window) -> str:
    left = window.ttl_remaining_sec
    told = say(language, "until_closed") if left is None else say(language, "left", time=time_told(language, left))
    return say(language, "window_line", window=window.window_id, names=listed(language, window.services), left=told)


def explanation_told(language: Language, explained: Explanation) -> str:
    lines = [say(language, "is", service=explained.actor, state=STATES[language][explained.state])]
    if explained.sentence:
        lines.append(say(language, "because", sentence=explained.sentence))
    return "\n".join((*lines, *transitions_told(language, explained.transitions)))


def transitions_told(language: Language, transitions: Sequence[Transition]) -> list[str]:
    """The newest TOLD_TRANSITIONS of them, oldest first, and how many were left out."""
    told = transitions[-TOLD_TRANSITIONS:]
    lines = [f"{t.at} {t.what}{f' ({t.reason})' if t.reason else ''}" for t in told]
    left_out = len(transitions) - len(told)
    return [say(language, "left_out", count=left_out), *lines] if left_out else lines
