"""Looking after the stores: what can be checked without the vault is checked, what cannot is named."""

from __future__ import annotations

import time

from bus import streams
from bus.client import Bus
from schemas.errors import Failure
from schemas.keeper import GetLog
from schemas.madre import Maintained

MISSING = ["database checks", "backup and its rotation", "retention"]
"""Parts of maintenance that come with the vault."""
KEEPER_S = 2.0


class Upkeep:
    """Compares the streams with their settings, and brings them back when asked to apply."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def run(self, *, apply: bool) -> Maintained:
        begun = time.perf_counter()
        checks: dict[str, str] = {}
        counts: dict[str, int] = {}
        for config in streams.stream_configs(self._bus.wire.max_payload):
            name = str(config["name"])
            try:
                info = await streams.stream_info(self._bus.api, name)
                counts[name] = int(info["state"]["messages"])
                checks[name] = await self._check(config, apply=apply)
            except Failure as failure:
                checks[name] = f"failed: {failure}"
        checks["log"] = await self._log()
        failed = sum(finding.startswith("failed") for finding in checks.values())
        return Maintained(
            status="failed" if failed == len(checks) else "partial",
            checks=checks,
            counts=counts,
            missing=MISSING,
            elapsed_ms=round((time.perf_counter() - begun) * 1000, 1),
        )

    async def _log(self) -> str:
        """What the keeper knows; `vx11 log verify` compares everything anew."""
        try:
            state = await self._bus.request(GetLog(), timeout=KEEPER_S)
        except Failure as failure:
            return f"failed: {failure}"
        return f"failed: {state.reason}" if state.state == "broken" else f"{state.state}: {state.reason}"

    async def _check(self, config: streams.Config, *, apply: bool) -> str:
        if not apply:
            return "present; its settings are compared when this is applied"
        outcome = await streams.ensure_stream(self._bus.api, config)
        return "ok" if outcome.did == "kept" else f"{outcome.did}: {', '.join(sorted(outcome.changed))}"
