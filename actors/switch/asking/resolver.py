"""A resolver of names that returns no address which must not be asked."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from actors.switch.asking.address import address_refusal, host_refusal


class GuardedResolver(AbstractResolver):
    """Checks at connect what was checked at load.

    What it returns is what is connected to, so a name that changes its address in between changes nothing.
    """

    def __init__(self, inner: AbstractResolver | None = None) -> None:
        self._inner = inner or ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """Raises OSError when the name may not be asked, or leads to forbidden addresses only."""
        refusal = host_refusal(host)
        if refusal:
            raise OSError(f"{host} {refusal}")
        found = await self._inner.resolve(host, port, family)
        refusals = [address_refusal(ip_address(one["host"])) for one in found]
        allowed = [one for one, refusal in zip(found, refusals, strict=True) if not refusal]
        if not allowed:
            raise OSError(f"{host} leads nowhere: {next(filter(None, refusals), 'it has no address')}")
        return allowed

    async def close(self) -> None:
        await self._inner.close()
