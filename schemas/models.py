"""What is told about models in memory, of language and of sound: there is room for one at a time."""

from __future__ import annotations

from typing import ClassVar

from schemas.message import Event


class ModelMemoryWanted(Event):
    """Somebody needs the memory that a loaded model holds: whoever holds it lets go once it is not working."""

    subject: ClassVar = "vx11.events.models.wanted"
    severity: ClassVar = "debug"
    summary: ClassVar = "{who} waits for the models' memory"

    who: str
