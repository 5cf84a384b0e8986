"""What became of events whose commit got no answer: asked of the stream itself, which forgets no id.

The duplicate window is no proof: a server that stood still for longer than it, between writing an event and saying so, has
forgotten the id when it goes on, and takes a copy that was sent meanwhile for another event. So it is asked, in this order,
for the last sequence of each subject (the fence) and for what was stored since the first try. What it has is done. What it does
not have is sent again on condition that nothing has come to its subject since: a copy that comes late moves the fence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bus.client import Bus
from bus.commit import ID, Waiting
from bus.eventlog import EventLog, sequence_of
from bus.moment import rfc3339
from bus.publisher import Recalled

CLOCK_S = 5.0
"""By so much the clock may have been set back between the first try and its being stored. If by more, it is the id that
keeps it from being stored twice."""
PAGE = 256


async def recalled(bus: Bus, events: Sequence[Waiting]) -> Recalled:
    """Raises Failure("unavailable") when the stream cannot be read."""
    stream = EventLog(bus)
    subjects = sorted({event.subject for event in events})
    lasts = await asyncio.gather(*(stream.last(subject) for subject in subjects))
    fences = dict(zip(subjects, lasts, strict=True))
    wanted = {event.id for event in events}
    begin = await stream.first_since(rfc3339(min(event.begun for event in events) - CLOCK_S))
    only = subjects[0] if len(subjects) == 1 else ">"
    found: dict[str, int] = {}
    _, last = await stream.bounds()
    known, end = min(event.after for event in events), max(fences.values())
    after = max(begin - 1, known if known <= last else 0)  # a stream that was made anew counts from 1 again
    while begin and after < end and (page := await stream.page(after, PAGE, subject=only)):
        after = sequence_of(page[-1])
        found |= {id_: sequence_of(msg) for msg in page if (id_ := (msg.headers or {}).get(ID, "")) in wanted}
    return Recalled(found, fences, end)
