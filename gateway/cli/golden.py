"""`golden`: ask recorded calls again of the code of today, and show which answers are others now."""

from __future__ import annotations

import asyncio
import json as jsonlib
import os
import secrets
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.desk import AsJson, Desk, desk_of, run_async

if TYPE_CHECKING:
    from bus.client import Bus
    from gateway.cli.recording import Recording

CHANGED, COULD_NOT = 1, 2
"""Exit codes."""
CALLS = 100
MADRE = "madre"
VALUE_CHARS = 160
"""A longer value is cut for people; `--json` has it whole."""
SAID_LINES = 5
"""Of what the actor printed before it failed, so many of the last lines are shown."""
TOLD = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONUTF8", "VX11_TEST_RUN", "VX11_NATS_SERVER", "VX11_REDIS_SERVER")
"""The variables of the environment that the sandbox gets."""

Document = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    actor: str
    since: str
    correlation_id: str
    limit: int


def golden(
    ctx: typer.Context,
    actor: Annotated[str, typer.Argument(help="Whose calls: for instance greeter.", metavar="ACTOR")],
    since: Annotated[str, typer.Option(help="Calls of the last 30m, 2h, 1d, or since a moment (RFC 3339).", metavar="TIME")] = "",
    correlation: Annotated[str, typer.Option(help="Calls of this conversation only.", metavar="ID")] = "",
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1, max=10_000)] = CALLS,
    json: AsJson = False,
) -> None:
    """Ask an actor's recorded calls again of its code of now, in a sandbox: which answers have changed?

    Exit codes: 0 none, 1 some, 2 it could not be tried.
    """
    from schemas.errors import Failure

    desk = desk_of(ctx, json=json)
    try:
        desk.need_this_machine("golden reads the records of this machine")
        if actor == MADRE:
            told = "madre cannot be asked again: her answers are about the moment"
            raise Failure("invalid", told, next=[["vx11 golden ACTOR", "any other"]])
        document = run_async(_whole(desk, Wanted(actor, _moment(since), correlation, limit)))
    except Failure as failure:
        desk.screen.failure(failure, actor=actor)
        raise typer.Exit(COULD_NOT) from failure
    desk.screen.data(document, lambda: _draw(desk, document))
    if document["changed"]:
        raise typer.Exit(CHANGED)


def _moment(since: str) -> str:
    """RFC 3339; empty for no bound. Raises typer.BadParameter."""
    from bus.moment import rfc3339
    from gateway.cli.amount import seconds

    if not since:
        return ""
    try:
        return rfc3339(time.time() - seconds(since))
    except ValueError as error:
        try:
            return rfc3339(datetime.fromisoformat(since).timestamp())
        except ValueError:
            raise typer.BadParameter(f"{error}; or a moment: 2026-01-31T09:00:00Z", param_hint="--since") from error


async def _whole(desk: Desk, wanted: Wanted) -> Document:
    """Read the records, try them in a process of their own, tell the sandbox's subjects what was published there."""
    from gateway.cli.bus_remote import connected
    from gateway.cli.home import running
    from gateway.cli.recording import recording_of

    async with connected(running(desk.settings), desk.settings) as bus:
        recording = await recording_of(
            bus, wanted.actor, since=wanted.since, correlation_id=wanted.correlation_id, limit=wanted.limit
        )
        if not recording.calls:
            raise _nothing(wanted, recording)
        results = await _tried(desk, wanted.actor, recording.calls)
        document = _document(wanted.actor, recording, results)
        _publish(bus, document)
        await bus.wire.barrier()
        return document


def _nothing(wanted: Wanted, recording: Recording) -> Exception:
    from gateway.cli.recording import WITHOUT_BODY
    from schemas.errors import Failure

    reasons = [f"{count} {'call' if count == 1 else 'calls'}: {why}" for why, count in recording.left_out.items()]
    switch_on = [
        [f"VX11_RECORD_{wanted.actor.upper().replace('-', '_')}=full vx11 up", "records the bodies from then on"],
        [f'Actor("{wanted.actor}", ..., record="full")', "the same, in its source"],
    ]
    if not wanted.since and not wanted.correlation_id and not reasons:
        switch_on.insert(0, ["vx11 status", "which actors there are"])
    others = [[f"vx11 golden {wanted.actor}", "all that is recorded"]]
    return Failure(
        "not_found",
        f"there is no recorded call of {wanted.actor} that could be asked again",
        why="; ".join(reasons) or "no call of it is in the records, which are kept for a day",
        next=switch_on if WITHOUT_BODY in recording.left_out or not reasons else others,
    )


