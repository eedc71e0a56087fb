"""Changing the master key as an operator does: new key, former key, `carrel secrets rewrap`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.wiring.core import Core, build_core
from config.settings import Settings
from config.vault import CannotOpen
from tenants.secrets import Secrets, TenantSecrets
from tests.support import carrel, carrel_process, environment

KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in range(3)]
TENANTS = ("one", "two")


@contextmanager
def core_of(data_dir: Path, key: str) -> Iterator[Core]:
    core = build_core(Settings(data_dir=data_dir, secret_key=key))  # type: ignore[arg-type]
    yield core
    core.database.close()


def room(core: Core, tenant: str) -> TenantSecrets:
    context = core.registry.context_of_job(core.registry.get(tenant).id, "job")
    return Secrets(core.database, core.clock, core.vault).for_tenant(context)


def test_a_change_of_the_master_key(tmp_path: Path) -> None:
    with core_of(tmp_path, KEYS[0]) as core:
        for name in TENANTS:
            core.registry.create(name, monthly_tokens=None)
            room(core, name).put("x", f"whsec_of_{name}")

    alone = environment(tmp_path, secret_key=KEYS[1])
    lost = carrel("secrets", "rewrap", env=alone)
    assert (lost.returncode, "CARREL_PREVIOUS_SECRET_KEYS" in lost.stdout) == (1, True)

    both = {**alone, "CARREL_PREVIOUS_SECRET_KEYS": f"{KEYS[2]},{KEYS[0]}"}
    first, second = (carrel("secrets", "rewrap", "--json", env=both) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    counts = [{name: json.loads(run.stdout)[name] for name in ("rewrapped", "current", "unopened")} for run in (first, second)]
    assert counts[0] == {"rewrapped": 2, "current": 0, "unopened": 0}
    assert counts[1] == {"rewrapped": 0, "current": 2, "unopened": 0}

    with core_of(tmp_path, KEYS[1]) as core:
        assert [room(core, name).get("x") for name in TENANTS] == ["whsec_of_one", "whsec_of_two"]
        assert json.loads(first.stdout)["key"] == core.vault.key_id
    with core_of(tmp_path, KEYS[0]) as core, pytest.raises(CannotOpen):
        room(core, "one").get("x")
    printed = "".join(run.stdout + run.stderr for run in (lost, first, second))
    assert not [secret for secret in (*KEYS, "whsec_of") if secret in printed]


def test_rewrapping_makes_no_database_where_there_is_none(tmp_path: Path) -> None:
    run = carrel("secrets", "rewrap", "--json", env=environment(tmp_path))
    assert (run.returncode, json.loads(run.stderr)["error"]["code"]) == (78, "setup_error")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("command", [["secrets", "rewrap"], ["serve"]])
def test_a_malformed_key_stops_a_command_and_is_not_shown(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "carrel.db").touch()
    run = carrel_process(*command, env=environment(tmp_path, secret_key="my-malformed-key", embedding_runtime="hash"))
    assert run.returncode == 78
    assert "CARREL_SECRET_KEY" in run.stderr
    assert "my-malformed-key" not in run.stdout + run.stderr


def finding(tmp_path: Path, **settings: object) -> dict[str, object]:
    run = carrel("doctor", "--json", env=environment(tmp_path, embedding_runtime="hash", **settings))
    (found,) = (item for item in json.loads(run.stdout)["findings"] if item["part"] == "secrets")
    assert not [key for key in KEYS if key in run.stdout + run.stderr]
    return dict(found)


def test_doctor_says_where_the_master_key_is_and_never_shows_it(tmp_path: Path) -> None:
    before = finding(tmp_path)
    assert (before["ok"], "no master key yet" in str(before["detail"])) == (True, True)
    given = finding(tmp_path, secret_key=KEYS[0])
    assert (given["ok"], "from CARREL_SECRET_KEY" in str(given["detail"])) == (True, True)
    assert not finding(tmp_path, secret_key="malformed")["ok"]
    assert [*tmp_path.iterdir()] == []
    path = tmp_path / "secrets" / "master.key"
    path.parent.mkdir()
    path.write_text(KEYS[0])
    path.chmod(0o644)
    open_to_others = finding(tmp_path)
    assert (open_to_others["ok"], str(path) in str(open_to_others["advice"])) == (False, True)
    path.chmod(0o600)
    kept = finding(tmp_path)
    assert (kept["ok"], str(path) in str(kept["detail"])) == (True, True)
    assert str(kept["detail"]).split(" from ")[0] == str(given["detail"]).split(" from ")[0]  # the key's public id
