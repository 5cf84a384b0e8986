"""`call`: any verb of any actor, its values read by the verb's own schema."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.desk import Desk, desk_of

if TYPE_CHECKING:
    from gateway.cli.remote import Remote, Reply
    from schemas.card import Verb

DESCRIBE = "describe"
"""The verb that every actor has and no card lists."""


def call(
    ctx: typer.Context,
    verb: Annotated[str, typer.Argument(help="Which verb, for instance madre.list_actors", metavar="ACTOR.VERB")],
    values: Annotated[list[str] | None, typer.Argument(help="Its fields: name=Ana count=3", metavar="KEY=VALUE...")] = None,
    body: Annotated[str, typer.Option("--json", help="The whole request as JSON; - reads it from stdin.", metavar="JSON")] = "",
    stream: Annotated[bool, typer.Option("--stream", help="Show the pieces of the answer as they come, one a line.")] = False,
    correlation: Annotated[str, typer.Option(help="The conversation that this belongs to.", metavar="ID")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait; without it what the verb says.", min=0.0)] = 0.0,
) -> None:
    """Ask any actor anything: `vx11 call greeter.greet name=Ana`. The answer is JSON; a sleeping actor wakes for it."""
    import sys

    from bus.call import CORRELATION_FORM
    from gateway.cli.values import check_complete
    from schemas.errors import Failure

    desk = desk_of(ctx, json=not sys.stdout.isatty())
    if correlation and not CORRELATION_FORM.fullmatch(correlation):
        raise typer.BadParameter(f"{correlation!r} is none: 8 to 64 letters, digits, - or _", param_hint="--correlation")
    actor, name = _split(verb)
    given = _body(body)

    async def work(remote: Remote) -> None:
        found = await _verb(remote, actor, name)
        remote.conversation = correlation
        document = {**given, **_fields(values or [], found, verb)}
        check_complete(document, found.request, verb=verb)
        await _answer(desk, remote, found, document, stream=stream, timeout=timeout or found.timeout)

    try:
        desk.run(work)
    except Failure as failure:
        failure.details.setdefault("actor", actor)
        raise


def _split(verb: str) -> tuple[str, str]:
    actor, dot, name = verb.partition(".")
    if not (actor and dot and name) or "." in name:
        raise typer.BadParameter(f"{verb!r} is no ACTOR.VERB, for instance madre.list_actors", param_hint="ACTOR.VERB")
    return actor, name


def _body(text: str) -> dict[str, Any]:
    import json
    import sys

    if not text:
        return {}
    try:
        found = json.loads(sys.stdin.read() if text == "-" else text)
    except ValueError as error:
        raise typer.BadParameter(f"that is no JSON: {error}", param_hint="--json") from error
    if not isinstance(found, dict):
        raise typer.BadParameter('a request is a JSON object, for instance \'{"name": "Ana"}\'', param_hint="--json")
    return found


def _fields(words: list[str], verb: Verb, name: str) -> dict[str, Any]:
    from gateway.cli.values import fields

    return fields(words, verb.request, verb=name)


async def _verb(remote: Remote, actor: str, name: str) -> Verb:
    """The verb as its actor's card has it. Asking for the card wakes nobody."""
    from gateway.cli.remote import card_of
    from gateway.known import KEEPER
    from schemas.card import Verb
    from schemas.errors import Failure

    if name == DESCRIBE and actor != KEEPER:
        return Verb(name=name, subject=f"vx11.{actor}.{name}", idempotent=True, passive=True)
    card = await card_of(remote, actor)
    if card.error:
        raise Failure(
            "unavailable",
            f"{actor} cannot be loaded",
            why=card.error,
            next=[[f"vx11 logs {actor}", "what its processes printed"]],
        )
    if found := card.verb(name):
        return found
    known = [verb.name for verb in card.verbs]
    close = get_close_matches(name, known, n=1)
    others = (
        ["vx11 log --help", "what is there for people"]
        if actor == KEEPER
        else [f"vx11 call {actor}.{DESCRIBE}", "what each takes"]
    )
    raise Failure(
        "not_found",
        f"{actor} has no verb {name!r}",
        why=f"its verbs are {', '.join(known)}" if known else "it has no verbs",
        next=[[f"vx11 call {actor}.{close[0]}", "did you mean this?"] if close else others],
    )


async def _answer(desk: Desk, remote: Remote, verb: Verb, document: Mapping[str, Any], *, stream: bool, timeout: float) -> None:
    if not stream:
        reply = await remote.ask(verb.subject, document, timeout=timeout, idempotent=verb.idempotent)
        desk.screen.document(reply.document)
        _tell_wake(desk, verb, reply)
        return
    async for piece in remote.stream(verb.subject, document, timeout=timeout):
        desk.screen.json_line(piece.document)
        if piece.last:
            _tell_wake(desk, verb, piece)


def _tell_wake(desk: Desk, verb: Verb, reply: Reply) -> None:
    if reply.wake_ms:
        desk.screen.talk(f"({verb.subject.split('.')[1]} woke for this in {reply.wake_ms} ms)", style="dim")
