"""A tenant's secret is for that tenant and name, sealed at rest, and survives a change of the master key."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import select

from config.database import Database
from config.errors import InvalidInput, NotFound, TooLarge
from config.vault import CannotOpen, Vault
from tenants import secrets
from tenants.context import Principal, PrincipalKind, TenantContext
from tenants.secrets import MAX_VALUE_BYTES, Rewrapped, Secrets
from tenants.tables import TenantSecret
from tests.postgresql import ON_SQLITE
from tests.unit.conftest import SetClock

OLD, NEW = bytes(32), bytes([1]) * 32
A, B = (TenantContext(name, b"", Principal(PrincipalKind.JOB, "job", frozenset())) for name in "ab")


@pytest.fixture
def room(database: Database, clock: SetClock) -> Secrets:
    return Secrets(database, clock, Vault([OLD]))


def rows(room: Secrets) -> dict[tuple[str, str], TenantSecret]:
    with room.database.system_read() as session:
        return {(row.tenant_id, row.name): row for row in session.scalars(select(TenantSecret))}


def test_each_tenant_has_its_own(room: Secrets) -> None:
    one, two = room.for_tenant(A), room.for_tenant(B)
    one.put("provider.openai", "sk-of-a")
    two.put("provider.openai", "sk-of-b")
    one.put("webhook:whk_1", "whsec_é")
    assert (one.get("provider.openai"), two.get("provider.openai")) == ("sk-of-a", "sk-of-b")
    assert (one.names(), two.names()) == (["provider.openai", "webhook:whk_1"], ["provider.openai"])
    with pytest.raises(NotFound):
        two.get("webhook:whk_1")
    with pytest.raises(NotFound):
        two.delete("webhook:whk_1")
    one.delete("provider.openai")
    assert (one.names(), two.get("provider.openai")) == (["webhook:whk_1"], "sk-of-b")
    with pytest.raises(NotFound):
        one.get("provider.openai")


def test_a_secret_is_replaced_whole(room: Secrets, clock: SetClock) -> None:
    made = clock.now
    room.for_tenant(A).put("x", "first")
    clock.now += 1000
    room.for_tenant(A).put("x", "second")
    assert room.for_tenant(A).get("x") == "second"
    row = rows(room)["a", "x"]
    assert (row.created_at, row.updated_at) == (made, made + 1000)


@pytest.mark.parametrize(("tenant", "name"), [("b", "x"), ("a", "y"), ("b", "y")])
def test_a_row_that_is_copied_elsewhere_cannot_be_opened(room: Secrets, tenant: str, name: str) -> None:
    for context, own in itertools.product((A, B), "xy"):
        room.for_tenant(context).put(own, f"{context.tenant_id} {own}")
    with room.database.system_write() as session:
        stolen = rows(room)["a", "x"].sealed
        target = (TenantSecret.tenant_id == tenant, TenantSecret.name == name)
        session.execute(sa.update(TenantSecret).where(*target).values(sealed=stolen))
    with pytest.raises(CannotOpen):
        room.for_tenant(A if tenant == "a" else B).get(name)
    assert room.for_tenant(A).get("x") == "a x"


@ON_SQLITE  # the other one's files are its server's
def test_the_plaintext_is_nowhere_in_the_database_file(room: Secrets, tmp_path: Path) -> None:
    canary = "whsec_" + "canary" * 20
    for context in (A, B):
        room.for_tenant(context).put("x", "whsec_former" + canary)
        room.for_tenant(context).put("x", canary)
    room.database.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"tenant_secrets" in path.read_bytes() for path in files)
    assert not [path for path in files if b"canary" in path.read_bytes()]


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "é", "a" * 101, "a\n", "a/b"])
def test_a_name_outside_the_alphabet_is_refused(room: Secrets, name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        room.for_tenant(A).put(name, "x")
    assert refused.value.field == "name"


@pytest.mark.parametrize("value", ["", "a\0b", "\ud800"])
def test_a_value_that_is_no_text_is_refused(room: Secrets, value: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        room.for_tenant(A).put("x", value)
    assert refused.value.field == "value"


def test_size_is_bounded_in_bytes(room: Secrets) -> None:
    room.for_tenant(A).put("x", "é" * (MAX_VALUE_BYTES // 2))
    with pytest.raises(TooLarge):
        room.for_tenant(A).put("x", "é" * (MAX_VALUE_BYTES // 2) + "e")


def test_each_tenant_may_keep_so_many(room: Secrets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "MAX_SECRETS", 2)
    one = room.for_tenant(A)
    for name in "xy":
        one.put(name, "1")
    with pytest.raises(InvalidInput) as refused:
        one.put("z", "1")
    assert refused.value.limit == 2
    one.put("x", "2")  # replacing adds none
    room.for_tenant(B).put("z", "1")
    assert (one.names(), one.get("x"), room.for_tenant(B).names()) == (["x", "y"], "2", ["z"])


@pytest.mark.parametrize("page", [1, 2, 200])
def test_a_change_of_the_master_key(room: Secrets, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(secrets, "PAGE", page)
    for context, name in itertools.product((A, B), "xyz"):
        room.for_tenant(context).put(name, f"{context.tenant_id} {name}")
    both = Secrets(room.database, room.clock, Vault([NEW, OLD]))
    both.for_tenant(A).put("x", "a x")
    assert both.rewrap_all() == Rewrapped(rewrapped=5, current=1, unopened=0)
    assert both.rewrap_all() == Rewrapped(rewrapped=0, current=6, unopened=0)
    new = Secrets(room.database, room.clock, Vault([NEW]))
    assert all(new.for_tenant(c).get(name) == f"{c.tenant_id} {name}" for c, name in itertools.product((A, B), "xyz"))
    with pytest.raises(CannotOpen):
        room.for_tenant(B).get("x")


def test_what_no_key_opens_is_counted_and_left(room: Secrets) -> None:
    room.for_tenant(A).put("x", "kept")
    room.for_tenant(B).put("x", "kept")
    before = rows(room)["a", "x"].sealed
    assert Secrets(room.database, room.clock, Vault([NEW])).rewrap_all() == Rewrapped(rewrapped=0, current=0, unopened=2)
    assert rows(room)["a", "x"].sealed == before
    assert room.for_tenant(A).get("x") == "kept"


def test_what_was_replaced_meanwhile_is_not_overwritten(room: Secrets, monkeypatch: pytest.MonkeyPatch) -> None:
    room.for_tenant(A).put("x", "old")
    both = Secrets(room.database, room.clock, Vault([NEW, OLD]))
    rewrap = both.vault.rewrap

    def late(sealed: bytes, *, bound_to: str) -> bytes:
        both.for_tenant(A).put("x", "new")
        return rewrap(sealed, bound_to=bound_to)

    monkeypatch.setattr(both.vault, "rewrap", late)
    both.rewrap_all()
    assert both.for_tenant(A).get("x") == "new"


def test_an_empty_room_has_nothing_to_rewrap(room: Secrets) -> None:
    assert room.rewrap_all() == Rewrapped(0, 0, 0)
    assert room.for_tenant(A).names() == []
