"""One answer as it grows: what was said so far, by whom, and whether another may go on with it."""

from __future__ import annotations

from typing import Any

from actors.switch import seam
from actors.switch.asking.dialect import Piece
from actors.switch.asking.failure import ProviderFailed
from actors.switch.asking.toolcalls import Calls
from actors.switch.choosing.choice import Choice
from actors.switch.seam import Seam, Unjoined
from schemas.switch import Chat, ModelChunk, Speaker, Turn

ANSWER_MAX_CHARS = 150_000
"""Of text and arguments together, and of thoughts: a bus message has 1 MB at most. 32,768 tokens have some 130,000."""
OUT_OF_ROOM = "length"
"""The finish reason of an answer that was cut by its allowed length: what is still held back then is a repetition."""
TOKEN_CHARS = 4
"""Of a token, about; what was said counts against the length that the caller allowed."""


class Answer:
    """Providers take their turns with `begin`, `hear` and `end`. `usage`, `finish_reason`: of the one whose turn it is."""

    def __init__(self, request: Chat) -> None:
        self.request = request
        self.finish_reason = ""
        self.usage: dict[str, int] | None = None
        self.model = ""
        self._text: list[str] = []
        self._characters = 0
        self._thoughts = 0
        self._calls = Calls()
        self._calling = False
        self._full = False
        self._speakers: list[Speaker] = []
        self._lengths: list[int] = []
        self._choice: Choice | None = None
        self.spoke = False
        """Something was sent on of what this one said."""
        self._heard = False
        self._prefill = False
        self._seam = Seam("")

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def begun(self) -> bool:
        """Something of the answer itself was sent on, which cannot be taken back; thoughts can be thought again."""
        return bool(self._characters or self._calling)

    @property
    def speakers(self) -> list[Speaker]:
        """Who said what, in order."""
        both = zip(self._speakers, self._lengths, strict=True)
        return [speaker.model_copy(update={"characters": length}) for speaker, length in both]

    @property
    def stuck(self) -> str:
        """Why nobody can go on with it; empty when somebody can."""
        if self._full:
            return "an answer has no room for more"
        if self._calling:
            return "a call of a tool that has begun cannot be continued by another model"
        if self._characters and (self.request.response_format or {}).get("type", "text") != "text":
            return "an answer in a given form that has begun cannot be continued by another model"
        return ""

    def begin(self, choice: Choice) -> Chat:
        """It is this one's turn: what to ask it."""
        said = self.text
        self._choice, self.spoke, self._heard = choice, False, False
        self.finish_reason, self.usage, self.model = "", None, choice.model
        self._calls, self._thoughts = Calls(), 0
        self._prefill = choice.traits.prefill and not self.request.tools and bool(said.strip())
        words = "" if self._prefill else seam.anchor(said)
        self._seam = Seam(said, words)
        return continued(self.request, said, words) if said.strip() else self.request

    def hear(self, piece: Piece) -> ModelChunk | None:
        """What of it is to be sent on. Raises ProviderFailed."""
        self.finish_reason = piece.finish_reason or self.finish_reason
        self.model = piece.model or self.model
        self.usage = piece.usage or self.usage
        if not piece.says:
            return None
        if piece.text or piece.tool_calls or not self._characters:
            self._heard = True
        try:
            text = self._seam.join(piece.text)
            if piece.tool_calls:
                text += self._seam.end()
        except Unjoined as why:
            raise ProviderFailed(str(why), blame="caller") from None
        return self._chunk(text, piece.reasoning, self._calls.add(piece.tool_calls))

    def end(self) -> ModelChunk | None:
        """The provider has finished: what was held back. Raises ProviderFailed, also for an empty answer."""
        if not self._heard and not (self._prefill and self.finish_reason):
            raise ProviderFailed("it ended without a word")
        try:
            text = "" if self.finish_reason == OUT_OF_ROOM else self._seam.end()
        except Unjoined as why:
            raise ProviderFailed(str(why), blame="caller") from None
        self._calls.whole()
        return self._chunk(text, "", [])

    def tool_calls(self) -> list[dict[str, Any]]:
        """The whole calls, when the answer has ended."""
        return self._calls.whole()

    def _chunk(self, text: str, thoughts: str, calls: list[dict[str, Any]]) -> ModelChunk | None:
        characters, thought = self._characters + len(text), self._thoughts + len(thoughts)
        if max(characters + self._calls.characters, thought) > ANSWER_MAX_CHARS:
            self._full = self.begun
            raise ProviderFailed(f"its answer has more than {ANSWER_MAX_CHARS} characters")
        self._characters, self._thoughts = characters, thought
        if not (text or thoughts or calls):
            return None
        self._text.append(text)
        self._calling = self._calling or bool(calls)
        if self.spoke:
            self._lengths[-1] += len(text)
            return ModelChunk(text=text, reasoning=thoughts, tool_calls=calls)
        speaker = self._speaker()
        self._speakers.append(speaker)
        self._lengths.append(len(text))
        return ModelChunk(text=text, reasoning=thoughts, tool_calls=calls, speaker=speaker)

    def _speaker(self) -> Speaker:
        assert self._choice is not None  # `begin` comes first
        self.spoke = True
        return Speaker(provider=self._choice.provider.name, model=self.model, note=self._choice.traits.note)


def continued(request: Chat, said: str, words: str) -> Chat:
    """What to ask the next one. `words`: the anchor; empty when it goes on with an unfinished turn by itself."""
    turns = list(request.messages)
    last = turns[-1]
    if last.role == "assistant" and isinstance(last.content, str):  # the caller's own beginning of the answer
        turns[-1] = last.model_copy(update={"content": last.content + said})
    else:
        turns.append(Turn(role="assistant", content=said))
    if words:
        turns.append(Turn(role="user", content=seam.GO_ON.format(anchor=words)))
    update: dict[str, Any] = {"messages": turns}
    if request.max_tokens is not None:
        update["max_tokens"] = max(1, request.max_tokens - (len(said) - len(words)) // TOKEN_CHARS)
    return request.model_copy(update=update)
