"""CloudEvents at handlers that hear only while they are awake."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from bus import call, cloudevents
from bus.actor import Actor
from bus.cloudevents import STRUCTURED, CloudEvent
from bus.instance import run_event
from bus.resources import Resources
from bus.wire import Msg
from tests.standards.cards import Flew

EVENT = CloudEvent({"id": "1", "source": "/s", "type": "t", "vxcorrelationid": "conversation-1"}, b'{"tree": {"label": "a"}}')


async def heard(headers: dict[str, str], body: bytes) -> tuple[Flew, str]:
    """What the handler is given, and the conversation that it is in."""
    found: list[tuple[Flew, str]] = []
    ear = Actor("ear", summary="hears")

    @ear.on
    async def listen(event: Flew) -> None:
        circumstances = call.current.get()
        assert circumstances
        found.append((event, circumstances.correlation_id))

    msg = Msg(Flew.subject, "", body, headers)
    await run_event(ear.events[0], Resources(ear, {}), msg)
    return found[0]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (cloudevents.binary(EVENT), EVENT.data),
        ({"Content-Type": STRUCTURED}, json.dumps(cloudevents.structured(EVENT)).encode()),
    ],
)
async def test_either_form_reaches_the_handler_in_its_conversation(headers, body):
    event, correlation_id = await heard(headers, body)
    assert (event.tree.label, correlation_id) == ("a", "conversation-1")


async def test_a_malformed_one_is_an_error_with_its_reason():
    """Which is logged: nobody keeps what is heard only while awake."""
    with pytest.raises(ValidationError, match="specversion"):
        await heard({"ce-id": "1"}, EVENT.data)
