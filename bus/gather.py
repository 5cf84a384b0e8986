"""Messages of the log on their way to become spans: kept together by trace until it is quiet. Pure, time is passed in.

A span leaves once. One whose parent is still to come waits for it, so that what is exported is whole, or says that it is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bus.eventlog import STREAM, Stored
from bus.measures import Tally
from bus.origin import object_in, origin_of
from bus.sampling import Sampler
from bus.spans import CALLS, Span, place_of, spans_of
from bus.tree import MISSING, marked

QUIET_S = 1.5
"""After the newest message of a trace: records wait up to 0.3 s in their processes, and the streams are read side by side."""
PATIENCE_S = 600.0
"""What a span waits for its parent, which may be a handler that is at work. As long its trace is remembered."""
PILED_MOST = 20_000
"""Messages in all piles; beyond it the oldest pile goes as it is."""

Key = tuple[str, str]


@dataclass
class Pile:
    """The messages of one trace of one conversation. `sent`: the ids of the spans that have left."""

    messages: list[Stored] = field(default_factory=list)
    touched: float = 0.0
    sent: set[str] = field(default_factory=set)
    settled: bool = False
    """All its spans have left."""
    looked_at: int = 0
    """So many messages it had when it was last asked for what may leave."""


class Gathering:
    """`unsampled`: messages that no span is made of; `unreadable`: those that are no record; `lacking`: spans without parent."""

    def __init__(self, sampler: Sampler, *, quiet_s: float = QUIET_S, patience_s: float = PATIENCE_S) -> None:
        self._sampler = sampler
        self._quiet_s, self._patience_s = quiet_s, patience_s
        self._piles: dict[Key, Pile] = {}
        self._piled = 0
        self.tally = Tally()
        self.unsampled = self.unreadable = self.lacking = 0

    def add(self, message: Stored, now: float) -> None:
        key = self._key(message)
        if key is None:
            return
        pile = self._piles.pop(key, None) or Pile()
        pile.messages.append(message)
        pile.touched, pile.settled = now, False
        self._piles[key] = pile  # the one that was touched last is the last
        self._piled += 1

    def ready(self, now: float) -> Iterator[Span]:
        """The spans that are to leave now."""
        for key, pile in list(self._piles.items()):
            age = now - pile.touched
            if age < self._quiet_s and self._piled <= PILED_MOST:
                break  # those behind it are younger
            at_last = age >= self._patience_s or self._piled > PILED_MOST
            if at_last or (not pile.settled and pile.looked_at < len(pile.messages)):
                yield from self._leaving(pile, at_last=at_last)
            if at_last:
                self._piled -= len(self._piles.pop(key).messages)

    def all(self) -> Iterator[Span]:
        """What is left when there is no more time."""
        for pile in self._piles.values():
            yield from self._leaving(pile, at_last=True)

    def first_waiting(self, stream: str) -> int:
        """The lowest sequence of `stream` in a pile that has not left whole; 0 when there is none."""
        waiting = (one for pile in self._piles.values() if not pile.settled for one in pile.messages)
        return min((one.sequence for one in waiting if one.subject.startswith(CALLS) == (stream != STREAM)), default=0)

    def _leaving(self, pile: Pile, *, at_last: bool) -> list[Span]:
        spans = [span for span in marked(spans_of(pile.messages)) if span.span_id not in pile.sent]
        waits = {span.span_id for span in spans if span.open or MISSING in span.attributes}
        self.lacking += len(waits) if at_last else 0
        going = spans if at_last else _not_below(waits, spans)
        pile.looked_at = len(pile.messages)
        pile.sent.update(span.span_id for span in going)
        pile.settled = len(going) == len(spans)
        return going

    def _key(self, message: Stored) -> Key | None:
        """None for what is not exported."""
        try:
            if message.subject.startswith(CALLS):
                document = object_in(message.body)
                self.tally.handled(document)
                correlation, traceparent = str(document["correlation_id"]), str(document["traceparent"])
            else:
                self.tally.stored(message.subject)
                correlation, traceparent = origin_of(STREAM, message.sequence, message.headers, message.body)
            place = place_of(traceparent)
        except (ValueError, KeyError, TypeError, AttributeError):
            self.unreadable += 1
            return None
        if not self._sampler.takes(place.trace_id, place.sampled):
            self.unsampled += 1
            return None
        return correlation, place.trace_id


def _not_below(waits: set[str], spans: list[Span]) -> list[Span]:
    """The spans that neither wait themselves nor are below one that does."""
    known = -1
    while known != len(waits):
        known = len(waits)
        waits |= {span.span_id for span in spans if span.parent_id in waits}
    return [span for span in spans if span.span_id not in waits]
