"""`why`: the last changes of an actor and what caused each of them, from the event log. A look wakes nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.desk import AsJson, Desk, desk_of

if TYPE_CHECKING:
    from gateway.cli.remote import Remote
    from schemas.madre import Explanation, Step

STEPS = 20
SILENT = "madre does not answer; this is what the event log says"
STATE_OF = {"crashed": "failed", "denied": "failed"}
"""The state whose glyph stands before what is no state itself."""


def why(
    ctx: typer.Context,
    actor: Annotated[str, typer.Argument(help="The actor.", metavar="ACTOR")],
    last: Annotated[int, typer.Option("--last", "-n", min=1, max=200, help="How many of its last changes.")] = STEPS,
    json: AsJson = False,
) -> None:
    """Show why an actor is awake or asleep: each change, its cause, who asked, and how long it took."""
    desk = desk_of(ctx, json=json)
    told = desk.run(lambda remote: _explained(remote, actor, last))
    desk.screen.data(told.model_dump(mode="json"), lambda: _draw(desk, told))


async def _explained(remote: Remote, actor: str, limit: int) -> Explanation:
    """By madre, or without her from the log itself, which she reads, too."""
    from gateway.cli.bus_remote import BusRemote
    from gateway.cli.remote import request
    from schemas.errors import Failure
    from schemas.madre import Explain

    try:
        return await request(remote, Explain(name=actor, limit=limit))
    except Failure as failure:
        if failure.code not in ("unavailable", "timeout") or not isinstance(remote, BusRemote):
            raise
        found = await _from_log(remote, actor, limit)
        if not found.steps:
            raise
        return found


async def _from_log(remote: Remote, actor: str, limit: int) -> Explanation:
    from bus.records import Records
    from bus.why import steps_of
    from schemas.madre import Explanation

    bus = remote.bus  # type: ignore[attr-defined]  # a BusRemote: see above
    record, _ = await Records(bus).get(actor)
    state = record.state if record else "dormant"
    reason = f": {record.reason}" if record and record.reason else ""
    sentence = f"{SILENT}. Her last record says that {actor} is {state}{reason}."
    return Explanation(actor=actor, state=state, sentence=sentence, transitions=[], steps=await steps_of(bus, actor, limit))


def _draw(desk: Desk, told: Explanation) -> None:
    from gateway.cli.amount import age

    desk.screen.line(told.sentence)
    if not told.steps:
        desk.screen.line("The event log has no change of it.")
        return
    desk.screen.line()
    rows = [
        (
            _ago(age(step.at)),
            desk.screen.state(STATE_OF.get(step.what, step.what), step.what),
            "–" if step.took_ms is None else f"{step.took_ms:.0f} ms",
            reason_of(step),
            step.correlation_id or "–",
        )
        for step in told.steps
    ]
    desk.screen.table((">when", "became", ">took", "why", "conversation (vx11 trace …)"), rows)


def _ago(text: str) -> str:
    return f"{text} ago" if text else "–"


def reason_of(step: Step) -> str:
    """The cause in one line; what is not known is said to be so."""
    asked = f", asked by {step.by}" if step.by else ""
    return f"{step.reason}{asked}" if step.explained else f"? {step.reason}"
