"""The command line against a running service, as an operator uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import Service, carrel


def test_tenant_key_ingest_and_query(service: Service, tmp_path: Path) -> None:
    assert json.loads(carrel("tenant", "create", "cli-one", "--json", env=service.env).stdout)["name"] == "cli-one"
    carrel("tenant", "create", "cli-two", env=service.env)
    listed = carrel("tenant", "list", "--json", env=service.env)
    assert {"cli-one", "cli-two"} <= {tenant["name"] for tenant in json.loads(listed.stdout)}
    folder = tmp_path / "pile"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.md").write_text("# Bees\n\nBees sleep in winter.")
    (folder / "sub" / "b.txt").write_text("Wasps build with paper.")
    (folder / "ignored.bin").write_bytes(b"\0\1")
    first = json.loads(carrel("ingest", str(folder), "--tenant", "cli-one", "--json", env=service.env).stdout)
    assert (first["documents"], first["unchanged"], first["failed"]) == (2, 0, [])
    again = json.loads(carrel("ingest", str(folder), "--tenant", "cli-one", "--json", env=service.env).stdout)
    assert (again["unchanged"], again["tokens_charged"]) == (2, 0)
    found = json.loads(carrel("query", "what do wasps build with?", "-t", "cli-one", "--json", env=service.env).stdout)
    assert found["passages"][0]["external_id"] == "sub/b.txt"
    shown = carrel("query", "what do wasps build with?", "-t", "cli-one", env=service.env).stdout
    assert "sub/b.txt" in shown
    assert "Wasps build with paper." in shown
    other = json.loads(carrel("query", "wasps", "--tenant", "cli-two", "--json", env=service.env).stdout)
    assert other["passages"] == []


def test_a_key_is_made_used_listed_and_revoked(service: Service) -> None:
    carrel("tenant", "create", "cli-keys", env=service.env)
    made = json.loads(carrel("key", "create", "-t", "cli-keys", "--scope", "query", "--json", env=service.env).stdout)
    own = {**service.env, "CARREL_API_KEY": made["secret"]}
    assert carrel("query", "anything", env=own).stdout == "Nothing found.\n"
    listed = carrel("key", "list", "-t", "cli-keys", "--json", env=service.env).stdout
    assert made["secret"] not in listed
    assert made["id"] in listed
    carrel("key", "revoke", made["id"], env=service.env)
    refused = carrel("query", "anything", "--json", env=own)
    assert refused.returncode == 1
    assert json.loads(refused.stderr)["error"]["code"] == "unauthenticated"


def test_a_failing_file_is_reported_and_the_others_go_on(service: Service, tmp_path: Path) -> None:
    carrel("tenant", "create", "cli-fail", env=service.env)
    (tmp_path / "good.txt").write_text("Good.")
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.4 broken")
    done = carrel("ingest", str(tmp_path), "-t", "cli-fail", "--json", env=service.env)
    summary = json.loads(done.stdout)
    assert done.returncode == 1
    assert summary["documents"] == 1
    assert summary["failed"][0]["path"].endswith("bad.pdf")


def test_doctor_finds_a_healthy_service_healthy(service: Service) -> None:
    done = carrel("doctor", "--json", env=service.env)
    findings = json.loads(done.stdout)
    assert done.returncode == 0, findings
    assert {finding["part"] for finding in findings["findings"]} == {
        "versions",
        "disk",
        "database",
        "model",
        "engine",
        "service",
        "data",
    }


def test_doctor_says_what_to_do_about_a_missing_model(service: Service, tmp_path: Path) -> None:
    env = {**service.env, "CARREL_DATA_DIR": str(tmp_path), "CARREL_EMBEDDING_MODEL": "no-such-model"}
    done = carrel("doctor", env=env)
    assert done.returncode == 1
    assert "CARREL_EMBEDDING_MODEL" in done.stdout
    assert "carrel serve" in done.stdout


def test_a_setting_with_a_wrong_value_is_named(service: Service) -> None:
    done = carrel("tenant", "list", env={**service.env, "CARREL_PORT": "many"})
    assert done.returncode == 78
    assert done.stderr.startswith("carrel: CARREL_PORT: ")


@pytest.mark.parametrize("arguments", [("tenant", "show", "nobody"), ("query", "x"), ("key", "create", "-t", "nobody")])
def test_a_mistake_is_one_line_and_no_trace(service: Service, arguments: tuple[str, ...]) -> None:
    done = carrel(*arguments, env=service.env)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("carrel: ")
