"""The streams, buckets and durable consumers of VX11: their settings, made so and kept so without losing a message.

Everything here is idempotent and never deletes: what is missing is created, what differs is updated in place.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from bus.dead import filters
from schemas.errors import Failure

EVENTS = "VX11_EVENTS"
CALLS = "VX11_CALLS"
JOBS = "VX11_JOBS"
DLQ = "VX11_DLQ"
ACTORS = "VX11_ACTORS"
LEASES = "VX11_LEASES"
USAGE = "VX11_USAGE"

MIB = 1024 * 1024
NS = 1_000_000_000
"""Nanoseconds in a second: JetStream's unit of time."""
EVENTS_BYTES = 1024 * MIB
CALLS_BYTES = 256 * MIB
JOBS_BYTES = 256 * MIB
DLQ_BYTES = 256 * MIB
BUCKET_BYTES = 64 * MIB
CALLS_AGE_S = 24 * 3600
USAGE_AGE_S = 400 * 24 * 3600
"""A day's usage is kept this long."""
DUPLICATES_S = 120
"""A message id is remembered this long: what is tried again later than that is looked for first (`bus.recall`)."""
HEADER_ROOM_BYTES = 16 * 1024
"""Left below max_payload on what may become a dead letter: its headers grow by the reason and the history, and the
server cuts the connection of whoever sends more than max_payload."""
ACTORS_HISTORY = 8
MARKER_S = 60
"""A lease that ran out leaves a marker this long, so that those who watch the bucket hear of it."""
ACK_WAIT_S = 5.0
"""Short, because a message in hand is kept by heartbeats: what a killed instance had comes back this soon."""
MAX_ACK_PENDING = 1_000
"""Messages that wait for their next try count, too: a low bound would let a few poisoned ones stop the rest."""
API_S = 5.0

NO_CONSUMER = 10_014
NAME_IN_USE = 10_058
NO_STREAM = 10_059
CONSUMER_EXISTS = 10_148

Config = dict[str, Any]


class Api(Protocol):
    """One request to `$JS.API`: `Bus.api`, or the same on another connection. May raise Failure or return the error."""

    def __call__(self, subject: str, body: bytes, *, timeout: float) -> Awaitable[dict[str, Any]]: ...


@dataclass(frozen=True)
class Outcome:
    """What was done to one stream or consumer."""

    name: str
    did: Literal["created", "updated", "kept"]
    changed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Setting to (what it was, what it is now)."""
    unchangeable: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Setting to (what it is, what it should be): the server cannot change it in place and it is worth no loss."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """The server's description after that."""


class Backlog(NamedTuple):
    """What a consumer still has to do."""

    num_pending: int
    """Messages that nobody has been given."""
    num_ack_pending: int
    """Messages that somebody was given and has not settled, or that wait for their next try."""


def stream_configs(max_payload: int, *, events_bytes: int = EVENTS_BYTES) -> list[Config]:
    """All streams and buckets. `max_payload`: the server's, in bytes."""
    small = max_payload - HEADER_ROOM_BYTES
    return [
        _stream(EVENTS, "vx11.events.>", max_bytes=events_bytes, max_msg_size=small, allow_atomic=True),
        _stream(CALLS, "vx11.calls.>", max_bytes=CALLS_BYTES, discard="old", max_age=CALLS_AGE_S * NS, persist_mode="async"),
        _stream(JOBS, "vx11.jobs.>", max_bytes=JOBS_BYTES, max_msg_size=small, retention="workqueue"),
        _stream(DLQ, "vx11.dlq.>", max_bytes=DLQ_BYTES),
        bucket_config(ACTORS, history=ACTORS_HISTORY),
        bucket_config(LEASES, allow_msg_ttl=True, subject_delete_marker_ttl=MARKER_S * NS),
        bucket_config(USAGE, max_age=USAGE_AGE_S * NS),
    ]


def bucket_config(bucket: str, *, history: int = 1, **more: Any) -> Config:
    """A key-value bucket as ADR-8 has it, so that every NATS client's key-value functions accept it."""
    return _stream(
        f"KV_{bucket}",
        f"$KV.{bucket}.>",
        max_bytes=BUCKET_BYTES,
        max_msgs_per_subject=history,
        allow_rollup_hdrs=True,
        deny_delete=True,
        **more,
    )


