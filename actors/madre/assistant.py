"""madre's chat: an operator's assistant that does what a phrase says, and asks for a yes before it stops anything."""

from __future__ import annotations

import difflib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from actors.madre import speech
from actors.madre.moves import Moves
from actors.madre.phrases import Phrase, nearest, understand
from actors.madre.speech import say
from schemas.errors import Failure
from schemas.language import Language, language_of
from schemas.madre import (
    ActorList,
    ActorStatus,
    Explanation,
    MadreChatReply,
    Moved,
    Recognised,
    Transition,
    Window,
    WindowClosed,
    WindowOpened,
)

CONFIRM_S = 60.0
"""A yes that comes later confirms nothing: by then it may be meant for something else."""
SESSIONS = 1_000
"""Sessions whose language and open question are remembered; the one longest silent gives way."""
RECENT_MINUTES = 10.0
RECENT_MAX_DAYS = 7
WINDOW_MAX_DAYS = 7
WINDOW_MIN_S = 1.0
DAY_MINUTES = 1_440.0
NEAR = 0.5
"""How alike a name must be, of 1, to be suggested."""

Move = Literal["wake", "sleep", "restart"]
Stop = Literal["sleep", "restart", "close"]
MOVES = frozenset(("wake", "sleep", "restart", "open_window", "close_window", "yes"))
ANSWERS = frozenset(("yes", "no"))


class Operations(Protocol):
    """What the assistant can have done. Each method raises Failure with its reason."""

    async def list_actors(self) -> ActorList: ...
    async def wake(self, name: str) -> Moved: ...
    async def sleep(self, name: str) -> Moved: ...
    async def restart(self, name: str) -> Moved: ...
    async def open_window(self, services: list[str], ttl_sec: float) -> WindowOpened: ...
    async def close_window(self, window_id: str) -> WindowClosed: ...
    async def explain(self, name: str) -> Explanation: ...
    async def recent(self, minutes: float) -> Sequence[Transition]: ...


@dataclass(frozen=True, slots=True)
class Pending:
    """What waits for a yes: the actors by name, or the one window by id. `stops`: the actors that may sleep for it."""

    verb: Stop
    targets: tuple[str, ...]
    stops: tuple[str, ...]
    asked_at: float
    language: Language

    def told(self) -> str:
        """As it stands after `to` or `I did not`."""
        if self.verb == "close":
            return say(self.language, "to_close", window=self.targets[0])
        return say(self.language, f"to_{self.verb}", names=speech.listed(self.language, self.targets))


@dataclass(slots=True)
class Talk:
    """What is remembered of one session."""

    language: Language = "en"
    pending: Pending | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """One understood message with its circumstances."""

    phrase: Phrase
    talk: Talk
    language: Language
    session_id: str
    now: float
    path: Sequence[str]
    before: Pending | None
    """What the message before this one left to be confirmed."""


class Refused(Exception):
    """Not done, for a reason that is said; its text is the answer."""


