"""The supervisor and its children: starting, refusing, restarting, stopping, and leaving nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import carrel_process, children, environment, running_service, start_service, wait_for

pytestmark = pytest.mark.xdist_group("processes")
FAST = {"embedding_runtime": "hash"}


@pytest.mark.parametrize(
    "name", ["engine", pytest.param("worker", marks=pytest.mark.full), pytest.param("api", marks=pytest.mark.full)]
)
def test_a_dead_child_is_replaced_and_work_goes_on(tmp_path: Path, name: str) -> None:
    with running_service(tmp_path, **FAST) as service:
        _, one = service.tenant()
        _, two = service.tenant()
        one.documents.create(text="before the death").wait()
        service.kill(name)
        one.documents.create(text="after the death").wait(timeout_s=60)
        assert {p.text for p in one.query("death").passages} == {"before the death", "after the death"}
        assert two.query("death").passages == []


@pytest.mark.full
def test_every_thread_of_a_polite_worker_gives_way(tmp_path: Path) -> None:
    """The model's own too, which are there before anybody says how the worker is scheduled."""
    with running_service(tmp_path, worker_scheduling="idle") as service:
        for name, policy in (("worker", os.SCHED_IDLE), ("api", os.SCHED_OTHER)):
            child = wait_for(lambda name=name: service.child(name), what=f"a living {name}")  # type: ignore[misc]
            tasks = [int(path.name) for path in Path(f"/proc/{child}/task").iterdir()]
            assert {os.sched_getscheduler(task) for task in tasks} == {policy}


def test_a_second_start_is_refused_and_sigterm_stops_every_process(tmp_path: Path) -> None:
    with running_service(tmp_path / "one", **FAST) as service:
        port = service.url.rpartition(":")[2]
        same_data = carrel_process("serve", env=environment(tmp_path / "one", **{**FAST, "port": port}))
        assert same_data.returncode != 0
        assert "already running" in same_data.stderr
        assert "CARREL_DATA_DIR" in same_data.stderr
        same_port = carrel_process("serve", env=environment(tmp_path / "two", **{**FAST, "port": port}))
        assert same_port.returncode != 0
        assert f"Port {port}" in same_port.stderr
        assert "CARREL_PORT" in same_port.stderr
        assert service.process.poll() is None
        pids = [service.process.pid, *children(service.process.pid)]
        assert len(pids) == 4
        assert service.stop() == 0
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), what="all processes to end")
    assert not (tmp_path / "one" / "service.json").exists()


def test_a_killed_supervisor_leaves_no_child_and_no_lock(tmp_path: Path) -> None:
    env = environment(tmp_path, **FAST)
    service = start_service(tmp_path, env)
    name, client = service.tenant()
    key = service.key(name)
    client.documents.create(text="kept").wait()
    pids = list(children(service.process.pid))
    service.process.kill()
    service.process.wait()
    wait_for(lambda: not any(_runs(pid) for pid in pids), what="the children to end")
    again = start_service(tmp_path, env)
    try:
        assert [p.text for p in again.client(key).query("kept").passages] == ["kept"]
    finally:
        again.stop()
        service.stop()


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_a_setting_that_cannot_work_ends_the_start_with_its_reason(tmp_path: Path) -> None:
    done = carrel_process("serve", env=environment(tmp_path, embedding_model="no-such-model"))
    assert done.returncode == 78
    assert "no-such-model" in done.stderr


def test_a_foreign_config_module_in_the_folder_is_harmless(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("raise SystemExit('the foreign config was imported')")
    done = subprocess.run(
        [shutil.which("carrel", path=Path(sys.executable).parent) or "carrel", "tenant", "--help"],
        cwd=tmp_path,
        env={**os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_foreign_config_module_on_the_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "api.cli.main", "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert str(tmp_path / "config.py") in done.stderr


@pytest.mark.full
def test_the_wheel_starts_beside_a_foreign_config_module(tmp_path: Path, repository: Path) -> None:
    """Built, installed into a folder that holds a stranger's config.py, and started from there."""
    source = tmp_path / "source"
    for name in ("config", "tenants", "rag", "ingestion", "api", "benchmarks", "client/src"):
        shutil.copytree(repository / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "client/pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, source / name)
    for project in (source, source / "client"):
        _python("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path / "wheels"), str(project))
    site = tmp_path / "site"
    wheels = sorted(map(str, (tmp_path / "wheels").glob("*.whl")))
    assert len(wheels) == 2
    _python("-m", "pip", "install", "-q", "--no-deps", "--target", str(site), *wheels)
    (site / "config.py").write_text("raise SystemExit('the foreign config was imported')")
    env = {**environment(tmp_path / "data", **FAST), "PYTHONPATH": str(site)}
    where = subprocess.run(
        [sys.executable, "-P", "-c", "import api; print(api.__file__)"], env=env, capture_output=True, text=True, check=True
    )
    assert where.stdout.startswith(str(site))
    service = start_service(tmp_path / "data", env)
    try:
        _, client = service.tenant()
        client.documents.create(text="from the wheel").wait()
        assert client.query("wheel").passages[0].text == "from the wheel"
    finally:
        assert service.stop() == 0


def _python(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("pages", [3, pytest.param(None, marks=pytest.mark.full)])
def test_the_demo_ends_with_its_figures(repository: Path, tmp_path: Path, pages: int | None) -> None:
    """Everyday it brings a few pages of the documentation: all of them take the model 30 s."""
    for page in sorted((repository / "docs").glob("*.md"), key=lambda page: page.stat().st_size)[:pages]:
        shutil.copy(page, tmp_path)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "api.cli.main", "demo", *(["--docs", str(tmp_path)] if pages else [])],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["tenants"] == 2
    assert figures["leaks"] == 0
    assert figures["answered"] == figures["queries"] > 0
    assert figures["documents"] > 4


def test_a_demo_that_is_interrupted_leaves_no_service(repository: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "api.cli.main", "demo"],
        cwd=repository,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    found = wait_for(lambda: children(process.pid), what="the demo's service")
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(_runs(pid) for pid in found), what="the service to end")
