"""Dead letters by HTTP: what the keeper says of them."""

from __future__ import annotations

from pydantic import BaseModel, Field

from gateway.http.body import message_of, query_of
from gateway.http.exchange import Exchange
from schemas.dead import DropDead, GetDead, ListDead, RetryDead
from schemas.errors import Failure

DIGITS_MOST = 18
"""The server counts in 64 bits."""


class Piece(BaseModel):
    """From which byte of the body on."""

    offset: int = Field(default=0, ge=0)


async def list_letters(x: Exchange) -> bytes:
    return (await x.send(query_of(ListDead, x.request))).body


async def show(x: Exchange) -> bytes:
    return (await x.send(GetDead(sequence=_number(x), offset=query_of(Piece, x.request).offset))).body


async def retry(x: Exchange) -> bytes:
    return (await x.send(message_of(RetryDead, x.body, {"sequence": _number(x)}))).body


async def drop(x: Exchange) -> bytes:
    return (await x.send(message_of(DropDead, x.body, {"sequence": _number(x)}))).body


def _number(x: Exchange) -> int:
    text = x.named["sequence"]
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MOST and int(text)):
        raise Failure("not_found", f"there is no dead letter {text!r}; they have numbers")
    return int(text)
