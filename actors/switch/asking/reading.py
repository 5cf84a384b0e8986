"""The body of a streamed answer, as it comes, into pieces: what came together is one piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from actors.switch.asking import dialect
from actors.switch.asking.dialect import Piece, Reader
from actors.switch.asking.failure import ProviderFailed
from actors.switch.asking.sse import Parser, TooLong

NOTHING = Piece()


class Reading:
    """Feed it the body. `finished`: the answer was said, whole. `over`: nothing more is worth waiting for."""

    def __init__(self) -> None:
        self.finished = False
        self.over = False
        self._parser = Parser()
        self._reader = Reader()

    def feed(self, received: bytes) -> Iterator[Piece]:
        """The pieces in these bytes. Raises ProviderFailed, after what was good before that."""
        try:
            events = self._parser.feed(received)
        except TooLong as wrong:
            raise ProviderFailed(f"it sent {wrong}") from None
        yield from self._read(events)

    def close(self) -> Iterator[Piece]:
        """The body ended. Raises ProviderFailed when the answer did not."""
        yield from self._read(self._parser.close())
        if not self.finished:
            raise ProviderFailed("the stream ended before the answer did")

    def _read(self, events: Iterable[str]) -> Iterator[Piece]:
        gathered = NOTHING
        for event in events:
            try:
                piece = self._one(event)
            except ProviderFailed:
                if gathered != NOTHING:
                    yield gathered
                raise
            if self.over:
                break
            both = piece if gathered is NOTHING else gathered.then(piece)
            if both is None:
                yield gathered
            gathered = both or piece
        if gathered != NOTHING:
            yield gathered

    def _one(self, event: str) -> Piece:
        """What this event says. After the answer's end nothing can spoil it, only the token counts may come."""
        if not event:
            return NOTHING
        try:
            if event == dialect.DONE:
                self._end()
                self.over = True
                return NOTHING
            piece = self._reader.read(event)
            if piece.finish_reason:
                self._end()
        except ProviderFailed:
            if not self.finished:
                raise
            self.over = True
            return NOTHING
        return piece

    def _end(self) -> None:
        self._reader.end()
        self.finished = True
