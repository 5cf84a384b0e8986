"""POST /v1/embeddings: the meaning of texts as vectors, as lists of numbers or as base64."""

from __future__ import annotations

import base64
import struct
from typing import Literal

from pydantic import BaseModel, ValidationError

from gateway.http.body import invalid
from gateway.http.exchange import Exchange
from gateway.http.openai.question import AUTO, EmbeddingsBody, asked
from gateway.http.presence import watched
from schemas.errors import Failure
from schemas.switch import Embed, Embeddings


class Vector(BaseModel):
    """`embedding`: numbers, or the base64 of them as little-endian float32, which the official client asks for."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Counted(BaseModel):
    prompt_tokens: int
    total_tokens: int


class Provider(BaseModel):
    provider: str


class EmbeddingsAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[Vector]
    model: str
    usage: Counted
    vx11: Provider


async def embeddings(x: Exchange) -> EmbeddingsAnswer:
    """One vector for each text, in their order. Raises Failure."""
    body = asked(EmbeddingsBody, x.body)
    async with watched(x):
        found = Embeddings.model_validate(await x.reply(_question(body)))
    _check_dimensions(body, found)
    shape = base64_of if body.encoding_format == "base64" else list
    return EmbeddingsAnswer(
        data=[Vector(index=index, embedding=shape(vector)) for index, vector in enumerate(found.vectors)],
        model=found.model,
        usage=Counted(prompt_tokens=found.tokens, total_tokens=found.tokens),
        vx11=Provider(provider=found.provider),
    )


def base64_of(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _question(body: EmbeddingsBody) -> Embed:
    texts = [body.input] if isinstance(body.input, str) else body.input
    try:
        return Embed(input=texts, model=None if body.model == AUTO else body.model)
    except ValidationError as error:
        raise invalid(error) from None


def _check_dimensions(body: EmbeddingsBody, found: Embeddings) -> None:
    has = len(found.vectors[0]) if found.vectors else 0
    if body.dimensions is not None and body.dimensions != has:
        told = f"dimensions: a vector of {found.model} has {has} numbers and cannot be made shorter or longer"
        raise Failure("invalid", told, field="dimensions")
