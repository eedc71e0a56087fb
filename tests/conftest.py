"""What all tests share: a clean environment, no network but loopback, and one running service a test process."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.postgresql import KINDS, begin_run, database_url, end_run
from tests.support import Service, running_service
from tests.tables import share_statements

for name in [name for name in os.environ if name.startswith("CARREL_") and not name.startswith("CARREL_TEST_")]:
    del os.environ[name]
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

_connect = socket.socket.connect


def _loopback_only(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise RuntimeError(f"a test tried to reach {address[0]}")
    _connect(self, address)


socket.socket.connect = _loopback_only  # type: ignore[method-assign]


# A deadline is a matter of what else the machine does. Everyday the examples are the same each time, and fewer.
settings.register_profile("full", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("everyday", settings.get_profile("full"), derandomize=True, max_examples=30)

GUARD = pytest.StashKey[Any]()
#: Fixtures that start something for many files.
WORLDS = {"shared_service": "service", "shared_quick_service": "quick"}


def pytest_configure(config: pytest.Config) -> None:
    # Preparing the real model takes seconds: once for all tests, kept between runs, and anew when what makes it changes.
    sources = b"".join(path.read_bytes() for path in sorted(Path("rag/embedding/local").glob("*.py")))
    os.environ["CARREL_MODELS_DIR"] = str(config.cache.mkdir(f"models-{hashlib.sha256(sources).hexdigest()[:12]}"))
    config.stash[GUARD] = begin_run()
    share_statements()
    settings.load_profile("everyday" if config.option.markexpr == "not full" else "full")
    # A shell lets what it starts in the background ignore Ctrl-C, and every process from there on would.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before xdist looks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares a world runs in one process: a service for all of it, and a file's own fixtures made once."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            names = getattr(item, "fixturenames", ())
            world = next((world for fixture, world in WORLDS.items() if fixture in names), item.nodeid.partition("::")[0])
            item.add_marker(pytest.mark.xdist_group(world))


def pytest_unconfigure(config: pytest.Config) -> None:
    end_run(config.stash[GUARD])


@pytest.fixture(params=KINDS)
def sql_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of a database of each kind in turn; PostgreSQL's has every table already."""
    with database_url(request.param, tmp_path) as url:
        yield url


@pytest.fixture(autouse=True)
def every_logger_enabled() -> None:
    """Libraries that configure logging disable the loggers that exist by then, whatever test comes after."""
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False


@pytest.fixture(scope="session")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A real service with the real model, shared by the tests of one process: each uses tenants of its own."""
    with running_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def service(shared_service: Service) -> Iterator[Service]:
    yield shared_service
    shared_service.close_clients()


@pytest.fixture
def repository() -> Path:
    return Path(__file__).parents[1]