async def _tried(desk: Desk, actor: str, calls: list[Document]) -> list[Document]:
    """One result for each call. Raises Failure when the actor cannot be had in a sandbox."""
    from bus.loading import TREE
    from bus.redaction import names_a_secret
    from schemas.errors import Failure

    variables = {name: text for name, text in desk.settings.variables.items() if not names_a_secret(name)}
    with TemporaryDirectory(prefix="vx11-golden-") as folder:
        job = {"actor": actor, "home": str(desk.settings.home), "folder": folder, "parent": os.getpid(), "calls": calls}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bus.golden",
            cwd=TREE,
            env={name: os.environ[name] for name in TOLD if name in os.environ},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, said = await process.communicate(jsonlib.dumps(job | {"variables": variables}).encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    try:
        outcome: Document = jsonlib.loads(out)
    except ValueError:  # it ended in the middle, or an exit handler printed
        outcome = {"error": f"its process ended with {process.returncode}"}
    if "error" in outcome:
        lines = said.decode(errors="replace").strip().splitlines()[-SAID_LINES:]
        raise Failure(
            "internal",
            f"{actor} cannot be tried in a sandbox: {outcome['error']}",
            why="; ".join(outcome.get("refused") or lines),
            next=[[f"vx11 call {actor}.describe", "whether it can be loaded at all"]],
        )
    return list(outcome["results"])


def _document(actor: str, recording: Recording, results: list[Document]) -> Document:
    told = [
        {
            **{key: call[key] for key in ("sequence", "verb", "correlation_id", "received_at", "request")},
            "was": {"code": call["code"], "reply": call["reply"]},
            **result,
        }
        for call, result in zip(recording.calls, results, strict=True)
    ]
    return {
        "actor": actor,
        "sandbox": f"vx11.sandbox.golden-{secrets.token_hex(4)}",
        "calls": told,
        "same": sum(not one["changes"] for one in told),
        "changed": sum(bool(one["changes"]) for one in told),
        "left_out": dict(recording.left_out),
    }


def _publish(bus: Bus, document: Document) -> None:
    """What the actor has published goes where nobody acts on it, for whoever wants to see it."""
    for one in document["calls"]:
        for event in one["events"]:
            bus.wire.send(f"{document['sandbox']}.{event['subject']}", event["body"].encode())


def _draw(desk: Desk, document: Document) -> None:
    line = desk.screen.line
    for one in document["calls"]:
        if one["changes"]:
            line(f"{one['verb']}  #{one['sequence']}  {one['received_at']}  {one['correlation_id']}")
            line(f"  asked  {_short(one['request'])}")
            for change in one["changes"]:
                line(f"  {change['field'] or 'answer'}")
                line(f"    - {_short(change['was'])}" if "was" in change else "    - (was not there)")
                line(f"    + {_short(change['is'])}" if "is" in change else "    + (is gone)")
            for reason in _reasons(one):
                line(f"  {reason}")
    calls = len(document["calls"])
    changed = f"{document['changed']} answered differently" if document["changed"] else "no difference"
    line(f"{document['actor']}: {calls} {'call' if calls == 1 else 'calls'} asked again, {changed}")
    for why, count in document["left_out"].items():
        desk.screen.talk(f"left out: {count} {'call' if count == 1 else 'calls'}: {why}")
    desk.screen.talk(_sandboxed(document))
    desk.screen.talk("not recorded, so as it is now: files that it reads, what it remembers of earlier calls, the clock")


def _reasons(one: Document) -> list[str]:
    """What may be the reason, other than the code."""
    unknown = sorted({asked["subject"] for asked in one["asked"] if not asked["recorded"]})
    found = [f"it asked {subject} for what is not in the recording, and got `unavailable`" for subject in unknown]
    return found + [f"refused in the sandbox: {tried}" for tried in dict.fromkeys(one["refused"])]


def _sandboxed(document: Document) -> str:
    calls = document["calls"]
    asked = [asked for one in calls for asked in one["asked"]]
    known, events = sum(one["recorded"] for one in asked), sum(len(one["events"]) for one in calls)
    refused = sum(len(one["refused"]) for one in calls)
    parts = [f"sandbox: {known} of {len(asked)} requests to other actors answered from the recording"] if asked else ["sandbox:"]
    parts.append(f"{events} events to {document['sandbox']}.>" if events else "no events")
    parts.append(f"{refused} tries to reach other hosts, processes or files refused")
    return ", ".join(parts).replace("sandbox:, ", "sandbox: ")


def _short(value: Any) -> str:
    text = jsonlib.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_CHARS else f"{text[:VALUE_CHARS]}… ({len(text)} characters)"
