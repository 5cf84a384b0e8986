"""The models folder as a provider: what the board knows of the model that runs on this machine."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from actors.switch.configured.lines import Misconfigured
from actors.switch.configured.providers import LOCAL, Provider
from actors.switch.configured.traits import Traits
from actors.switch.offline import child
from bus import models
from bus.settings import Settings

ENGINE = "xllamacpp"
INSTALL = f"{sys.executable} -m pip install --only-binary=:all: {ENGINE}"
IDLE_S = 60.0
"""Without a question, until the memory is given back; VX11_MODEL_IDLE_S."""


def provider(settings: Settings) -> Provider | None:
    """The usable models of the folder, the default first; None when there is none.

    Raises Misconfigured when there are models and nothing to run them with, or none of them can be used.
    """
    found = models.listed(settings)
    usable = [model for model in found if not model.fault]
    if not found:
        return None
    if not usable:
        raise Misconfigured("; ".join(f"{model.path} {model.fault}" for model in found))
    if find_spec(ENGINE) is None:
        raise Misconfigured(f"there are models in {models.folder(settings)}, but {ENGINE} is not installed: {INSTALL}")
    try:
        idle_s(settings), child.threads(settings)  # a setting that is no number is told now, not in mid-answer
        traits = {model.name: _traits(model, settings) for model in usable}
        first = models.default(settings, usable)
    except ValueError as wrong:
        raise Misconfigured(str(wrong)) from wrong
    assert first is not None
    return Provider(
        LOCAL,
        "",
        first.name,
        tuple(traits),
        declared=traits[first.name],
        declared_each=traits,
    )


def idle_s(settings: Settings) -> float:
    """Raises ValueError for a setting that is no number."""
    return settings.number("VX11_MODEL_IDLE_S", IDLE_S)


def _traits(model: models.Model, settings: Settings) -> Traits:
    header = model.header
    return Traits(
        context=model.context(settings),
        languages=tuple(code.lower()[:3].rstrip("-_") for code in header.languages),
        tools=header.tools,
        prefill=True,
        offline=True,
        note=model.note,
    )
