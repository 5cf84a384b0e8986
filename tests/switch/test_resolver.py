"""What a name leads to is checked at connect."""

from __future__ import annotations

import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from actors.switch.asking.resolver import GuardedResolver


class Answers(AbstractResolver):
    """A resolver that was told the answer, as a hostile name server would be."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[str] = []
        self.closed = False

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        self.asked.append(host)
        return [ResolveResult(hostname=host, host=one, port=port, family=family, proto=0, flags=0) for one in self.addresses]

    async def close(self) -> None:
        self.closed = True


async def test_a_name_that_leads_to_the_metadata_service_leads_nowhere() -> None:
    with pytest.raises(OSError, match="metadata address"):
        await GuardedResolver(Answers("169.254.169.254")).resolve("innocent.example.org", 80)


async def test_of_several_addresses_the_forbidden_ones_are_left_out() -> None:
    found = await GuardedResolver(Answers("169.254.169.254", "203.0.113.5")).resolve("two.example.org", 80)
    assert [one["host"] for one in found] == ["203.0.113.5"]


async def test_a_forbidden_name_is_not_even_looked_up() -> None:
    inner = Answers("203.0.113.5")
    with pytest.raises(OSError, match="metadata service"):
        await GuardedResolver(inner).resolve("metadata.google.internal", 80)
    assert inner.asked == []


async def test_a_name_without_an_address_says_so() -> None:
    with pytest.raises(OSError, match="has no address"):
        await GuardedResolver(Answers()).resolve("empty.example.org", 80)


async def test_closing_closes_the_resolver_inside() -> None:
    inner = Answers()
    await GuardedResolver(inner).close()
    assert inner.closed
