"""What can be asked of switch, the router to language models."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from schemas.message import Event, Message, Nothing, Request, Secret, Streamed

Kind = Literal["chat", "platform", "job", "audio"]
"""What a message is about: talk, operating VX11 (madre), a piece of work (hormiguero), audio (shubniggurath)."""


class Turn(Message):
    """One message of a conversation in OpenAI's form. `content`: text, or OpenAI's list of parts."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class Speaker(Message):
    """Who said a part of an answer. `note`: what is to be known of this model, as "offline model, 135M, English"."""

    provider: str
    model: str
    characters: int = 0
    note: str = ""


class ModelChunk(Message):
    """A piece of the answer. `reasoning`: what a reasoning model thinks aloud, not part of the answer.

    `tool_calls`: OpenAI's deltas. `speaker`: set where somebody begins to speak, so also where another goes on.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: list[dict[str, Any]] = []
    speaker: Speaker | None = None


class ModelReply(Message):
    """`usage`: tokens as the provider counted them, None when it did not say. `latency_ms`, `first_ms`: milliseconds.

    `kind` other than `chat`: no model was asked, the message is for somebody else; only when `sort` was asked for.
    """

    volatile: ClassVar = ("latency_ms", "first_ms")

    text: str
    model: str
    provider: str
    finish_reason: str = ""
    latency_ms: float
    first_ms: float | None = None
    """From the request to the first piece."""
    usage: dict[str, int] | None = None
    reason: str = ""
    """Why this model was chosen, and why others were not."""
    tool_calls: list[dict[str, Any]] = []
    """Whole calls, in OpenAI's form."""
    kind: Kind = "chat"
    speakers: list[Speaker] = []
    """Who said what, in order; more than one when an answer was continued by another."""
    note: str = ""


class Chat(Streamed[ModelChunk, ModelReply]):
    """Answer a conversation with a language model. `unavailable` when none is configured or none answers.

    `over_budget` when a budget forbids it.
    """

    subject: ClassVar = "vx11.switch.chat"
    timeout: ClassVar = 60.0
    scope: ClassVar = "chat"

    messages: list[Turn] = Field(min_length=1, max_length=1_000)
    model: str | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1, le=131_072)
    top_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    session_id: str = Field(default="", max_length=64)
    """Whose pinned model is used, and whose budget."""
    holder: str = Field(default="", max_length=128)
    """The token whose budget pays; believed of operator_backend only, else it is the caller."""
    trim: bool = False
    """Leave the oldest turns out when all do not fit into the model's window; without it that is `too_large`."""
    sort: bool = False
    """First find out what the last message is about; only `chat` goes to a model."""


class ProviderStatus(Message):
    """`health` is what was observed at `observed_at`, else unknown. `offered`: found, but not taken into use."""

    volatile: ClassVar = ("observed_at",)

    name: str
    url: str
    models: list[str] = []
    configured: bool
    offered: bool = False
    health: Literal["up", "down", "unknown"] = "unknown"
    observed_at: str | None = None
    circuit: Literal["closed", "open", "half_open"] = "closed"
    reason: str = ""


class ProviderList(Message):
    providers: list[ProviderStatus]


class ListProviders(Request[ProviderList]):
    """Which endpoints are configured, and which were found but wait for a yes."""

    subject: ClassVar = "vx11.switch.list_providers"
    idempotent: ClassVar = True
    scope: ClassVar = "read"


class SetProvider(Request[ProviderStatus]):
    """Describe a provider in `providers.toml` by exactly these lines; comments and all other tables stay.

    `lines`: as in the file, but for its key. `key`: is stored in a file of its own; an empty one takes it away, without one
    the key that is there stays as long as the provider stays at its place. `invalid` says what is wrong with which line.
    """

    subject: ClassVar = "vx11.switch.set_provider"
    idempotent: ClassVar = True
    scope: ClassVar = "admin"

    name: str = Field(min_length=1, max_length=40)
    lines: dict[str, Any] = Field(max_length=50)
    key: Secret | None = Field(default=None, max_length=1_000)


class RemoveProvider(Request[ProviderList]):
    """Take a provider out of `providers.toml`. Answers with those that are left."""

    subject: ClassVar = "vx11.switch.remove_provider"
    idempotent: ClassVar = True
    scope: ClassVar = "admin"

    name: str = Field(min_length=1, max_length=40)


class ModelInfo(Message):
    id: str
    provider: str


class ModelList(Message):
    models: list[ModelInfo]


class ListModels(Request[ModelList]):
    subject: ClassVar = "vx11.switch.list_models"
    idempotent: ClassVar = True
    scope: ClassVar = "read"


class KindScore(Message):
    kind: Kind
    score: float


class Candidate(Message):
    """A model that was weighed. `refused`: why it cannot be asked at all, empty when it can."""

    provider: str
    model: str
    score: float
    why: str = ""
    refused: str = ""


class Routed(Message):
    """`how`: what sorted the message. `cpu_ms`: of the decision, its embedding included."""

    volatile: ClassVar = ("cpu_ms",)

    kind: Kind
    how: Literal["phrase", "embedding", "n-grams"]
    kinds: list[KindScore]
    language: str = ""
    """`en` or `es`; empty when nothing tells."""
    candidates: list[Candidate] = []
    """Best first; whom a chat would ask."""
    cpu_ms: float
    note: str = ""
    """Why it was not the embedding that decided, where it was not."""


class Route(Request[Routed]):
    """Who would be asked with this message, and why. Asks no model."""

    subject: ClassVar = "vx11.switch.route"
    idempotent: ClassVar = True
    scope: ClassVar = "read"

    text: str = Field(min_length=1, max_length=4_000)
    model: str | None = None
    session_id: str = Field(default="", max_length=64)


class Embeddings(Message):
    """One vector of `dimensions` numbers with length 1 for each input."""

    model: str
    provider: str
    vectors: list[list[float]]
    tokens: int


class Embed(Request[Embeddings]):
    """The meaning of texts as vectors. `not_installed` when there is no embedding model."""

    subject: ClassVar = "vx11.switch.embed"
    idempotent: ClassVar = True
    scope: ClassVar = "chat"

    input: list[str] = Field(min_length=1, max_length=256)
    model: str | None = None


class ForgetLearned(Request[Nothing]):
    """Forget what was observed of the models: latencies, successes, circuits, pinned choices. Budgets stay."""

    subject: ClassVar = "vx11.switch.forget_learned"
    idempotent: ClassVar = True
    scope: ClassVar = "admin"


class ModelFailed(Event):
    """A provider did not answer, or was cut off."""

    subject: ClassVar = "vx11.events.switch.model_failed"
    severity: ClassVar = "warning"
    summary: ClassVar = "{provider} failed: {reason}"

    provider: str
    model: str
    reason: str


class ModelAnswered(Event):
    """A model has answered, whole or in part, or broke off and nobody can say how much it did.

    `money`: US dollars. `billed`: tokens that count against the budgets.
    """

    subject: ClassVar = "vx11.events.switch.model_answered"
    summary: ClassVar = "{provider} is paid {billed} tokens of {model}"

    provider: str
    model: str
    holder: str
    session_id: str = ""
    tokens: int | None = None
    """As the provider counted them; None: it did not say, and what was reserved is billed."""
    billed: int
    money: float
