"""An actor's source, looked at in a process of its own: its card, or what is wrong with it, with file and line.

The process is thrown away afterwards: an import cannot be undone, and an author's code may do anything.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from bus.cards import card_of, loaded_files, version_of
from bus.loading import load_actor
from bus.process import resident
from bus.settings import Settings

Document = dict[str, Any]
"""`card`; `files` whose change is worth another look; `begun`, ns since the epoch; what the import cost: `grew`, bytes,
and `took`, seconds; `dormant`: hosts start it."""


def examine(name: str, roots: list[Path], settings: Settings) -> Document:
    """Import the actor. Raises nothing: what is wrong is in the card's `error`."""
    begun, image = time.time_ns(), _image(name)
    try:
        before, clock = resident(), time.perf_counter()
        actor = load_actor(name, roots, settings)
        took, grew = time.perf_counter() - clock, resident() - before
        files = loaded_files(roots, image)
        card = card_of(actor, card_version=version_of(files), built_in=(roots[0] / "actors" / name).is_dir())
        cost = {"grew": grew, "took": took, "dormant": actor.dormant}
        return {"card": card.model_dump(mode="json"), "files": watched(name, roots, files), "begun": begun, **cost}
    except BaseException as error:  # noqa: BLE001 - the author's code may raise anything; it is shown to its author
        return faulty(name, roots, blame(error, roots), begun, image)


def _image(name: str) -> frozenset[str]:
    """The modules that came with the image, but not the actor's own: those are read again when they change."""
    return frozenset(module for module in sys.modules if not f"{module}.".startswith((f"actors.{name}.", f"{name}.")))


def faulty(name: str, roots: list[Path], error: str, begun: int, image: Collection[str] | None = None) -> Document:
    """The document of an actor that cannot be loaded. `image`: the modules that were there before; None: all that are."""
    files = sorted({*loaded_files(roots, sys.modules if image is None else image), *_sources(name, roots)})
    card = {"name": name, "summary": "", "error": error, "card_version": version_of(files)}
    return {"card": card, "files": watched(name, roots, files), "begun": begun, "grew": 0, "took": 0.0, "dormant": True}


def blame(error: BaseException, roots: list[Path]) -> str:
    """What went wrong in an actor's source, and in which line of it."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({_shown(error.filename, roots)}, line {error.lineno})"
    places = [roots[0] / "actors", *roots[1:]]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if any(Path(f.filename).is_relative_to(p) for p in places)]
    where = f" ({_shown(frames[-1].filename, roots)}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _shown(file: str, roots: list[Path]) -> str:
    """The path as it is from the folder of actors that it is in."""
    found = [root for root in roots if Path(file).is_relative_to(root)]
    return str(Path(file).relative_to(max(found, key=lambda root: len(root.parts)))) if found else file


def _sources(name: str, roots: list[Path]) -> list[Path]:
    return [file for folder in _folders(name, roots) for file in folder.glob("*.py")]


def watched(name: str, roots: list[Path], files: Iterable[Path] = ()) -> list[str]:
    """`files`, and all that is in the actor's folder, and the folder itself: a file that was missing may come."""
    return sorted({str(path) for path in (*files, *_sources(name, roots), *_folders(name, roots))})


def _folders(name: str, roots: list[Path]) -> list[Path]:
    return [folder for folder in (roots[0] / "actors" / name, *(root / name for root in roots[1:])) if folder.is_dir()]
