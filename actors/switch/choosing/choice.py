"""Which model is asked, in which order, and why: every model that may answer gets points, the most points are asked first.

    success    up to 40   how often it has answered
    speed      up to 20   how soon its first word came
    price      up to 20   free has all of them, 10 dollars for a million tokens half
    language        -20   the message's language is not among those it declares
    window          -15   the conversation only fits without its oldest turns
    order           -10   for each place in the configured order, three at most
    spare           -15   it is not the model that its provider is configured for, but one besides
    session        +100   it has answered in this session before
    offline        -200   it runs on this machine out of the models folder: anything else is preferred

What nobody has observed is assumed, and counts as sixteen answers do: it takes more than a bad minute to move a model
from its place, which is the circuit's business. A model that lacks what the request needs (tools, JSON, room) is not
asked at all. A provider is asked for one model, its best. A model that is asked for by its name is not weighed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from actors.switch.choosing import window
from actors.switch.choosing.learned import NOTHING, Observed
from actors.switch.configured.providers import FILE_NAME, Provider
from actors.switch.configured.traits import UNKNOWN, Traits
from schemas.errors import Failure
from schemas.switch import Candidate, Chat

AUTO = "auto"
SHOWN_MODELS = 20
"""How many models an error names."""

SUCCESS = 40.0
SPEED = 20.0
SPEED_HALF_S = 2.0
"""A first word after so long has half of the points."""
PRICE = 20.0
PRICE_HALF = 10.0
"""US dollars for a million tokens that leave half of the points."""
PROMPT_SHARE = 0.75
"""Of the tokens of a conversation: a price is weighed by it."""
LANGUAGE = -20.0
WINDOW = -15.0
ORDER = -10.0
ORDER_PLACES = 3
SPARE = -15.0
SESSION = 100.0
OFFLINE = -200.0
PLACES = ("first", "second", "third")


@dataclass(frozen=True)
class Choice:
    provider: Provider
    model: str
    reason: str
    traits: Traits = UNKNOWN


@dataclass(frozen=True)
class Need:
    """What is asked. `language`: of the message, empty when nothing tells. `pinned`: `provider/model` of the session.

    `faults`: what is configured wrongly, so that nobody can be asked there.
    """

    request: Chat
    language: str = ""
    pinned: str = ""
    faults: Sequence[str] = ()

    @property
    def named(self) -> str | None:
        """The model that was asked for by its name; None when the choice is left to switch."""
        return None if self.request.model == AUTO else self.request.model


@dataclass(frozen=True)
class Standing:
    """A provider as it stands now. `listed`: the models it was seen to serve. `rest`: seconds until it may be asked.

    `observed`: tells what is known of a model.
    """

    provider: Provider
    listed: Sequence[str] = ()
    rest: float = 0.0
    observed: Callable[[str], Observed] = lambda _: NOTHING


class Part(NamedTuple):
    """`better`: why this is an advantage over another model, whose name is put in."""

    points: float
    words: str
    better: str = ""


@dataclass(frozen=True)
class Weighed:
    """One model with its points. `lacks`: why it cannot answer this request; empty when it can."""

    provider: Provider
    place: int
    """In the configured order, from 0."""
    model: str
    traits: Traits
    parts: Mapping[str, Part]
    lacks: str = ""
    rest: float = 0.0
    tokens: tuple[int, int] = (0, 0)
    """That the conversation takes at least, and that fit; only when it does not fit."""

    @property
    def score(self) -> float:
        return round(sum(part.points for part in self.parts.values()), 1)

    @property
    def name(self) -> str:
        return f"{self.provider.name}/{self.model}"

    def shown(self) -> Candidate:
        rests = f"rests after failures, and may be asked in {self.rest:.0f} s" if self.rest > 0 else ""
        why = ", ".join(f"{part.points:+.0f} {part.words}" for part in self.parts.values())
        return Candidate(provider=self.provider.name, model=self.model, score=self.score, why=why, refused=self.lacks or rests)


def choices(standings: Sequence[Standing], need: Need) -> list[Choice]:
    """Whom to ask, first to last; nobody when nobody is configured. One that rests keeps its place: whoever asks it is told so,
    and takes the next.

    Raises Failure: `not_found` when nobody has the model that was named (another would be a silent lie), `too_large`
    when the conversation fits nowhere, `invalid` when no model can do what the request needs.
    """
    found = weighed(standings, need) if standings else []
    able = [one for one in found if not one.lacks]
    if found and not able:
        raise _none_able(found)
    best = _one_each(able)
    return [Choice(one.provider, one.model, _reason(one, best, found, need), one.traits) for one in best]


def weighed(standings: Sequence[Standing], need: Need) -> list[Weighed]:
    """All models that may be asked, best first, and after them those that cannot answer. Raises Failure `not_found`."""
    if need.named is not None:
        found = [_weighed(standing, model, 0, need) for standing, model in _having(standings, need.named)]
        return sorted(found, key=lambda one: bool(one.lacks))
    found = [_weighed(standing, model, n, need) for n, standing in enumerate(standings) for model in standing.provider.all_models]
    return sorted(found, key=lambda one: (bool(one.lacks), -one.score))


def _having(standings: Sequence[Standing], wanted: str) -> list[tuple[Standing, str]]:
    """Who has what was asked for: a model, a provider, or `provider/model`."""
    found = [(one, wanted) for one in standings if wanted in (*one.provider.all_models, *one.listed)]
    if found:
        return found
    name, _, model = wanted.partition("/")
    named = [standing for standing in standings if standing.provider.name == name]
    if named and (model or "/" not in wanted):
        return [(standing, model or standing.provider.model) for standing in named]
    known = [f"{one.provider.name}/{model}" for one in standings for model in one.provider.all_models]
    shown = ", ".join(known[:SHOWN_MODELS])
    raise Failure("not_found", f"no configured provider has the model {wanted!r}; configured: {shown}", model=wanted)


def _weighed(standing: Standing, model: str, place: int, need: Need) -> Weighed:
    provider, traits = standing.provider, standing.provider.traits(model)
    observed = standing.observed(model)
    parts = {
        "success": _success(observed),
        "speed": _speed(observed),
        "price": _price(traits),
        **_language(traits, need.language),
        **_window(traits, need.request, observed.factor),
        **_order(place),
    }
    if model != provider.model:
        parts["spare"] = Part(SPARE, f"{provider.name} is configured for {provider.model} first")
    if need.pinned == f"{provider.name}/{model}":
        parts["session"] = Part(SESSION, "has answered in this session before")
    if traits.offline:
        parts["offline"] = Part(OFFLINE, "runs on this machine out of the models folder, last of all")
    lacks, tokens = _lacks(traits, need.request, observed.factor)
    return Weighed(provider, place, model, traits, parts, lacks, standing.rest, tokens)


def _success(observed: Observed) -> Part:
    share, assumed = observed.success, "" if observed.known else " (assumed)"
    words = f"answers {share:.0%} of the time{assumed}"
    return Part(SUCCESS * share, words, f"it answers more often than {{other}} ({share:.0%} of the time)")


def _speed(observed: Observed) -> Part:
    first, assumed = observed.first_s, "" if observed.known else " (assumed)"
    words = f"its first word takes {first:.1f} s{assumed}"
    points = SPEED / (1 + first / SPEED_HALF_S)
    return Part(points, words, f"its first word comes sooner than that of {{other}} (after {first:.1f} s)")


def _price(traits: Traits) -> Part:
    price = PROMPT_SHARE * traits.price_in + (1 - PROMPT_SHARE) * traits.price_out
    words = f"${price:.2f} for a million tokens" if price else "free, or without a declared price"
    return Part(PRICE / (1 + price / PRICE_HALF), words, "it costs less than {other}")


def _language(traits: Traits, language: str) -> dict[str, Part]:
    if not language or not traits.languages or language in traits.languages:
        return {"language": Part(0.0, f"speaks {language}", f"it speaks {language}, other than {{other}}")} if language else {}
    return {"language": Part(LANGUAGE, f"declares {', '.join(traits.languages)}, not {language}")}


def _window(traits: Traits, request: Chat, factor: float) -> dict[str, Part]:
    if traits.context is None or window.fits(request, traits.context, factor):
        return {"window": Part(0.0, "has room for all of it", "it has room for the whole conversation, other than {other}")}
    return {"window": Part(WINDOW, f"of {traits.context} tokens is too small for the oldest turns")}


def _order(place: int) -> dict[str, Part]:
    name = PLACES[place] if place < len(PLACES) else f"number {place + 1}"
    return {"order": Part(ORDER * min(place, ORDER_PLACES) + 0.0, f"{name} in the configured order")}


def _lacks(traits: Traits, request: Chat, factor: float) -> tuple[str, tuple[int, int]]:
    """What the request needs and the model has not; the tokens where it is room."""
    if request.tools and not traits.tools:
        return "is declared without tools", (0, 0)
    if (request.response_format or {}).get("type", "text") != "text" and not traits.json:
        return "is declared without JSON answers", (0, 0)
    if traits.context is None:
        return "", (0, 0)
    least = window.least(request, factor) if request.trim else window.tokens(request.messages, factor)
    room = window.room(request, traits.context, factor)
    return (f"has room for {room} tokens, and this takes about {least}", (least, room)) if least > room else ("", (0, 0))


def _one_each(able: Iterable[Weighed]) -> list[Weighed]:
    """The best model of each provider: when it fails, another of the same place would, too."""
    best: dict[str, Weighed] = {}
    for one in able:
        best.setdefault(one.provider.name, one)
    return list(best.values())


def _reason(one: Weighed, best: Sequence[Weighed], found: Sequence[Weighed], need: Need) -> str:
    """Why this one is asked, and what it does not see, in the words of a person."""
    trimmed = "; the oldest turns do not fit into its window" if one.parts["window"].points else ""
    return _why(one, best, found, need) + trimmed


def _why(one: Weighed, best: Sequence[Weighed], found: Sequence[Weighed], need: Need) -> str:
    if need.named is not None:
        return f"{need.named} was asked for"
    if "session" in one.parts:
        return "it has answered in this session before"
    if one.traits.offline:
        alone = not need.faults and len({w.provider.name for w in found}) == 1
        return "; ".join(("nothing better is configured" if alone else "nothing better can be asked", *need.faults))
    if one is not best[0]:
        return "the next in line"
    passed = "".join(f"; {other.name} {other.lacks}" for other in found if other.lacks and other.place < one.place)
    first = min((other for other in best if not other.traits.offline), key=lambda other: other.place)
    return ("the configured order" if one is first else _advantage(one, first)) + passed


def _advantage(one: Weighed, other: Weighed) -> str:
    """What it has most over the other, that was configured before it."""
    gains = {name: part.points - (other.parts[name].points if name in other.parts else 0) for name, part in one.parts.items()}
    most = max((name for name in gains if one.parts[name].better), key=lambda name: gains[name])
    if "spare" in other.parts and gains[most] < -SPARE:
        return f"{other.provider.name} could answer with {other.model} only"
    return one.parts[most].better.format(other=other.provider.name)


def _none_able(found: Sequence[Weighed]) -> Failure:
    """Why none of them can answer, as an error that says what to do."""
    long = [one.tokens for one in found if one.tokens[0]]
    if long:
        least, room = max(long, key=lambda tokens: tokens[1])
        return window.too_large(least, room)
    told = "; ".join(f"{one.name} {one.lacks}" for one in found[:SHOWN_MODELS])
    where = "" if all(one.traits.offline for one in found) else f" ({FILE_NAME} declares it)"
    return Failure("invalid", f"no model can do what is asked: {told}{where}")
