"""One whole system for each file of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.house import House, house


@pytest.fixture(scope="module")
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """`VARIABLES` of the file are those that its system is started with."""
    with house(tmp_path_factory.mktemp("vx11"), getattr(request.module, "VARIABLES", {})) as made:
        yield made
