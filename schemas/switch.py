"""What can be asked of switch, the router to language models."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from schemas.message import Event, Message, Request, Streamed


class Turn(Message):
    role: Literal["system", "user", "assistant"]
    content: str


class ModelChunk(Message):
    """A piece of the answer. `reasoning`: what a reasoning model thinks aloud, not part of the answer."""

    text: str = ""
    reasoning: str = ""


class ModelReply(Message):
    """`usage`: tokens as the provider counted them, None when it did not say. `latency_ms`: milliseconds."""

    volatile: ClassVar = ("latency_ms",)

    text: str
    model: str
    provider: str
    finish_reason: str = ""
    latency_ms: float
    usage: dict[str, int] | None = None
    reason: str = ""
    """Why this model was chosen."""


class Chat(Streamed[ModelChunk, ModelReply]):
    """Answer a conversation with a language model. `unavailable` when none is configured or none answers."""

    subject: ClassVar = "vx11.switch.chat"
    timeout: ClassVar = 60.0
    scope: ClassVar = "chat"

    messages: list[Turn] = Field(min_length=1, max_length=200)
    model: str | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1, le=32_768)


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


class ModelInfo(Message):
    id: str
    provider: str


class ModelList(Message):
    models: list[ModelInfo]


class ListModels(Request[ModelList]):
    subject: ClassVar = "vx11.switch.list_models"
    idempotent: ClassVar = True
    scope: ClassVar = "read"


class ModelFailed(Event):
    """A provider did not answer, or was cut off."""

    subject: ClassVar = "vx11.events.switch.model_failed"
    severity: ClassVar = "warning"
    summary: ClassVar = "{provider} failed: {reason}"

    provider: str
    model: str
    reason: str
