"""Plans, suspension, import and deletion of tenants against a running service, as its operator uses it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from carrel_client import AuthenticationError, Carrel, NotFoundError, PermissionDeniedError
from tests.support import PATIENCE, Service, carrel, running_service, wait_for

TOLD_S = 1.0  # a change of standing holds within it
SLACK_S = 1.5 * PATIENCE  # of a machine that is busy


def _cli(service: Service, *arguments: str) -> Any:
    done = carrel(*arguments, "--json", env=service.env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _fill(client: Carrel, documents: int) -> None:
    for number in range(documents):
        client.documents.create(text=f"Oak {number} pine. " * 20, external_id=f"d{number}")


def test_a_plan_and_an_override_hold_within_a_second(quick: Service) -> None:
    name, client = quick.tenant()
    other = quick.tenant()[1]
    with quick.admin as admin:
        admin.admin.tenants.update(name, plan="starter", metadata={"crm": "4711"})
        assert {plan.name for plan in admin.admin.tenants.plans()} == {"starter", "professional", "enterprise"}
    shown = _cli(quick, "tenant", "override", name, "documents", "1", "--days", "1", "--reason", "trial")
    assert (shown["value"], shown["of_plan"], shown["source"]) == (1, 1_000, "override")
    time.sleep(TOLD_S)  # the statement that is shown: not a wait for luck
    client.documents.create(text="oak", external_id="one").wait()
    with pytest.raises(PermissionDeniedError) as refused:
        client.documents.create(text="pine", external_id="two")
    assert (refused.value.code, refused.value.field, refused.value.limit) == ("quota_exceeded", "documents", 1)
    _fill(other, 2)
    limits = {limit["name"]: limit for limit in _cli(quick, "tenant", "limits", name)["limits"]}
    assert (limits["documents"]["used"], limits["chunks"]["used"], limits["collections"]["used"]) == (1, 1, 1)
    with quick.admin as admin:
        assert admin.admin.tenants.restore(name, "documents").value == 1_000
    assert _cli(quick, "plan", "show", "starter")["documents"] == 1_000


def test_a_suspended_tenant_is_refused_everywhere_within_a_second(quick: Service) -> None:
    name, client = quick.tenant()
    other = quick.tenant()[1]
    _fill(client, 1)
    _cli(quick, "tenant", "suspend", name, "--reads", "--yes")
    told = time.monotonic()
    _until_refused(lambda: client.collections.create(name=f"c{time.monotonic_ns()}"), told)
    client.query("oak")
    assert client.usage().used >= 0
    with quick.admin as admin:
        admin.admin.tenants.suspend(name)
    told = time.monotonic()
    _until_refused(lambda: client.query("oak"), told)
    for call in (client.usage, lambda: client.documents.create(text="late"), lambda: [*client.documents.list()]):
        with pytest.raises(PermissionDeniedError) as refused:
            call()
        assert refused.value.code == "tenant_suspended"
    other.query("oak")
    with quick.admin as admin:
        assert admin.admin.tenants.resume(name).state == "active"
    wait_for(lambda: _answers(client), what="the tenant to be let in again", timeout_s=TOLD_S + SLACK_S)


def _answers(client: Carrel) -> bool:
    try:
        client.query("oak")
    except PermissionDeniedError:
        return False
    return True


def _until_refused(call: Any, told: float) -> None:
    while time.monotonic() < told + TOLD_S + SLACK_S:
        try:
            call()
        except PermissionDeniedError as refused:
            if refused.code == "tenant_suspended":
                return
            raise
    raise AssertionError("it is not refused")


def test_tenants_are_imported_from_a_file(quick: Service, tmp_path: Path) -> None:
    file = tmp_path / "customers.csv"
    file.write_text("name,plan,metadata.crm\nimported-one,starter,1\nimported two,,\n")
    done = carrel("tenant", "import", str(file), "--json", env=quick.env)
    assert done.returncode == 1
    assert [(one["name"], one["status"]) for one in json.loads(done.stdout)] == [
        ("imported-one", "created"),
        ("imported two", "refused"),
    ]
    with quick.admin as admin:
        assert admin.admin.tenants.get("imported-one").metadata == {"crm": "1"}


def test_a_tenant_that_is_deleted_is_refused_at_once(quick: Service) -> None:
    name, client = quick.tenant()
    asked = _cli(quick, "tenant", "delete", name, "--yes")
    assert (asked["name"], asked["state"]) == (name, "running")
    told = time.monotonic()
    while time.monotonic() < told + TOLD_S + SLACK_S:
        try:
            client.query("oak")
        except AuthenticationError:
            break
    with pytest.raises(AuthenticationError):
        client.query("oak")
    with quick.admin as admin:
        assert admin.admin.tenants.get(name).state == "deleting"
        assert asked["id"] in [one.id for one in admin.admin.tenants.deletions()]


@pytest.mark.full
def test_a_deleted_tenant_is_gone_and_its_receipt_says_so(quick: Service) -> None:
    name, client = quick.tenant()
    neighbour = quick.tenant()[1]
    for each in (client, neighbour):
        _fill(each, 5)
    receipt = _cli(quick, "tenant", "delete", name, "--yes", "--wait")
    assert (receipt["state"], set(receipt["after"].values())) == ("done", {0})
    assert receipt["before"]["documents"] == 5
    with quick.admin as admin:
        assert len([*admin.admin.audit.list(receipt["tenant_id"])]) >= 5
        for ask in (admin.admin.tenants.get, lambda name: [*admin.admin.audit.list(name)]):
            with pytest.raises(NotFoundError):
                ask(name)
    [verified] = _cli(quick, "audit", "verify", "--tenant", receipt["tenant_id"])
    assert (verified["chain"], verified["sound"], verified["entries"] >= 5) == (receipt["tenant_id"], True, True)
    assert len([*neighbour.documents.list()]) == 5


@pytest.mark.full
def test_a_worker_killed_while_it_deletes_a_tenant_goes_on(tmp_path: Path) -> None:
    with running_service(tmp_path, embedding_runtime="hash", sweep_seconds=0.3) as service:
        name, client = service.tenant()
        other = service.tenant()[1]
        for each in (client, other):
            _fill(each, 300)
        wait_for(lambda: not [*client.jobs.list(state="queued")], what="the documents", timeout_s=300)
        with service.admin as admin:
            deletion = admin.admin.tenants.delete(name)
            for _ in range(10):
                time.sleep(0.4)  # some way into it
                service.kill("worker")
            done = wait_for(
                lambda: (found := admin.admin.tenants.deletion(deletion.id)).state == "done" and found,
                what="the deletion",
                timeout_s=300,
            )
        assert set(done.after.values()) == {0}
        assert done.before["documents"] == 300
        assert len([*other.documents.list()]) == 300
