"""Lists of the running service: complete by pages, and no page opens with somebody else's cursor."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.support import Service


def _get(service: Service, key: str, path: str, **params: Any) -> httpx2.Response:
    return httpx2.get(f"{service.url}{path}", params=params, headers={"authorization": f"Bearer {key}"})


@pytest.fixture
def keys(service: Service) -> tuple[tuple[str, str], tuple[str, str]]:
    """Two tenants, each with its name and a key, three documents and three collections."""
    made = []
    for _ in range(2):
        name, carrel = service.tenant()
        for number in range(3):
            carrel.documents.create(text=f"text {number}", external_id=str(number)).wait()
        for collection in ("x", "y"):
            carrel.collections.create(name=collection)
        made.append((name, service.key(name)))
    return made[0], made[1]


@pytest.mark.parametrize("path", ["/v1/documents", "/v1/collections"])
def test_a_tenants_list_goes_on_for_that_tenant_only(
    service: Service, keys: tuple[tuple[str, str], tuple[str, str]], path: str
) -> None:
    (_, mine), (_, theirs) = keys
    whole = _get(service, mine, path).json()
    assert (len(whole["data"]), whole["next"]) == (3, None)
    first = _get(service, mine, path, limit=2).json()
    rest = _get(service, mine, path, limit=2, after=first["next"]).json()
    assert [*first["data"], *rest["data"]] == whole["data"]
    assert rest["next"] is None
    assert first["data"][-1]["id"] not in first["next"]
    refused = [
        _get(service, theirs, path, after=first["next"]),
        _get(service, mine, path, after=first["data"][-1]["id"]),
        _get(service, mine, path, after=first["next"], other="filter"),
        _get(service, mine, "/v1/collections" if path == "/v1/documents" else "/v1/documents", after=first["next"]),
    ]
    assert {response.status_code for response in refused} == {422}
    answers = [response.json() for response in refused]
    assert len({answer.pop("request_id") for answer in answers}) == len(answers)
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["field"] == "after"


def test_the_operators_lists_go_on_too(service: Service, keys: tuple[tuple[str, str], tuple[str, str]]) -> None:
    (one, mine), (two, _) = keys
    operator = (service.data_dir / "operator.key").read_text().strip()
    service.key(one)
    for path, filters in (("/v1/admin/tenants", {}), ("/v1/admin/keys", {"tenant": one})):
        first = _get(service, operator, path, limit=1, **filters).json()
        second = _get(service, operator, path, limit=1, after=first["next"], **filters).json()
        assert first["data"][0]["id"] < second["data"][0]["id"]
        assert _get(service, mine, path, after=first["next"], **filters).status_code == 403
    foreign = _get(service, operator, "/v1/admin/keys", tenant=two, after=first["next"])
    assert (foreign.status_code, foreign.json()["field"]) == (422, "after")
    with service.admin as admin:
        assert {one, two} <= {tenant.name for tenant in admin.admin.tenants.list()}