def _stream(name: str, subject: str, **more: Any) -> Config:
    """Every limit is named, also the absent ones: what is not named here a stranger could set."""
    return {
        "name": name,
        "subjects": [subject],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_age": 0,
        "max_consumers": -1,
        "max_msg_size": -1,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "discard_new_per_subject": False,
        "duplicate_window": DUPLICATES_S * NS,
        "num_replicas": 1,
        "allow_direct": True,
        "allow_rollup_hdrs": False,
        "deny_delete": False,
        "deny_purge": False,
        "no_ack": False,
        "sealed": False,
        "consumer_limits": None,
        "mirror": None,
        "republish": None,
        "sources": None,
        "subject_transform": None,
    } | more


async def ensure_streams(api: Api, configs: Iterable[Config]) -> list[Outcome]:
    """Raises Failure("storage_full") when the disk or the server's limit has no room, else Failure("unavailable")."""
    return [await ensure_stream(api, config) for config in configs]


async def ensure_stream(api: Api, wanted: Config) -> Outcome:
    """Create the stream or bring its settings back to `wanted`; its messages are not touched."""
    name = str(wanted["name"])
    existing = await _config(api, f"$JS.API.STREAM.INFO.{name}", NO_STREAM)
    if existing is None:
        try:
            made = await _call(api, f"$JS.API.STREAM.CREATE.{name}", _named(wanted))
        except Failure as failure:
            if failure.details.get("err_code") != NAME_IN_USE:
                raise
            existing = await _config(api, f"$JS.API.STREAM.INFO.{name}", NO_STREAM)  # somebody was faster
        else:
            return Outcome(name, "created", info=made)
    differs = _difference(existing or {}, wanted)
    fixed = {k: differs.pop(k) for k in ("persist_mode",) if k in differs}
    if not differs:
        return Outcome(name, "kept", unchangeable=fixed)
    config = _named((existing or {}) | wanted | {k: was for k, (was, _) in fixed.items()})
    return Outcome(name, "updated", differs, fixed, await _call(api, f"$JS.API.STREAM.UPDATE.{name}", config))


def consumer_config(name: str, subjects: Iterable[str], *, ack_wait_s: float = ACK_WAIT_S, start: int = 0) -> Config:
    """A durable pull consumer. `start`: the first sequence it gets; 0: what is published from now on; 1: everything."""
    deliver: Config = {"deliver_policy": "by_start_sequence", "opt_start_seq": start}
    if start < 2:
        deliver = {"deliver_policy": ("new", "all")[start]}
    return {
        "name": name,
        "durable_name": name,
        "filter_subject": None,
        "filter_subjects": sorted(subjects),
        "ack_policy": "explicit",
        "ack_wait": int(ack_wait_s * NS),
        "backoff": None,
        "deliver_subject": None,
        "headers_only": False,
        "inactive_threshold": 0,
        "max_ack_pending": MAX_ACK_PENDING,
        "max_batch": 0,
        "max_deliver": -1,  # with a bound, what reaches it is neither delivered again nor ever seen by us
        "max_expires": 0,
        "replay_policy": "instant",
    } | deliver


async def ensure_consumer(
    api: Api, stream: str, name: str, subjects: Iterable[str], *, ack_wait_s: float = ACK_WAIT_S, start: int = 0
) -> Outcome:
    """Create the consumer, or update it when its filters or settings differ; where it stands in the stream stays.

    It hears `subjects`, and the dead letters that are given back to it.
    `start` counts only when it is created, and not for jobs: their stream keeps what is not settled, and the server lets
    nobody begin in the middle. Raises Failure("not_found") without the stream.
    """
    start = 1 if stream == JOBS else start
    wanted = consumer_config(name, filters(stream, name, subjects), ack_wait_s=ack_wait_s, start=start)
    info = await consumer_info(api, stream, name)
    if info is None:
        try:
            made = await _create_consumer(api, stream, wanted, "create")
        except Failure as failure:
            if failure.details.get("err_code") != CONSUMER_EXISTS:
                raise
            info = await consumer_info(api, stream, name)  # somebody was faster
        else:
            return Outcome(name, "created", info=made)
    existing = (info or {}).get("config", {})
    place = {k: existing.get(k) for k in ("deliver_policy", "opt_start_seq", "opt_start_time")}
    differs = _difference(existing, wanted | place)
    if not differs:
        return Outcome(name, "kept", info=info or {})
    updated = await _create_consumer(api, stream, existing | wanted | place, "update")
    return Outcome(name, "updated", differs, info=updated)


