"""GET /v1/models: whom a chat may name."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from gateway.http.exchange import Exchange
from gateway.http.observed import AWAKE
from gateway.http.openai.question import AUTO
from gateway.moment import rfc3339
from schemas.errors import Failure
from schemas.switch import ListModels, ModelInfo, ModelList

KEPT_S = 3_600.0
"""While switch sleeps what it told last is told again for so long; after that the question wakes it.

deploy/decisions/0021 has the reason.
"""
OWNER = "vx11"


class Model(BaseModel):
    """`created` is not known, so it is 0. `owned_by`: the provider."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = OWNER


class Observed(BaseModel):
    observed_at: str


class Models(BaseModel):
    """`auto`, and every model by its own name, and with its provider's where two have it."""

    object: Literal["list"] = "list"
    data: list[Model]
    vx11: Observed


@dataclass(frozen=True)
class Told:
    """What switch told last. `at`: seconds since the epoch."""

    models: tuple[ModelInfo, ...]
    at: float


async def list_models(x: Exchange) -> Models:
    """What answers now, as switch says; while it sleeps, what it said last. Raises Failure."""
    told = await _told(x)
    return Models(data=listed(told.models), vx11=Observed(observed_at=rfc3339(told.at)))


async def get_model(x: Exchange) -> Model:
    """One of them; a provider's name, and a model with its provider's name, are good, too. Raises Failure("not_found")."""
    wanted = x.named["model"]
    models = (await _told(x)).models
    for one in models:
        if wanted in (one.id, one.provider, f"{one.provider}/{one.id}"):
            return Model(id=wanted, owned_by=one.provider)
    if wanted == AUTO:
        return Model(id=AUTO)
    raise Failure("not_found", f"no provider has the model {wanted!r}; GET /v1/models says which there are", model=wanted)


def listed(models: Sequence[ModelInfo]) -> list[Model]:
    how_many = Counter(one.id for one in models)
    names = {one.id: one.provider for one in reversed(models)}
    names |= {f"{one.provider}/{one.id}": one.provider for one in models if how_many[one.id] > 1}
    order = {name: names[name] for one in models for name in (one.id, f"{one.provider}/{one.id}") if name in names}
    return [Model(id=AUTO), *(Model(id=name, owned_by=provider) for name, provider in order.items())]


async def _told(x: Exchange) -> Told:
    """A sleeping switch is not woken as long as what it told last is good; the question never keeps it awake."""
    look = await x.parts.observed.look()
    actor = next((actor for actor in look.actors if actor.name == ListModels.addressee()), None)
    known = x.parts.told
    asleep = look.known and actor is not None and actor.allowed and actor.state not in AWAKE
    if asleep and known and known.models and time.time() - known.at < KEPT_S:
        return known
    timeout, body = ListModels.timeout, ListModels().model_dump_json().encode()
    answer = await x.ask(ListModels.subject, body, timeout=timeout, idempotent=True, passive=True)
    x.parts.told = Told(tuple(ModelList.model_validate_json(answer.body).models), time.time())
    return x.parts.told