class Assistant:
    """Answers one message at a time. Time is passed in as seconds of a clock that does not go back."""

    def __init__(self, operations: Operations, moves: Moves | None = None) -> None:
        self._do = operations
        self._moves = moves or Moves()
        self._talks: OrderedDict[str, Talk] = OrderedDict()
        self._answers: dict[str, Callable[[Asked], Awaitable[MadreChatReply]]] = {
            "help": self._help,
            "status": self._status,
            "awake": self._awake,
            "why": self._why,
            "recent": self._recent,
            "wake": self._wake,
            "open_window": self._open_window,
            "sleep": self._ask_stop,
            "restart": self._ask_stop,
            "close_window": self._ask_close,
            "yes": self._yes,
            "no": self._no,
        }

    async def answer(
        self, message: str, session_id: str, now: float, *, may_move: bool = True, path: Sequence[str] = ()
    ) -> MadreChatReply:
        """Do what `message` says if it is a phrase, else say what is understood. A Failure of the operations is told.

        `may_move` False: only looks are answered. `path`: the actors that this message came through; they wait for the
        answer, so that waiting for one of them to finish would never end.
        """
        phrase = understand(message)
        talk = self._talk(session_id)
        language = (phrase.language if phrase else None) or language_of(message) or talk.language
        pending, talk.pending, talk.language = talk.pending, None, language
        if phrase is None:
            told = speech.help_text(language, "not_understood")
            reply = MadreChatReply(response=told, understood=False, nearest=nearest(message, language))
        else:
            reply = await self._reply(Asked(phrase, talk, language, session_id, now, path, pending), may_move=may_move)
            if phrase.intent in ANSWERS:
                return reply
        if pending is None or not _open(pending, now) or _same(pending, talk.pending):
            return reply
        dropped = _dropped(pending, language)
        return reply.model_copy(update={"response": f"{reply.response}\n{dropped}"})

    async def recognise(self, message: str, session_id: str, now: float, *, asked: bool) -> Recognised:
        """Whether `message` is for nobody else. If not, the open question of its session is none any more.

        `asked`: there was one, which may have been forgotten.
        """
        phrase, talk = understand(message), self._talks.get(session_id) or Talk()
        pending = talk.pending
        if phrase and (asked or pending if phrase.intent in ANSWERS else await self._is_order(phrase)):
            return Recognised(hers=True)
        talk.pending = None
        if pending is None or not _open(pending, now):
            return Recognised(hers=False)
        return Recognised(hers=False, dropped=_dropped(pending, language_of(message) or talk.language))

    async def _is_order(self, phrase: Phrase) -> bool:
        """Whether it moves somebody who exists: `explain entropy` and `open a window` are said to others, too."""
        if phrase.intent not in MOVES or not phrase.names:
            return False
        known = await self._do.list_actors()
        names = {_key(actor.name) for actor in known.actors} | {_key(window.window_id) for window in known.windows}
        return all(_key(name) in names for name in phrase.names)

    async def _reply(self, asked: Asked, *, may_move: bool) -> MadreChatReply:
        if not may_move and asked.phrase.intent in MOVES:
            return _said(say(asked.language, "may_not"))
        try:
            return await self._answers[asked.phrase.intent](asked)
        except Refused as refused:
            return _said(str(refused))
        except Failure as failure:
            return _said(say(asked.language, "could_not", why=speech.failure_told(asked.language, failure)))

    def _talk(self, session_id: str) -> Talk:
        talk = self._talks.setdefault(session_id, Talk())
        self._talks.move_to_end(session_id)
        if len(self._talks) > SESSIONS:
            self._talks.popitem(last=False)
        return talk

    async def _help(self, asked: Asked) -> MadreChatReply:
        return _said(speech.help_text(asked.language, "i_am"))

    async def _status(self, asked: Asked) -> MadreChatReply:
        return _said(speech.status_told(asked.language, await self._do.list_actors()))

    async def _awake(self, asked: Asked) -> MadreChatReply:
        return _said(speech.awake_told(asked.language, (await self._do.list_actors()).actors))

    async def _why(self, asked: Asked) -> MadreChatReply:
        actors = await self._actors(asked)
        if len(actors) > 1:
            names = speech.listed(asked.language, (actor.name for actor in actors))
            raise Refused(say(asked.language, "one_only", names=names))
        return _said(speech.explanation_told(asked.language, await self._do.explain(actors[0].name)))

    async def _recent(self, asked: Asked) -> MadreChatReply:
        minutes = RECENT_MINUTES if asked.phrase.minutes is None else asked.phrase.minutes
        if not WINDOW_MIN_S / 60 <= minutes <= RECENT_MAX_DAYS * DAY_MINUTES:
            raise Refused(say(asked.language, "bad_look_back", days=RECENT_MAX_DAYS))
        happened = await self._do.recent(minutes)
        time = speech.time_told(asked.language, minutes * 60)
        if not happened:
            return _said(say(asked.language, "nothing_happened", time=time))
        lines = speech.transitions_told(asked.language, happened)
        return _said("\n".join((say(asked.language, "happened", time=time), *lines)))

    async def _wake(self, asked: Asked) -> MadreChatReply:
        return await self._move("wake", [actor.name for actor in await self._actors(asked)], asked.language)

    async def _open_window(self, asked: Asked) -> MadreChatReply:
        services = [actor.name for actor in await self._actors(asked)]
        language, minutes = asked.language, asked.phrase.minutes
        if minutes is None:
            raise Refused(say(language, "how_long", example=speech.example(language, "open_window")))
        seconds = minutes * 60
        if not WINDOW_MIN_S <= seconds <= WINDOW_MAX_DAYS * DAY_MINUTES * 60:
            raise Refused(say(language, "bad_time", days=WINDOW_MAX_DAYS))
        [opened] = await self._moves.outcomes([self._do.open_window(services, seconds)])
        if not isinstance(opened, WindowOpened):
            return _said(_outcome_told(language, "open", speech.listed(language, services), opened))
        window, time = opened.window, speech.time_told(language, seconds)
        names = speech.listed(language, window.services)
        lines = [say(language, "opened", window=window.window_id, time=time, names=names)]
        lines += (speech.moved_told(language, "wake", moved) for moved in opened.woken)
        done = [moved.model_dump(by_alias=True) for moved in opened.woken]
        return _said("\n".join(lines), {"verb": "open_window", "window_id": window.window_id, "results": done})

    async def _ask_stop(self, asked: Asked) -> MadreChatReply:
        verb: Stop = "restart" if asked.phrase.intent == "restart" else "sleep"
        actors = await self._actors(asked)
        asleep = [actor.name for actor in actors if actor.state == "dormant"] if verb == "sleep" else []
        awake = tuple(actor.name for actor in actors if actor.name not in asleep)
        told = [say(asked.language, "already_asleep", names=speech.listed(asked.language, asleep))] if asleep else []
        if not awake:
            return _said(told[0])
        told.append(say(asked.language, f"ask_{verb}", names=speech.listed(asked.language, awake)))
        return self._confirm(asked, Pending(verb, awake, awake, asked.now, asked.language), " ".join(told))

    async def _ask_close(self, asked: Asked) -> MadreChatReply:
        window = _the_window(asked, (await self._do.list_actors()).windows)
        names = speech.listed(asked.language, window.services)
        told = say(asked.language, "ask_close", window=window.window_id, names=names)
        pending = Pending("close", (window.window_id,), tuple(window.services), asked.now, asked.language)
        return self._confirm(asked, pending, told)

    def _confirm(self, asked: Asked, pending: Pending, told: str) -> MadreChatReply:
        """Ask for a yes. Without a session nobody could tell whose yes it is."""
        _check_path(pending, asked)
        if not asked.session_id:
            raise Refused(say(asked.language, "needs_session", what=pending.told()))
        asked.talk.pending = pending
        question = say(asked.language, "ask_yes", seconds=round(CONFIRM_S))
        action = {"verb": _verb(pending), "targets": list(pending.targets), "confirm_within_s": CONFIRM_S}
        return MadreChatReply(response=f"{told} {question}", understood=True, pending=True, action=action)

    async def _yes(self, asked: Asked) -> MadreChatReply:
        pending = _pending(asked)
        if not _open(pending, asked.now):
            raise Refused(say(asked.language, "expired", seconds=round(CONFIRM_S), what=pending.told()))
        _check_path(pending, asked)
        if pending.verb == "close":
            return await self._close(pending.targets[0], asked.language)
        return await self._move(pending.verb, pending.targets, asked.language)

    async def _no(self, asked: Asked) -> MadreChatReply:
        return _said(say(asked.language, "cancelled", what=_pending(asked).told()))

    async def _move(self, verb: Move, names: Sequence[str], language: Language) -> MadreChatReply:
        """All at the same time; each tells what became of it."""
        act = {"wake": self._do.wake, "sleep": self._do.sleep, "restart": self._do.restart}[verb]
        outcomes = await self._moves.outcomes([act(name) for name in names])
        told = [_outcome_told(language, verb, name, made) for name, made in zip(names, outcomes, strict=True)]
        results = [_result(name, made) for name, made in zip(names, outcomes, strict=True)]
        return _said("\n".join(told), {"verb": verb, "targets": list(names), "results": results})

    async def _close(self, window_id: str, language: Language) -> MadreChatReply:
        [closed] = await self._moves.outcomes([self._do.close_window(window_id)])
        if not isinstance(closed, WindowClosed):
            return _said(_outcome_told(language, "close", window_id, closed))
        lines = [speech.moved_told(language, "sleep", moved) for moved in closed.slept]
        results = [moved.model_dump(by_alias=True) for moved in closed.slept]
        action = {"verb": "close_window", "targets": [window_id], "results": results}
        return _said("\n".join((say(language, "closed", window=window_id), *lines)), action)

    async def _actors(self, asked: Asked) -> list[ActorStatus]:
        """The actors that were named, all of them or none. Raises Refused when one does not exist."""
        if not asked.phrase.names:
            raise Refused(say(asked.language, "whom", example=speech.example(asked.language, asked.phrase.intent)))
        actors = (await self._do.list_actors()).actors
        found = (find_actor(name, actors, asked.language) for name in asked.phrase.names)
        return list({actor.name: actor for actor in found}.values())


