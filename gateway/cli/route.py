"""`route`: what a message is about, and which model would be asked, without asking one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.desk import AsJson, Desk, desk_of

if TYPE_CHECKING:
    from schemas.switch import Candidate, Kind, Routed

TEXT_MAX_CHARS = 4_000
"""As the verb takes them."""
SHOWN = 12
"""Models of a table; --json has all."""
FOR: dict[Kind, str] = {"chat": "a model", "platform": "madre", "job": "hormiguero", "audio": "shubniggurath"}
LANGUAGES = {"en": "English", "es": "Spanish", "": "a language that nothing tells"}


def route(
    ctx: typer.Context,
    text: Annotated[list[str] | None, typer.Argument(help="The message; without it stdin is read.", metavar="TEXT")] = None,
    model: Annotated[
        str, typer.Option(help="As if this were asked for: a model, a provider, provider/model.", metavar="NAME")
    ] = "",
    session: Annotated[str, typer.Option(help="As if it were said in this conversation.", metavar="ID")] = "",
    json: AsJson = False,
) -> None:
    """Show where a message would go, and why: `vx11 route what is a compressor?` No model is asked."""
    from gateway.cli.remote import request
    from schemas.switch import Route

    said = " ".join(text or []).strip() or ("" if sys.stdin.isatty() else sys.stdin.read().strip())
    if not said:
        raise typer.BadParameter('there is no message; for instance  vx11 route "who is awake?"', param_hint="TEXT")
    if len(said) > TEXT_MAX_CHARS:
        raise typer.BadParameter(f"it has {len(said)} characters; give its first {TEXT_MAX_CHARS}", param_hint="TEXT")
    desk = desk_of(ctx, json=json)
    asked = Route(text=said, model=model or None, session_id=session)
    found = desk.run(lambda remote: request(remote, asked))
    desk.screen.data(found.model_dump(mode="json"), lambda: _draw(desk, found))


def _draw(desk: Desk, found: Routed) -> None:
    screen = desk.screen
    rows = [(FOR[one.kind], one.kind, f"{one.score:.0%}") for one in found.kinds]
    screen.table(("FOR", "KIND", ">SHARE"), rows)
    screen.talk(f"by its {found.how}, in {found.cpu_ms:.1f} ms of a processor; it is in {LANGUAGES[found.language]}")
    if found.note:
        screen.talk(f"▲ {found.note}", style="yellow")
    if not found.candidates:
        screen.talk("no language model is configured: madre would answer", style="yellow")
        return
    screen.line()
    shown = found.candidates[:SHOWN]
    screen.table((">", "MODEL", ">SCORE", "WHY"), [_row(place, one) for place, one in enumerate(shown, 1)])
    if found.kind != "chat":
        who = FOR[found.kind]
        screen.talk(f"it is for {who}: a model, in the order above, is asked only where {who} cannot answer")
    if rest := len(found.candidates) - len(shown):
        screen.talk(f"… and {rest} more; --json shows all")


def _row(place: int, one: Candidate) -> tuple[str, str, str, str]:
    mark = "–" if one.refused else str(place)
    return mark, f"{one.provider}/{one.model}", f"{one.score:g}", f"not asked: {one.refused}" if one.refused else one.why
