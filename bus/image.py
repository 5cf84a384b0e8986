"""What all processes of a system share: imported once, rehearsed, and from then on hardly written to.

A forked process has the memory of its parent until one of them writes to a page of it; then it pays for a copy. CPython writes
to an object whenever it is used, because it counts references. From 3.12 on it knows objects that are not counted, which it
calls immortal (PEP 683): with them a use writes nothing. Python makes few of them; we make everything so that the image holds.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import signal
import sys
import sysconfig
from collections.abc import Iterable
from types import CodeType
from typing import Any

from bus.settings import Settings

MODULES = (
    "aiohttp",
    "bus.cache",
    "bus.client",
    "bus.instance",
    "bus.zygote",
    "actors.operator_backend.actor",
    "actors.switch.actor",
)
"""What actors and their host use. An import after a fork costs more than it adds, because it writes to pages that were shared
until then."""
GC_AFTER = 10_000
"""So many objects more than were freed before cycles are looked for, in every process of the image; Python's own 700 cost the
gateway a seventh of its time."""
REHEARSALS = 4
"""Python rewrites a function while it is run the first few times: before the fork this is done once, and for all."""
UNCOUNTED = 31
"""The bit of a counter that says: this object is not counted."""
BATCH = 1000


def begin(settings: Settings) -> None:
    """Have what an actor needs. From a process that has no thread and no loop."""
    _import(MODULES)
    _rehearse(settings)
    _settle()
    gc.set_threshold(GC_AFTER)


def add(*modules: str) -> None:
    """Have more, for what is forked from now on. Nothing is done again for what is there."""
    _import(modules)
    _settle()


def _import(modules: Iterable[str]) -> None:
    for name in modules:
        importlib.import_module(name)


def _settle() -> None:
    gc.collect()
    immortalise()
    gc.freeze()


def _rehearse(settings: Settings) -> None:
    """A SIGTERM meanwhile is for us, not for what is played."""
    from bus.warm import rehearse

    kept = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        for _ in range(REHEARSALS):
            asyncio.run(rehearse(settings))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, kept)


def immortalise() -> int:
    """Make all objects that are there immortal; returns how many. 0: this Python counts every use of every object."""
    mark = _counter(None).value
    if not (_counts_where_we_look() and mark >> UNCOUNTED):
        return 0
    made, waiting = 0, gc.get_objects()
    while waiting:
        batch = waiting[-BATCH:]
        del waiting[-BATCH:]
        for one in batch:
            if not _is_immortal(one):
                _counter(one).value = mark
                made += 1
        waiting += [one for one in _referred(batch) if not _is_immortal(one)]
    return made


def _is_immortal(one: object) -> bool:
    return bool(sys.getrefcount(one) >> UNCOUNTED)


def _referred(objects: list[Any]) -> list[Any]:
    """What they refer to; code objects do not tell the collector of cycles, as there are none through them."""
    found = gc.get_referents(*objects)
    for one in objects:
        if type(one) is CodeType:
            found += (one.co_consts, one.co_names, one.co_linetable, one.co_exceptiontable, one.co_name, one.co_qualname)
    return found


def _counter(one: object) -> ctypes.c_uint32:
    """The lower half of what CPython counts its references with: where the object begins."""
    return ctypes.c_uint32.from_address(id(one))


def _counts_where_we_look() -> bool:
    """Builds without the global lock, or for debugging, and other Pythons keep their counters elsewhere."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return False
    probe = object()
    kept = [probe] * 1000
    return sys.byteorder == "little" and _counter(probe).value == len(kept) + 1
