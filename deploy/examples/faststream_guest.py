"""A guest of VX11: a stock FastStream program that hears every event, asks an actor, and publishes. Nothing of VX11 is imported.

    pip install 'faststream[nats]==0.7.8' 'nats-py[nkeys]'
    python deploy/examples/faststream_guest.py data      # the folder with run.json and nats/client.nk

It tells each event in a line. At `vx11.events.guest.wondered` it asks `operator_backend`, which wakes for it, and publishes
`vx11.events.guest.answered` in the same conversation. What was published while it did not run it hears when it is back.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

from faststream import AckPolicy, FastStream
from faststream.exceptions import NackMessage, RejectMessage
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.annotations import NatsMessage
from nats.js.api import ConsumerConfig, DeliverPolicy

HOME = Path(sys.argv[1] if len(sys.argv) > 1 else "data")
if not (HOME / "run.json").exists():
    sys.exit(f"{HOME} has no run.json: is VX11 up, and is that its data folder?")
EVENTS = "VX11_EVENTS"
ASK_S = 30.0
"""An actor may have to wake, and madre to be back."""
STORE_S = 5.0
"""FastStream's own 0.5 s is too short for a server that writes each event to disk."""
AGAIN_S = 2.0
"""A plain nak comes again at once, thousands of times a second."""

log = logging.getLogger("guest")


async def as_it_came(message: NatsMessage) -> bytes:
    """Else what is no JSON fails before the handler can say what is to become of it."""
    return message.body


broker = NatsBroker(
    json.loads((HOME / "run.json").read_text())["nats_url"],
    nkeys_seed=str(HOME / "nats" / "client.nk"),
    max_reconnect_attempts=-1,  # the default gives up after two minutes, and then the whole program stands still
    reconnect_time_wait=0.25,  # seconds, whatever its type says
    ping_interval=5,
    graceful_timeout=10.0,
    decoder=as_it_came,
    logger=None,
)


@broker.subscriber(
    "vx11.events.>",
    stream=JStream(EVENTS, declare=False),  # as a mere string FastStream would reset the stream's limits; VX11 forbids it
    durable="faststream-guest",
    pull_sub=PullSub(1, timeout=1),  # longer, and it is deaf for as long after a restart of the server
    config=ConsumerConfig(
        ack_wait=30,
        max_deliver=-1,  # with a bound, what reaches it is gone in silence
        max_ack_pending=100,
        deliver_policy=DeliverPolicy.NEW,
    ),
    ack_policy=AckPolicy.NACK_ON_ERROR,  # the default drops an event whose handler raises
)
async def heard(body: bytes, message: NatsMessage) -> None:
    subject = message.raw_message.subject
    log.info("%s %s %s", message.raw_message.metadata.sequence.stream, subject, message.correlation_id)
    if subject != "vx11.events.guest.wondered":
        return
    try:
        question = json.loads(body)["question"]
    except (ValueError, KeyError, TypeError) as error:
        log.warning("no question in %s: %r", subject, error)
        raise RejectMessage from error  # it will never be one
    try:
        await answer(question, message)
    except Exception as error:
        log.warning("again in %g s: %r", AGAIN_S, error)
        raise NackMessage(delay=AGAIN_S) from error


async def answer(question: str, message: NatsMessage) -> None:
    """Ask an actor, and publish what it said, both in the conversation of the event."""
    found = await ask("vx11.operator_backend.list_sessions", {"limit": 5}, message.correlation_id)
    told = {"question": question, "answer": f"{found['total']} sessions"}
    await broker.publish(
        json.dumps(told).encode(),
        "vx11.events.guest.answered",
        stream=EVENTS,  # without it nobody says whether it was stored
        timeout=STORE_S,
        correlation_id=message.correlation_id,
        headers={"Nats-Msg-Id": f"answer-to-{message.raw_message.metadata.sequence.stream}"},  # handled twice, published once
    )


async def ask(subject: str, body: dict[str, Any], correlation_id: str | None) -> Any:
    """The answer of an actor; an error is an answer, too, and has a header that says so."""
    reply = await broker.request(json.dumps(body).encode(), subject, timeout=ASK_S, correlation_id=correlation_id)
    if code := reply.headers.get("Nats-Service-Error-Code"):
        raise RuntimeError(f"{subject}: {code} {reply.headers.get('Nats-Service-Error')}")
    return json.loads(reply.body)


app = FastStream(broker, logger=None)


@app.after_startup
async def ready() -> None:
    log.info("ready")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    asyncio.run(app.run())
