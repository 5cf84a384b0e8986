"""The gateway before a scripted bus, as tests/gateway has it, and a whole system for each file that asks for one."""

from __future__ import annotations

from tests.e2e.conftest import home
from tests.gateway.conftest import bus, cache, link, open_link

__all__ = ["bus", "cache", "home", "link", "open_link"]