def find_actor(said: str, actors: Sequence[ActorStatus], language: Language) -> ActorStatus:
    """The actor meant by `said`, however it is joined. Raises Refused with the nearest name when there is none."""
    exact = [actor for actor in actors if actor.name.casefold() == said.replace(" ", "_")]
    alike = exact if len(exact) == 1 else [actor for actor in actors if _key(actor.name) == _key(said)]
    if len(alike) == 1:
        return alike[0]
    if alike:
        names = speech.listed(language, (actor.name for actor in alike))
        raise Refused(say(language, "ambiguous_actor", name=said, known=names))
    by_key = {_key(actor.name): actor.name for actor in actors}
    known = speech.listed(language, (actor.name for actor in actors)) if actors else say(language, "no_actors")
    told = say(language, "unknown_actor", name=said, known=known)
    near = difflib.get_close_matches(_key(said), by_key, n=1, cutoff=NEAR)
    raise Refused(f"{told} {say(language, 'nearest', nearest=by_key[near[0]])}" if near else told)


def _the_window(asked: Asked, windows: Sequence[Window]) -> Window:
    """The window that was meant: by id, by one of its services, or the only one. Raises Refused when it is not one."""
    language, names = asked.language, asked.phrase.names
    if not windows:
        raise Refused(say(language, "no_window"))
    meant = [w for w in windows if all(_is_of(w, name) for name in names)]
    if len(meant) == 1:
        return meant[0]
    told = "which_window" if meant else "unknown_window"
    why = say(language, told, window=windows[0].window_id, name=", ".join(names))
    raise Refused(f"{why}\n{speech.windows_told(language, windows)}")


