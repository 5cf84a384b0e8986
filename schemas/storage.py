"""The room for what is stored: too little of it, enough again, and the server that was started anew because of that."""

from __future__ import annotations

from typing import ClassVar

from schemas.message import Event


class StorageLow(Event):
    """What would have to be stored is not accepted at the door any more."""

    subject: ClassVar = "vx11.events.supervisor.storage_low"
    severity: ClassVar = "warning"
    summary: ClassVar = "the disk has {free_bytes} bytes free, less than the reserve of {reserve_bytes}"

    free_bytes: int
    reserve_bytes: int
    at: str = ""


class StorageBack(Event):
    """There is room again."""

    subject: ClassVar = "vx11.events.supervisor.storage_back"
    summary: ClassVar = "the disk has room again: {free_bytes} bytes are free"

    free_bytes: int
    reserve_bytes: int
    at: str = ""


class ServerMended(Event):
    """nats-server could not write and was started anew once there was room: until then it would have stored nothing more."""

    subject: ClassVar = "vx11.events.supervisor.server_mended"
    severity: ClassVar = "warning"
    summary: ClassVar = "nats-server was started anew: {reason}"

    reason: str
    free_bytes: int
    at: str = ""
