"""Discovery as the stock command line understands it: what ADR-32 asks of each answer, as models that refuse what it refuses."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Annotated, Any, Literal

from nats.aio.client import Client
from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[a-zA-Z0-9_-]+$"
VERSION = r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9a-zA-Z.-]+)?(\+[0-9a-zA-Z.-]+)?$"
INT64 = 2**63
QUIET_S = 0.15
"""Nobody answers any more: nobody knows how many there are to answer."""
FIRST_S = 5.0

Count = Annotated[int, Field(ge=-INT64, lt=INT64)]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Ping(Strict):
    type: Literal["io.nats.micro.v1.ping_response"]
    name: str = Field(pattern=NAME)
    id: str = Field(min_length=1)
    version: str = Field(pattern=VERSION, min_length=5)
    metadata: dict[str, str] | None = None


class Endpoint(Strict):
    name: str = Field(pattern=NAME)
    subject: str = Field(min_length=1)
    queue_group: str = ""
    metadata: dict[str, str] | None = None


class Info(Ping):
    type: Literal["io.nats.micro.v1.info_response"]  # type: ignore[assignment]
    description: str
    endpoints: list[Endpoint] = []


class Counted(Strict):
    name: str = Field(pattern=NAME)
    subject: str = Field(min_length=1)
    queue_group: str = ""
    num_requests: Count
    num_errors: Count
    last_error: str
    processing_time: Count
    average_processing_time: Count
    data: Any = None


class Stats(Ping):
    type: Literal["io.nats.micro.v1.stats_response"]  # type: ignore[assignment]
    started: Annotated[datetime, Field(strict=False)]
    endpoints: list[Counted]


KINDS: dict[str, type[Ping]] = {"PING": Ping, "INFO": Info, "STATS": Stats}
VERBS = re.compile(r"^vx11\.[A-Za-z0-9_-]+\.[a-z][a-z0-9_]*$")


async def answers(client: Client, subject: str) -> list[dict[str, Any]]:
    """Everything that comes on one question, by whoever knows it."""
    inbox = client.new_inbox()
    heard = await client.subscribe(inbox)
    await client.publish(subject, b"", reply=inbox)
    found: list[dict[str, Any]] = []
    try:
        while True:
            msg = await heard.next_msg(QUIET_S if found else FIRST_S)
            found.append(json.loads(msg.data))
    except TimeoutError:
        return found
    finally:
        await heard.unsubscribe()


async def services(client: Client, kind: str, *names: str) -> dict[str, Any]:
    """The valid answers by the service's name. Two answers for one name are a fault."""
    found = [KINDS[kind].model_validate(document) for document in await answers(client, ".".join(("$SRV", kind, *names)))]
    by_name = {one.name: one for one in found}
    assert len(by_name) == len(found), f"answered more than once: {sorted(one.name for one in found)}"
    return by_name
