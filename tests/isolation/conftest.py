"""One world for the suite: it takes a few seconds to make, and every test leaves it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.isolation.world import World, made


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch, made(tmp_path_factory.mktemp("isolation"), patch) as world:
        yield world
