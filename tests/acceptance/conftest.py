"""What acceptance tests share that need many documents and no meaning of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import Service, running_service


@pytest.fixture(scope="session")
def shared_quick_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose model costs nothing, shared by the tests of one process."""
    with running_service(tmp_path_factory.mktemp("quick"), embedding_runtime="hash") as running:
        yield running


@pytest.fixture
def quick(shared_quick_service: Service) -> Iterator[Service]:
    yield shared_quick_service
    shared_quick_service.close_clients()
