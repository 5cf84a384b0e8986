"""What `run.json` says of the VX11 that runs on this home, and whether it still does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import Failure

if TYPE_CHECKING:
    from bus.settings import Settings


@dataclass(frozen=True)
class Process:
    """A process as recorded. `born`: when it began, on a clock of this machine, so that a reused pid is not taken for it."""

    pid: int
    born: float

    @property
    def alive(self) -> bool:
        from bus.process import is_same

        return is_same(self.pid, self.born)


@dataclass(frozen=True)
class Running:
    """The content of `run.json`."""

    home: Path
    version: str
    nats_url: str
    http_url: str
    control_url: str
    redis_url: str
    started_at: str
    supervisor: Process
    pids: dict[str, Process]


def recorded(settings: Settings) -> Running | None:
    """What `run.json` says, whether or not it is still true; None without one.

    Raises Failure("forbidden") when it may not be read, Failure("invalid") when it is none.
    """
    path = settings.run_file
    try:
        return _running(settings.home, json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise Failure(
            "forbidden",
            f"{path} belongs to another user",
            why="only the user who started VX11 may use its command line here",
            next=[["VX11_URL=http://127.0.0.1:8000 VX11_TOKEN=... vx11 status", "ask through the gateway instead"]],
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure(
            "invalid",
            f"{path} cannot be understood: {error}",
            why="it was cut off, or written by another version",
            next=[["vx11 up", "writes it anew"]],
        ) from error


def running(settings: Settings) -> Running:
    """What runs on this home. Raises Failure("unavailable"), exit 69, when nothing does."""
    found = recorded(settings)
    if found is None:
        raise not_running(settings, f"there is no {settings.run_file}")
    if not found.supervisor.alive:
        raise not_running(settings, f"the process that started it at {found.started_at} (pid {found.supervisor.pid}) is gone")
    return found


def not_running(settings: Settings, why: str) -> Failure:
    return Failure(
        "unavailable",
        f"VX11 is not running here ({settings.home})",
        why=why,
        next=[
            ["vx11 up", "start it"],
            ["vx11 --home FOLDER ...", "when it runs on another data folder"],
            ["export VX11_URL=http://host:8000 VX11_TOKEN=...", "when it runs on another machine"],
        ],
    )


def _running(home: Path, said: dict[str, Any]) -> Running:
    return Running(
        home=home,
        version=str(said.get("version", "")),
        nats_url=str(said["nats_url"]),
        http_url=str(said.get("http_url", "")),
        control_url=str(said.get("control_url", "")),
        redis_url=str(said.get("redis_url", "")),
        started_at=str(said.get("started_at", "")),
        supervisor=_process(said["supervisor"]),
        pids={name: _process(process) for name, process in said.get("pids", {}).items()},
    )


def _process(said: dict[str, Any]) -> Process:
    return Process(int(said["pid"]), float(said["born"]))
