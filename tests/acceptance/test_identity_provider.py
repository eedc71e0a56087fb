"""Users of an identity provider against a running service: what they see, who is refused, and how soon."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from carrel_client import APIError, Carrel, NotFoundError, PermissionDeniedError
from tenants.identity.oidc import user_id_of
from tests.identity_provider import AUDIENCE, Provider, identity_provider, pair
from tests.support import PATIENCE, Service, carrel, running_service, wait_for

TOLD_S = 1.0  # a change of standing holds within it
SLACK_S = 1.5 * PATIENCE  # of a machine that is busy
PLENTY = 20  # wrong keys of an address that are answered 401


@pytest.fixture
def provider() -> Iterator[Provider]:
    with identity_provider() as running:
        yield running


@pytest.fixture
def served(provider: Provider, tmp_path: Path) -> Iterator[Service]:
    with running_service(
        tmp_path,
        embedding_runtime="hash",
        oidc_issuer=provider.issuer,
        oidc_audience=AUDIENCE,
        oidc_labels_claim="groups",
        oidc_collections_claim="rooms",
        oidc_default_collections="*",
    ) as running:
        yield running


def test_users_see_their_tenant_and_labels_until_it_ends(served: Service, provider: Provider) -> None:
    name, client = served.tenant()
    other_name, other = served.tenant()
    for labels in ([], ["staff"]):
        client.documents.create(text=f"oak {labels}", external_id=f"oak{labels}", labels=labels).wait()
    other.documents.create(text="oak elsewhere", external_id="elsewhere", labels=["staff"]).wait()

    def seen(**claims: object) -> set[str]:
        with served.client(provider.token(**claims)) as user:
            return {passage.external_id for passage in user.query("oak").passages}

    assert seen(tenant=name) == {"oak[]"}
    assert seen(tenant=name, groups=["staff"]) == {"oak[]", "oak['staff']"}
    assert seen(tenant=other_name, groups=["staff"]) == {"elsewhere"}
    user = served.client(provider.token(tenant=name))
    for refused in (lambda: user.documents.create(text="pine"), user.usage, lambda: user.token(subject="ann")):
        with pytest.raises(PermissionDeniedError):
            refused()
    found = next(iter(other.documents.list()))
    with pytest.raises(NotFoundError):
        user.documents.get(found.id)

    nothing = served.client(provider.token(tenant=name, rooms=[]))
    assert [*user.jobs.list()] != []
    assert [*nothing.documents.list(), *nothing.jobs.list(), *nothing.collections.list()] == []
    with pytest.raises(NotFoundError):
        nothing.query("oak")

    with served.admin as admin:
        admin.admin.tenants.suspend(name)
    told = time.monotonic()
    assert wait_for(lambda: _refusal(served, provider.token(tenant=name)), what="a refusal") == "tenant_suspended"
    assert time.monotonic() - told < TOLD_S + SLACK_S
    assert seen(tenant=other_name) == set()

    listed = carrel("audit", "tail", "--tenant", other_name, "--json", env=served.env)
    entries = json.loads(listed.stdout)
    ids = {entry["principal_id"] for entry in entries if entry["principal_kind"] == "user"}
    assert ids == {user_id_of(provider.issuer, "ann")}

    _wrong_tokens_are_guesses(served, provider, other_name)


def _wrong_tokens_are_guesses(served: Service, provider: Provider, tenant: str) -> None:
    wrong = (
        provider.token(tenant=tenant, aud="other"),
        provider.token(pair(number=1), tenant=tenant),
        provider.token(tenant="nobodys"),
    )
    codes = []
    for number in range(PLENTY + 5):
        with (
            Carrel(api_key=wrong[number % 3], base_url=served.url, max_retries=0) as client,
            pytest.raises(APIError) as refused,
        ):
            client.query("oak")
        codes.append(refused.value.code)
    assert codes == ["unauthenticated"] * PLENTY + ["rate_limited"] * 5
    served.client(provider.token(tenant=tenant)).query("oak")  # who is known goes on from the same address


def _refusal(service: Service, token: str) -> str | None:
    with service.client(token) as user:
        try:
            user.query("oak")
        except PermissionDeniedError as error:
            return error.code
    return None
