"""The command line against a running service, as an operator uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import Service, carrel, carrel_process, environment


def last_line(text: str) -> Any:
    return json.loads(text.splitlines()[-1])


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
    first = last_line(carrel("ingest", str(folder), "--tenant", "cli-one", "--json", env=service.env).stdout)
    assert (first["documents"], first["unchanged"], first["failed"]) == (2, 0, [])
    again = last_line(carrel("ingest", str(folder), "--tenant", "cli-one", "--json", env=service.env).stdout)
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


EVIL = "Evil \x1b]0;owned\x07\x1b[31m oak\x9b2J \u202etxet\u2069 :key:"


def test_no_text_of_others_commands_a_terminal(quick: Service) -> None:
    """Whoever writes documents, turns or facts has a terminal of an operator print them."""
    name, client = quick.tenant()
    client.documents.create(text=f"{EVIL} {name}", title=EVIL, external_id=EVIL).wait()
    client.feedback.give(query=EVIL, document_id=next(client.documents.list()).id, useful=True, comment=EVIL)
    client.memories.add(f"{EVIL}.", subject=EVIL)
    session = client.sessions.create(subject=EVIL, title=EVIL)
    client.sessions.say(session.id, "user", EVIL)
    trace = client.query(EVIL).trace_id or ""
    commands = [
        *(["query", EVIL], ["feedback", "list"], ["memory", "list"], ["memory", "search", "oak", "-s", EVIL]),
        *(["session", "list"], ["session", "turns", session.id], ["session", "recall", "oak", "--session", session.id]),
        *(["replay", trace], ["audit", "tail"], ["document", "show", EVIL]),
    ]
    for command in [[*each, "--tenant", name] for each in commands] + [
        ["admin", "search", EVIL, "-t", name, "--reason", "why"]
    ]:
        shown = carrel(*command, env=quick.env)
        assert "Evil" in shown.stdout + shown.stderr or command[0] in ("audit", "document"), command
        assert not set("\x1b\x07\x9b\u202e\u2069") & {*shown.stdout, *shown.stderr}, command
    found = carrel("query", "oak", "--tenant", name, "--json", env=quick.env).stdout
    assert json.loads(found)["passages"][0]["external_id"] == EVIL
    assert not set("\x1b\x07\x9b") & {*found}
    other, _ = quick.tenant()
    assert carrel("query", "oak", "--tenant", other, env=quick.env).stdout == "Nothing found.\n"


def test_a_failing_file_is_reported_and_the_others_go_on(service: Service, tmp_path: Path) -> None:
    carrel("tenant", "create", "cli-fail", env=service.env)
    (tmp_path / "good.txt").write_text("Good.")
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.4 broken")
    done = carrel("ingest", str(tmp_path), "-t", "cli-fail", "--json", env=service.env)
    summary = last_line(done.stdout)
    assert done.returncode == 1
    assert summary["documents"] == 1
    assert summary["failed"][0]["path"].endswith("bad.pdf")


def test_jobs_and_events_are_listed_followed_and_ended(service: Service, tmp_path: Path) -> None:
    for name in ("cli-jobs", "cli-others"):
        carrel("tenant", "create", name, env=service.env)
    (tmp_path / "good.txt").write_text("Good. " * 300)
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.4 broken")
    noted = carrel("ingest", str(tmp_path), "-t", "cli-jobs", env=service.env).stderr
    assert "documents" in noted
    assert "chunks" in noted

    def run(*arguments: str, tenant: str = "cli-jobs") -> Any:
        done = carrel(*arguments, "-t", tenant, "--json", env=service.env)
        return json.loads(done.stdout) if done.returncode == 0 else json.loads(done.stderr)["error"]["code"]

    failed, succeeded = sorted(run("job", "list"), key=lambda job: str(job["state"]))
    assert (failed["state"], succeeded["state"]) == ("failed", "succeeded")
    assert run("job", "list", "--state", "failed") == [failed]
    assert len(run("job", "list", "--limit", "1")) == 1
    assert run("job", "list", tenant="cli-others") == []
    assert run("job", "show", failed["id"]) == failed
    assert run("job", "watch", succeeded["id"])["progress"]["fraction"] == 1.0
    assert run("job", "cancel", succeeded["id"])["state"] == "succeeded"
    assert run("job", "retry", succeeded["id"]) == "invalid_input"
    for verb in ("show", "watch", "cancel", "retry"):
        assert run("job", verb, failed["id"], tenant="cli-others") == "not_found"
    told = run("events", "--type", "document.", "--limit", "150")
    assert {event["subject"] for event in told} == {failed["document_id"], succeeded["document_id"]}
    assert run("events", "--type", "document.", "--limit", "1") == told[:1]
    shown = carrel("job", "list", "-t", "cli-jobs", env=service.env).stdout
    assert failed["id"] in shown
    assert "unreadable_document" in shown
    assert "document.queued" in carrel("events", "-t", "cli-jobs", env=service.env).stdout


def test_watching_a_failed_job_exits_with_one_and_shows_it(service: Service, tmp_path: Path) -> None:
    carrel("tenant", "create", "cli-watch", env=service.env)
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.4 broken")
    carrel("ingest", str(tmp_path), "-t", "cli-watch", env=service.env)
    (job,) = json.loads(carrel("job", "list", "-t", "cli-watch", "--json", env=service.env).stdout)
    done = carrel("job", "watch", job["id"], "-t", "cli-watch", env=service.env)
    assert done.returncode == 1
    assert "failed" in done.stdout
    assert job["error_detail"] in carrel("job", "show", job["id"], "-t", "cli-watch", env=service.env).stdout


def test_doctor_finds_a_healthy_service_healthy(service: Service) -> None:
    done = carrel_process("doctor", "--json", env=service.env)
    findings = json.loads(done.stdout)
    assert done.returncode == 0, findings
    assert {finding["part"] for finding in findings["findings"]} == {
        "versions",
        "disk",
        "secrets",
        "sandbox",
        "database",
        "model",
        "engine",
        "service",
        "data",
    }


def test_doctor_says_what_to_do_about_a_missing_model(service: Service, tmp_path: Path) -> None:
    env = {**service.env, "CARREL_DATA_DIR": str(tmp_path), "CARREL_EMBEDDING_MODEL": "no-such-model"}
    done = carrel_process("doctor", env=env)
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


def test_a_bridge_without_a_key_that_is_one_says_so_in_a_line(quick: Service) -> None:
    done = carrel("mcp", env={**quick.env, "CARREL_API_KEY": "carrel_wrong"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("carrel: 401 ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("typed", "offered"), [(["tenant", "su"], {"suspend"}), (["query", "--te"], {"--tenant"})])
def test_a_shell_completes_commands_and_options(tmp_path: Path, typed: list[str], offered: set[str]) -> None:
    words = " ".join(("carrel", *typed))
    asked = {"_CARREL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(typed))}
    done = carrel(env={**environment(tmp_path / "none"), **asked})
    assert (done.returncode, {*done.stdout.split()}) == (0, offered), done.stderr
    assert not (tmp_path / "none").exists()


def test_the_completion_of_the_shell_that_asks_is_shown(tmp_path: Path) -> None:
    script = f"{sys.executable} -P -m api.cli.main --show-completion; true"  # not the last: bash would give way to it
    env = environment(tmp_path / "none")
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True, timeout=60)
    assert "_CARREL_COMPLETE=complete_bash" in done.stdout
    assert done.stdout.rstrip().endswith(" carrel")
