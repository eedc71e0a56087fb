"""Worker and engine die at every named point of bringing and deleting, while two tenants go on: nothing is lost or doubled."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import httpx2
import pytest

from tests.faults.converged import converges
from tests.faults.dying_part import POINTS
from tests.faults.tenant_life import TenantLife
from tests.support import environment, free_port, wait_for

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("processes"), pytest.mark.timeout(600)]
TENANTS = ("ash", "elm")
SETTINGS = {"embedding_runtime": "hash", "hold_lease_seconds": 5, "sweep_seconds": 0.5, "log_level": "error"}


@contextmanager
def _parts(folder: Path, dying: str) -> Iterator[tuple[str, IO[str]]]:
    """The three processes without a supervisor; the URL, and the lines of the dying one."""
    env = environment(folder, **SETTINGS, port=free_port())
    commands = {
        part: [sys.executable, "-P", "-m", "api.cli.main", part, "--supervised"] for part in ("engine", "api", "worker")
    }
    commands[dying] = [sys.executable, "-m", "tests.faults.dying_part", dying]
    with ExitStack() as stack:
        running = {}
        for part, command in commands.items():
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            running[part] = stack.enter_context(subprocess.Popen(command, env=env, text=True, **pipes))  # type: ignore[call-overload]
            stack.callback(running[part].kill)
        url = f"http://127.0.0.1:{env['CARREL_PORT']}"
        wait_for(lambda: _ready(url), what="the API")
        yield url, running[dying].stdout


def _ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/healthz").status_code == 200
    except httpx2.TransportError:
        return False


def _keys(url: str, folder: Path) -> list[str]:
    operator = {"Authorization": f"Bearer {(folder / 'operator.key').read_text().strip()}"}
    keys = []
    for name in TENANTS:
        assert httpx2.post(f"{url}/v1/admin/tenants", headers=operator, json={"name": name}).status_code == 201
        body = {"tenant": name, "name": "all", "scopes": ["query", "ingest"]}
        keys.append(httpx2.post(f"{url}/v1/admin/keys", headers=operator, json=body).json()["secret"])
    return keys


@pytest.mark.parametrize("part", POINTS)
def test_it_dies_at_every_point(tmp_path: Path, part: str) -> None:
    with _parts(tmp_path, part) as (url, lines):
        keys = _keys(url, tmp_path)
        lives = [TenantLife(*who, url, seed=number, words=30) for number, who in enumerate(zip(TENANTS, keys, strict=True))]
        enough = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            living = [pool.submit(life.live, enough) for life in lives]
            try:
                assert [lines.readline().strip() for _ in POINTS[part]] == list(POINTS[part])
            finally:
                enough.set()
            for each in living:
                each.result(120)
        converges(tmp_path, [life.truth for life in lives])
