"""Moves that a chat has begun: they may last longer than its answer, and go on after it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from schemas.errors import Failure

T = TypeVar("T")

log = logging.getLogger("vx11.madre.chat")

TELL_S = 4.0
"""After so long a chat is answered, whatever is still under way: less than what operator_backend keeps for madre."""


class Moves:
    """Runs moves at the same time."""

    def __init__(self, patience: float = TELL_S) -> None:
        self._patience = patience
        self._under_way: set[asyncio.Task[Any]] = set()

    async def outcomes(self, moves: Sequence[Coroutine[Any, Any, T]]) -> list[T | Failure | None]:
        """Of each move its result, its Failure, or None when it is still under way, which it may remain."""
        tasks = [asyncio.create_task(move) for move in moves]
        self._under_way.update(tasks)
        for task in tasks:
            task.add_done_callback(self._under_way.discard)
        _, late = await asyncio.wait(tasks, timeout=self._patience)
        for task in late:
            task.add_done_callback(_log)
        return [None if task in late else _outcome(task) for task in tasks]


def _outcome(task: asyncio.Task[T]) -> T | Failure:
    try:
        return task.result()
    except Failure as failure:
        return failure


def _log(task: asyncio.Task[Any]) -> None:
    """How a move ended whose chat had been answered already; its transitions are in the events."""
    if not task.cancelled() and (error := task.exception()):
        log.warning("a move that a chat began has failed: %s", error, exc_info=not isinstance(error, Failure) and error)
