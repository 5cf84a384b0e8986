"""Spans put together: what is below what, and what is missing. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bus.moment import rfc3339
from bus.spans import Span

MISSING = "vx11.parent_missing"
"""Attribute of a span whose parent should be in the log and is not."""


@dataclass
class Branch:
    """A span and what is below it, in the order of the beginnings."""

    span: Span
    below: list[Branch] = field(default_factory=list)


def marked(spans: Sequence[Span]) -> list[Span]:
    """The same spans; those that lack a parent of VX11's own carry an attribute that says so."""
    lost = {id(span) for span in orphans(spans)}
    return [replace(span, attributes={**span.attributes, MISSING: True}) if id(span) in lost else span for span in spans]


def orphans(spans: Collection[Span]) -> list[Span]:
    """Those whose parent should be among them. What a client outside has sent has its parent there, by right."""
    known = {(span.trace_id, span.span_id) for span in spans}
    outside = {(span.trace_id, span.parent_id) for span in spans if span.remote}
    return [span for span in spans if span.parent_id and (span.trace_id, span.parent_id) not in known | outside]


def tree(spans: Sequence[Span]) -> list[Branch]:
    """The branches without a parent among them, oldest first."""
    branches = {(span.trace_id, span.span_id): Branch(span) for span in spans}
    below: dict[tuple[str, str], list[Branch]] = defaultdict(list)
    roots: list[Branch] = []
    for branch in branches.values():
        parent = (branch.span.trace_id, branch.span.parent_id)
        (below[parent] if parent in branches and not _above(branch.span, parent, branches) else roots).append(branch)
    for key, branch in branches.items():
        branch.below = below[key]
    return roots


def _above(span: Span, parent: tuple[str, str], branches: dict[tuple[str, str], Branch]) -> bool:
    """Is the span above its own parent? Headers can be made to say so."""
    seen = set()
    while parent in branches and parent not in seen:
        if parent == (span.trace_id, span.span_id):
            return True
        seen.add(parent)
        parent = (parent[0], branches[parent].span.parent_id)
    return False


def document(span: Span) -> dict[str, Any]:
    """For programs. `start_us` and `end_us` are exact; `start` is for people."""
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "name": span.name,
        "kind": span.kind,
        "start": rfc3339(span.start_us / 1e6, "microseconds"),
        "start_us": span.start_us,
        "end_us": span.end_us,
        "error": span.error,
        "attributes": dict(span.attributes),
    }