async def stream_info(api: Api, stream: str) -> dict[str, Any]:
    """The server's description of the stream. Raises Failure("not_found")."""
    return await _call(api, f"$JS.API.STREAM.INFO.{stream}", None)


async def consumer_info(api: Api, stream: str, name: str) -> dict[str, Any] | None:
    """The server's description of the consumer; None when there is no such consumer."""
    return await _info(api, f"$JS.API.CONSUMER.INFO.{stream}.{name}", NO_CONSUMER)


async def backlog(api: Api, stream: str, name: str) -> Backlog:
    """What waits now; what was published a moment ago may not be counted yet.

    Raises Failure("not_found") when there is no such consumer.
    """
    info = await _call(api, f"$JS.API.CONSUMER.INFO.{stream}.{name}", None)
    return Backlog(int(info["num_pending"]), int(info["num_ack_pending"]))


async def backlogs(api: Api, stream: str) -> dict[str, Backlog]:
    """What waits now for each consumer of the stream, by name; the server tells of 256 at a time."""
    found: dict[str, Backlog] = {}
    offset = 0
    while True:
        page = await _call(api, f"$JS.API.CONSUMER.LIST.{stream}", {"offset": offset})
        consumers = page.get("consumers") or ()
        offset += len(consumers)  # not of `found`: one that was made meanwhile moves others to the next page, too
        found |= {one["name"]: Backlog(int(one["num_pending"]), int(one["num_ack_pending"])) for one in consumers}
        if not consumers or offset >= int(page["total"]):
            return found


async def pending(api: Api, stream: str, name: str) -> int:
    """`num_pending` + `num_ack_pending`: everything that the consumer's owner must be awake for."""
    return sum(await backlog(api, stream, name))


async def _create_consumer(api: Api, stream: str, config: Config, action: str) -> dict[str, Any]:
    body = {"stream_name": stream, "config": _named(config), "action": action}
    return await _call(api, f"$JS.API.CONSUMER.CREATE.{stream}.{config['name']}", body)


async def _config(api: Api, subject: str, missing: int) -> Config | None:
    info = await _info(api, subject, missing)
    return None if info is None else dict(info["config"])


async def _info(api: Api, subject: str, missing: int) -> dict[str, Any] | None:
    try:
        return await _call(api, subject, None)
    except Failure as failure:
        if failure.details.get("err_code") == missing:
            return None
        raise


async def _call(api: Api, subject: str, body: Config | None) -> dict[str, Any]:
    document = await api(subject, b"" if body is None else json.dumps(body).encode(), timeout=API_S)
    if error := document.get("error"):
        raise jetstream_failure(error)
    return document


def jetstream_failure(error: Mapping[str, Any]) -> Failure:
    """JetStream's error as one of ours."""
    code, text = int(error.get("err_code", 0)), str(error.get("description", "JetStream error"))
    if code in (10071, 10164):
        return Failure("conflict", text, err_code=code)
    if int(error.get("code", 0)) == 404:
        return Failure("not_found", text, err_code=code)
    if code == 10054:
        return Failure("too_large", text, err_code=code)
    full = code in (10023, 10047, 10077) or "maximum" in text or "insufficient" in text or "no space" in text
    return Failure("storage_full" if full else "unavailable", text, err_code=code)


def _difference(existing: Config, wanted: Config) -> dict[str, tuple[Any, Any]]:
    return {k: (existing.get(k), v) for k, v in wanted.items() if _plain(existing.get(k)) != _plain(v)}


def _plain(value: Any) -> Any:
    """The server leaves out what is false, zero or empty, and keeps filters in the order in which they came."""
    return (sorted(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value) or None


def _named(config: Config) -> Config:
    """Without what is absent, and without the server's own notes."""
    made = {k: v for k, v in config.items() if v is not None}
    if notes := made.get("metadata"):
        made["metadata"] = {k: v for k, v in notes.items() if not k.startswith("_nats.")}
    return made
