"""The keeper's verbs through the door: it has no card, being no actor, but its messages are known."""

from __future__ import annotations

from gateway.http.body import message_of
from gateway.http.exchange import Exchange
from gateway.known import keeper_verbs
from schemas.errors import Failure


async def ask(x: Exchange, verb: str) -> bytes:
    """Its answer as it came. The token needs the scope of the verb, too."""
    kind = keeper_verbs().get(verb)
    if kind is None:
        raise Failure("not_found", f"the keeper has no verb {verb}", verbs=sorted(keeper_verbs()))
    x.caller.needs(kind.scope)
    return (await x.send(message_of(kind, x.body))).body
