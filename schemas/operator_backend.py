"""What a human operator may ask: chat and its sessions."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from schemas.message import Message, Nothing, Request, Streamed
from schemas.switch import Speaker

MESSAGE_MAX_CHARS = 4_000
MODEL_MAX_CHARS = 256
OFFSET_MAX = 1_000_000
"""No list is that long, and every store can count to it."""


class ChatChunk(Message):
    """A piece of the answer's text. `restart`: what was said so far was cut off and is replaced from here.

    `speaker`: set where somebody begins to speak, so also where another goes on in the middle of an answer.
    """

    text: str
    restart: bool = False
    speaker: Speaker | None = None


class ChatReply(Message):
    """`reason`: why it was this one who answered. `note`: what is to be known of the answer, as "offline model, 135M, English".

    `degraded`: switch did not answer; `fallback_source` says who did, `fallback_code` with which error code switch failed.
    `pending`: madre asks for a yes, and hears the next message of this session first. `latency_ms`: milliseconds.
    """

    volatile: ClassVar = ("latency_ms", "session_id", "message_id")

    response: str
    model_used: str
    model: str
    provider: str
    latency_ms: float
    correlation_id: str
    session_id: str
    message_id: str
    status: Literal["ok", "degraded"]
    degraded: bool
    fallback_source: str | None = None
    fallback_code: str | None = None
    reason: str | None = None
    note: str = ""
    speakers: list[Speaker] = []
    """Who said what, in order; more than one when an answer was continued by another."""
    pending: bool = False
    history: Literal["stored", "unavailable"] = "stored"


class Chat(Streamed[ChatChunk, ChatReply]):
    """Answer a message in a session: switch first, madre when it is about operating VX11 or when switch cannot.

    `model`: which one is wished for; `invalid` when nobody has it. Without it switch chooses.
    """

    subject: ClassVar = "vx11.operator_backend.chat"
    timeout: ClassVar = 60.0
    scope: ClassVar = "chat"

    message: str = Field(min_length=1, max_length=MESSAGE_MAX_CHARS)
    session_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    model: str | None = Field(default=None, min_length=1, max_length=MODEL_MAX_CHARS)
    user_id: str | None = Field(default=None, max_length=128)
    metadata: dict[str, Any] = {}
    context: dict[str, Any] = {}


class SessionLine(Message):
    """`speakers`, `reason`, `note`, `pending`: of an answer, as in its ChatReply."""

    volatile: ClassVar = ("message_id", "at")

    message_id: str
    role: Literal["user", "assistant"]
    text: str
    at: str
    provider: str = ""
    model: str = ""
    speakers: list[Speaker] = []
    reason: str = ""
    note: str = ""
    pending: bool = False


class SessionSummary(Message):
    volatile: ClassVar = ("updated_at",)

    session_id: str
    title: str
    messages: int
    updated_at: str


class Session(Message):
    session_id: str
    title: str
    lines: list[SessionLine]


class SessionList(Message):
    sessions: list[SessionSummary]
    total: int


class ListSessions(Request[SessionList]):
    subject: ClassVar = "vx11.operator_backend.list_sessions"
    idempotent: ClassVar = True
    scope: ClassVar = "chat"

    limit: int = Field(default=50, ge=1, le=500)
    offset: int = Field(default=0, ge=0, le=OFFSET_MAX)


class GetSession(Request[Session]):
    subject: ClassVar = "vx11.operator_backend.get_session"
    idempotent: ClassVar = True
    scope: ClassVar = "chat"

    session_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")


class RenameSession(Request[SessionSummary]):
    subject: ClassVar = "vx11.operator_backend.rename_session"
    idempotent: ClassVar = True
    scope: ClassVar = "chat"

    session_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    title: str = Field(min_length=1, max_length=200)


class DeleteSession(Request[Nothing]):
    subject: ClassVar = "vx11.operator_backend.delete_session"
    idempotent: ClassVar = True
    scope: ClassVar = "chat"

    session_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
