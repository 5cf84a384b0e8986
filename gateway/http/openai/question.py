"""What OpenAI's clients ask, as what switch is asked: what we do not know is let by, what would be wrong in silence is not."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.http.body import message_of
from schemas import switch
from schemas.errors import Failure

AUTO = "auto"
"""The model that is no model: switch chooses."""
MODEL_MAX_CHARS = 200
TEXTS_MOST = 256
ONLY_HERE = {
    "n": "one answer is made for a request; ask again for another one",
    "logprobs": "probabilities of tokens are not told by every model that may answer here",
    "top_logprobs": "probabilities of tokens are not told by every model that may answer here",
    "logit_bias": "not every model that may answer here can be biased",
    "audio": "answers are text",
    "modalities": 'answers are text: leave it out, or send ["text"]',
    "functions": "send tools instead",
    "function_call": "send tool_choice instead",
    "web_search_options": "no model here searches the web",
    "input": f"send a text or 1 to {TEXTS_MOST} texts; tokens of another model's alphabet mean nothing here",
    "dimensions": "it must be a number of at least 1",
    "encoding_format": "it is float or base64",
}
"""What is said when a field has a value that cannot be honoured."""

B = TypeVar("B", bound=BaseModel)


def _whole(value: object) -> object:
    """1.0 is an integer in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Int = Annotated[int, BeforeValidator(_whole)]
Tokens = Annotated[int, Field(ge=1, le=131_072), BeforeValidator(_whole)]


class Tolerant(BaseModel):
    """Clients send many fields; those that are not named here change nothing in an answer, or little."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class TurnBody(Tolerant):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class StreamOptions(Tolerant):
    include_usage: bool | None = None


class ChatBody(Tolerant):
    """`model`: `auto`, a provider, `provider/model`, or a model's own name."""

    messages: list[TurnBody] = Field(min_length=1, max_length=1_000)
    model: str = Field(default=AUTO, min_length=1, max_length=MODEL_MAX_CHARS)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    top_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: Int | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    n: Annotated[Literal[1], BeforeValidator(_whole)] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Annotated[Literal[0], BeforeValidator(_whole)] | None = None
    logit_bias: dict[str, float] | None = Field(default=None, max_length=0)
    modalities: list[Literal["text"]] | None = None
    audio: None = None
    functions: None = None
    function_call: None = None
    web_search_options: None = None

    def question(self) -> switch.Chat:
        """Never sorted and never trimmed: a program gets the answer to what it sent."""
        same = self.model_dump(include=SAME, exclude_none=True)
        return switch.Chat(
            **same,
            messages=[switch.Turn(**turn.model_dump()) for turn in self.messages],
            max_tokens=self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens,
        )


SAME = (ChatBody.model_fields.keys() & switch.Chat.model_fields.keys()) - {"messages", "max_tokens"}
"""What goes to switch as it came."""


class EmbeddingsBody(Tolerant):
    """`input`: texts; a list of tokens is none. `dimensions`: must be what the model has."""

    input: str | Annotated[list[str], Field(min_length=1, max_length=TEXTS_MOST)]
    model: str = Field(default=AUTO, min_length=1, max_length=MODEL_MAX_CHARS)
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1), BeforeValidator(_whole)] | None = None


def asked(kind: type[B], body: bytes) -> B:
    """The body. Raises Failure("invalid") that says what to do."""
    try:
        return message_of(kind, body)
    except Failure as failure:
        field = str(failure.details.get("field", ""))
        if (told := ONLY_HERE.get(field.partition(".")[0])) is None:
            raise
        raise Failure("invalid", f"{field.partition('.')[0]}: {told}", field=field.partition(".")[0]) from None
