"""Which traces are exported, by the standard variables OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG. Pure.

Whole traces or nothing: it is decided by the trace id, so that every span of a trace is decided alike. A client that has
decided before, by the flag in its traceparent, is followed by the samplers whose name begins with `parentbased_`.
"""

from __future__ import annotations

from dataclasses import dataclass

from bus.settings import Settings

SAMPLER, ARGUMENT = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
DEFAULT = "parentbased_always_on"
PARENT_BASED = "parentbased_"
KINDS = ("always_on", "always_off", "traceidratio")
ID_BITS = 64
"""Of the trace id, the lower ones: what OpenTelemetry's own sampler compares."""


class Unusable(ValueError):
    """A variable has a value that cannot be, and what to write instead."""


@dataclass(frozen=True)
class Sampler:
    """`ratio` of the traces about which nobody has decided."""

    ratio: float = 1.0
    follows: bool = True
    """What a client has decided holds."""

    @classmethod
    def of(cls, settings: Settings) -> Sampler:
        """Raises Unusable."""
        name = settings.get(SAMPLER, DEFAULT)
        kind = name.removeprefix(PARENT_BASED)
        if kind not in KINDS:
            known = ", ".join([*KINDS, *(PARENT_BASED + kind for kind in KINDS)])
            raise Unusable(f"{SAMPLER}={name!r} is none of {known}")
        ratio = {"always_on": 1.0, "always_off": 0.0}.get(kind)
        return cls(_ratio(settings.get(ARGUMENT, "1.0")) if ratio is None else ratio, name != kind)

    def takes(self, trace_id: str, decided: bool | None) -> bool:
        """`decided`: what the door was told, None when nobody has."""
        if self.follows and decided is not None:
            return decided
        return int(trace_id[-ID_BITS // 4 :], 16) < round(self.ratio * (1 << ID_BITS))


def _ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise Unusable(f"{ARGUMENT}={text!r} is no number from 0 to 1; write for instance {ARGUMENT}=0.01")
    return ratio
