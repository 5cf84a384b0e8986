"""Replaying: what was stored is played again, at its own pace or another, into a sandbox or to where it once went."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from schemas.message import Message, Request, Streamed

SPEED_LEAST = 0.1
SPEED_MOST = 1000.0
SEQUENCE_MOST = 2**63 - 1
FILTERS_MOST = 32
LASTS_S = 7 * 86_400.0
"""A replay may go on for so long while somebody listens to its progress; on its own it has no bound."""

Speed = Annotated[float, Field(ge=SPEED_LEAST, le=SPEED_MOST)]
Pace = Speed | Literal["max", "step"]
"""So many times as fast as it was recorded; as fast as it goes; or one at a time, each when it is asked for."""
Sequence = Annotated[int, Field(ge=0, le=SEQUENCE_MOST)]
Subject = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\s.]+(\.[^\s.]+)*$")]
ReplayId = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,32}$")]
State = Literal["reading", "playing", "paused", "waiting", "done", "stopped", "failed"]
"""`waiting`: for the server, which was lost."""
ENDED: tuple[State, ...] = ("done", "stopped", "failed")


class Gap(Message):
    """Sequences, both included, that were wanted but are not in the log any more."""

    first: int
    last: int


class ReplayStatus(Message):
    """How far a replay is, and at its end what it was. Times in seconds unless their name says otherwise."""

    id: str
    state: State
    target: str
    """What stands before each subject, `live`, or empty when nothing is sent."""
    pace: Pace
    first: int = 0
    last: int = 0
    """The sequences between which it looks; fixed when it begins."""
    position: int = 0
    """Everything up to this sequence has been sent or passed over."""
    position_at: str = ""
    """When the event there was stored."""
    events: int = 0
    bytes: int = 0
    """Of the bodies that were sent."""
    skipped: dict[str, int] = {}
    """Reason to number: events that were selected and not sent."""
    missing: int = 0
    """Sequences that were wanted but are not in the log any more, `gaps` says which (the first thousand ranges)."""
    gaps: list[Gap] = []
    breaks: int = 0
    """How often the connection was lost on the way."""
    repeated: int = 0
    """Events sent a second time, because nobody knew whether they had arrived before a break. They are no part of `events`."""
    recorded_s: float = 0.0
    """From the first event that was sent to the last one, as they were stored."""
    wanted_s: float = 0.0
    """The same at the paces that were asked for."""
    took_s: float = 0.0
    """What it took, pauses left out."""
    error_p50_ms: float = 0.0
    error_p99_ms: float = 0.0
    """How much later than wanted events were sent; of paced ones only."""
    told: list[str] = []
    """What one should know about it."""
    error: str = ""


class ReplayProgress(ReplayStatus):
    """How far it is, while it goes on."""


class StartReplay(Streamed[ReplayProgress, ReplayStatus]):
    """Play stored events again. All that is said of which ones must hold. Streams its progress; the reply is the summary.

    `live`: to the subjects where they once went, not into the sandbox; whoever acts on them acts again.
    `detach`: the reply comes at once; see `list_replays`. `dry_run`: nothing is sent, only counted.
    """

    subject: ClassVar = "vx11.keeper.replay"
    timeout: ClassVar = LASTS_S

    id: ReplayId | Literal[""] = ""
    """A part of the subjects; made up when it is empty."""
    first: Sequence = 0
    last: Sequence = 0
    """Sequences, both included; 0: from the beginning, up to what is stored when it begins."""
    since: str = ""
    until: str = ""
    """RFC 3339 with an offset: stored at `since` or later, before `until`."""
    filters: list[Subject] = Field(default=[], max_length=FILTERS_MOST)
    """Subjects of which one must fit; `*` stands for a token, `>` at the end for all further ones."""
    actor: str = Field(default="", pattern="^[A-Za-z0-9_-]{0,64}$")
    correlation_id: str = Field(default="", pattern="^[A-Za-z0-9_-]{0,64}$")
    pace: Pace = 1.0
    live: bool = False
    detach: bool = False
    dry_run: bool = False

    @field_validator("since", "until")
    @classmethod
    def _is_moment(cls, text: str) -> str:
        if not text:
            return text
        try:
            moment = datetime.fromisoformat(text)
            universal = moment.astimezone(UTC)
        except (ValueError, OverflowError):
            raise ValueError(f"{text!r} is no moment; write for instance 2026-01-31T08:00:00Z") from None
        if moment.tzinfo is None:
            raise ValueError(f"{text!r} does not say where; write for instance {text}Z for UTC")
        return universal.isoformat().replace("+00:00", "Z")

    @field_validator("filters")
    @classmethod
    def _are_patterns(cls, filters: list[str]) -> list[str]:
        for text in filters:
            tokens = text.split(".")
            if ">" in tokens[:-1] or any(len(token) > 1 and set("*>") & set(token) for token in tokens):
                raise ValueError(f"{text!r} is no subject: * stands for one whole token, > for all at the end")
        return filters

    @model_validator(mode="after")
    def _is_some_range(self) -> Self:
        if self.last and self.first > self.last:
            raise ValueError(f"the first sequence, {self.first}, is above the last one, {self.last}")
        if self.since and self.until and datetime.fromisoformat(self.since) >= datetime.fromisoformat(self.until):
            raise ValueError(f"nothing was stored from {self.since} until {self.until}: that is no time at all")
        return self


class ReplayList(Message):
    """Newest first; those that have ended are remembered for a while."""

    replays: list[ReplayStatus]


class ListReplays(Request[ReplayList]):
    """What is being replayed, and what was; with `id` that one only (`not_found` when it is unknown)."""

    subject: ClassVar = "vx11.keeper.list_replays"
    idempotent: ClassVar = True
    passive: ClassVar = True

    id: str = ""


class PauseReplay(Request[ReplayStatus]):
    """Stop the clock of a replay until it is resumed."""

    subject: ClassVar = "vx11.keeper.pause_replay"
    idempotent: ClassVar = True

    id: ReplayId


class ResumeReplay(Request[ReplayStatus]):
    """Go on after a pause; with `pace` at another one from here."""

    subject: ClassVar = "vx11.keeper.resume_replay"
    idempotent: ClassVar = True

    id: ReplayId
    pace: Pace | None = None


class StepReplay(Request[ReplayStatus]):
    """Send the next events of a replay that is paused or that steps."""

    subject: ClassVar = "vx11.keeper.step_replay"

    id: ReplayId
    count: int = Field(default=1, ge=1, le=100_000)


class StopReplay(Request[ReplayStatus]):
    """End a replay here; the reply is its summary."""

    subject: ClassVar = "vx11.keeper.stop_replay"
    idempotent: ClassVar = True

    id: ReplayId
