"""Finding and importing actors: the built-in ones in `actors/`, the user's own in folders beside it."""

from __future__ import annotations

import importlib
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from bus.actor import Actor, Recording
from bus.settings import Settings
from schemas.errors import Failure
from schemas.message import ACTOR_NAME

TREE = Path(__file__).resolve().parent.parent
"""Where the four packages are."""
IMAGE_NS = time.time_ns()
"""When the image began that processes are forked from, ns since the epoch: what it imported was read after."""


def roots_of(settings: Settings) -> list[Path]:
    """The tree itself, then the folders with actors of the user's own."""
    return [TREE, *settings.actor_paths]


def find_actors(roots: list[Path]) -> list[str]:
    """Names of the folders that hold an `actor.py`. A built-in name wins over the same name of the user's own."""
    names: set[str] = set()
    for folder in (roots[0] / "actors", *roots[1:]):
        try:  # without pathlib, five times as dear: this is looked at twice a second
            with os.scandir(folder) as entries:
                names |= {entry.name for entry in entries if os.path.exists(f"{entry.path}/actor.py")}  # noqa: PTH110
        except (FileNotFoundError, NotADirectoryError):
            continue
    return sorted(name for name in names if ACTOR_NAME.fullmatch(name))


def load_actor(name: str, roots: list[Path], settings: Settings | None = None) -> Actor:
    """Import an actor; what `settings` say of it beats what it declares, see `as_told`.

    Raises whatever its module raises, and TypeError when it declares no actor of that name.
    """
    built_in = (roots[0] / "actors" / name / "actor.py").exists()
    for root in reversed(roots[1:]):
        if str(root) not in sys.path:
            sys.path.insert(0, str(root))
    if built_in:
        _forget_changed(f"actors.{name}", roots[0] / "actors" / name)
    module = _import(f"actors.{name}.actor" if built_in else f"{name}.actor", cached=built_in)
    actor = getattr(module, "actor", None)
    if not isinstance(actor, Actor) or actor.name != name:
        raise TypeError(f"{module.__file__} must declare `actor = Actor({name!r}, summary=...)`")
    return as_told(actor, settings) if settings else actor


def check_told(settings: Settings) -> None:
    """Raise Failure("invalid") for what no actor can be told: better before everything starts than in each of them."""
    for name, text in settings.variables.items():
        if text and (name == "VX11_RECORD" or name.startswith("VX11_RECORD_")) and text not in get_args(Recording):
            raise Failure("invalid", f"{name}={text!r}; write {' or '.join(f'{name}={one}' for one in get_args(Recording))}")
    try:
        as_told(Actor("check", summary="takes what all actors are told"), settings)
    except (TypeError, ValueError) as error:
        raise Failure("invalid", str(error)) from None


def as_told(actor: Actor, settings: Settings) -> Actor:
    """`VX11_IDLE_AFTER` (seconds) is the `idle_after` of all, `VX11_RETRY_S` (`1,2,4,30`) the `retries`;
    `VX11_RECORD_<ACTOR>`, or `VX11_RECORD` for all, the `record`.
    """
    own = f"VX11_RECORD_{actor.name.upper().replace('-', '_')}"
    record: Any = settings.get(own) or settings.get("VX11_RECORD") or actor.record
    idle_after = settings.number("VX11_IDLE_AFTER", actor.idle_after)
    return replace(actor, idle_after=idle_after, retries=_retries(settings) or actor.retries, record=record)


def _retries(settings: Settings) -> tuple[float, ...]:
    text = settings.get("VX11_RETRY_S")
    try:
        return tuple(float(pause) for pause in text.split(",")) if text else ()
    except ValueError:
        raise ValueError(f"VX11_RETRY_S={text!r} are no seconds; write for instance VX11_RETRY_S=1,2,4,30") from None


def _forget_changed(package: str, folder: Path) -> None:
    """Let what the image has of an actor be read again when its source is newer."""
    known = [module for module in sys.modules if module == package or module.startswith(f"{package}.")]
    if not known:
        return
    with os.scandir(folder) as entries:
        changed = any(entry.stat().st_mtime_ns > IMAGE_NS for entry in entries if entry.name.endswith(".py"))
    for module in known if changed else ():
        del sys.modules[module]


def _import(module: str, *, cached: bool) -> ModuleType:
    """Without `cached` nothing compiled is left behind: it is known by the second and the size of its source, and who
    tries things out may change a word for another one of the same length within a second.
    """
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = before or not cached
    try:
        return importlib.import_module(module)
    finally:
        sys.dont_write_bytecode = before