def _is_of(window: Window, name: str) -> bool:
    return _key(name) in {_key(window.window_id), *map(_key, window.services)}


def _key(name: str) -> str:
    """What is left of a name when the ways of joining its words are taken away."""
    return re.sub(r"[\W_]+", "", name.casefold())


def _pending(asked: Asked) -> Pending:
    """What a yes or no is about, told in the language of now. Raises Refused when it is about nothing."""
    if asked.before is None:
        raise Refused(say(asked.language, "nothing_pending"))
    return replace(asked.before, language=asked.language)


def _check_path(pending: Pending, asked: Asked) -> None:
    """Raise Refused when an actor is to stop that waits for this very answer."""
    if carriers := [name for name in pending.stops if name in asked.path]:
        names, command = speech.listed(asked.language, carriers), _command(pending)
        raise Refused(say(asked.language, "carries", what=pending.told(), names=names, command=command))


def _dropped(pending: Pending, language: Language) -> str:
    return say(language, "dropped", what=replace(pending, language=language).told())


def _open(pending: Pending, now: float) -> bool:
    return 0 <= now - pending.asked_at <= CONFIRM_S


def _same(pending: Pending, other: Pending | None) -> bool:
    return other is not None and (pending.verb, pending.targets) == (other.verb, other.targets)


def _command(pending: Pending) -> str:
    verb = "window close" if pending.verb == "close" else pending.verb
    return f"vx11 {verb} {' '.join(pending.targets)}"


def _outcome_told(language: Language, verb: str, name: str, outcome: Moved | Failure | None) -> str:
    if outcome is None:
        return say(language, "under_way", service=name)
    if isinstance(outcome, Failure):
        return say(language, "failed", service=name, why=speech.failure_told(language, outcome))
    return speech.moved_told(language, verb, outcome)


def _result(name: str, outcome: Moved | Failure | None) -> dict[str, Any]:
    """An outcome as programs read it."""
    if isinstance(outcome, Failure):
        return {"service": name, "error": outcome.code, "message": outcome.message}
    return outcome.model_dump(by_alias=True) if outcome else {"service": name, "under_way": True}


def _verb(pending: Pending) -> str:
    return "close_window" if pending.verb == "close" else pending.verb


def _said(response: str, action: dict[str, Any] | None = None) -> MadreChatReply:
    return MadreChatReply(response=response, understood=True, action=action)
