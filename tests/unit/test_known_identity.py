"""Who asks is known without SQL, and what was taken away is refused within a second all the same."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlmodel import col

from config.database import Database
from config.errors import Forbidden, InvalidInput, Unauthenticated
from tenants.context import TENANT_SCOPES, Scope
from tenants.identity.authenticator import Identifier, Identity
from tenants.identity.changes import LOOK_BACK_MS, TRUST_S, Changes
from tenants.identity.keys import KeyRing, make_secret
from tenants.identity.tokens import MAX_CHARS, TokenSigner, Wish
from tenants.standing import ACTIVE, Standing
from tenants.tables import ApiKey, Tenant
from tests.unit.conftest import SetClock

SIGNING_KEY = secrets.token_bytes(32)


@dataclass
class Process:
    """An api process of its own: what another one changes it learns from the database alone."""

    keys: KeyRing
    tokens: TokenSigner
    identifier: Identifier


@dataclass
class World:
    database: Database
    clock: SetClock
    monotonic: SetClock = field(default_factory=lambda: SetClock(0))
    statements: list[str] = field(default_factory=list)

    def process(self) -> Process:
        keys, tokens = KeyRing(self.database, self.clock), TokenSigner(SIGNING_KEY, self.clock)
        identifier = Identifier(self.database, keys, tokens, self.clock)
        identifier._changes = Changes(
            self.database, self.clock, identifier._forget, monotonic=lambda: self.monotonic.now / 1000
        )
        return Process(keys, tokens, identifier)

    def later(self, seconds: float) -> None:
        self.monotonic.now += int(seconds * 1000)
        self.clock.now += int(seconds * 1000)

    def change(self, tenant_id: str, **values: Any) -> None:
        with self.database.system_write() as session:
            session.execute(sa.update(Tenant).where(col(Tenant.id) == tenant_id).values(changed_at=self.clock.now, **values))


@pytest.fixture
def world(database: Database, clock: SetClock) -> Iterator[World]:
    world = World(database, clock)

    def seen(*args: Any) -> None:
        if "set_config" not in args[2]:  # PostgreSQL's role of the transaction
            world.statements.append(args[2])

    event.listen(database.engine, "before_cursor_execute", seen)
    yield world
    event.remove(database.engine, "before_cursor_execute", seen)


def _refused(identify: Callable[[], Identity]) -> bool:
    try:
        identify()
    except Unauthenticated:
        return True
    return False


def test_a_known_key_runs_no_statement_and_one_look_a_second_serves_all(world: World) -> None:
    here = world.process()
    secrets_of = [here.keys.create(name, name="k", scopes=[Scope.QUERY]).secret for name in "ab"]
    for secret in secrets_of:
        here.identifier.identify(secret)
    world.statements.clear()
    for _ in range(100):
        for secret, tenant in zip(secrets_of, "ab", strict=True):
            identity = here.identifier.known(secret) or here.identifier.identify(secret)
            assert identity.tenant is not None
            assert identity.tenant.tenant_id == tenant
        world.later(0.05)
    assert 5 <= len(world.statements) <= 6, world.statements
    assert all("changed_at" in statement for statement in world.statements)


def test_what_another_process_revokes_is_refused_within_a_second(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = world.process(), world.process()
    monkeypatch.setattr("tenants.identity.changes._OF_THIS_PROCESS", {here.identifier._changes})
    new, other = (here.keys.create("a", name="k", scopes=[Scope.QUERY]) for _ in range(2))
    token, _ = here.tokens.issue_for(_context(there.identifier.identify(new.secret)), Wish([Scope.QUERY], 900, "ann"))
    assert not _refused(lambda: there.identifier.identify(token))
    there.identifier.identify(other.secret)
    here.keys.revoke(new.row.id)
    assert _refused(lambda: here.identifier.identify(new.secret)), "the process that revoked it waits for nothing"
    assert there.identifier.known(new.secret) is not None
    world.later(TRUST_S)
    for credential in (new.secret, token):
        assert there.identifier.known(credential) is None
        assert _refused(lambda credential=credential: there.identifier.identify(credential))  # type: ignore[misc]
    assert there.identifier.known(other.secret) is not None, "what did not change is still known"


@pytest.mark.parametrize(
    ("values", "standing"),
    [
        ({"suspended_at": 1}, Standing(True, False)),
        ({"suspended_at": 1, "suspended_reads": True}, Standing(True, True)),
        ({"deleted_at": 1}, None),
    ],
)
def test_a_tenants_standing_is_known_within_a_second(world: World, values: Any, standing: Standing | None) -> None:
    here = world.process()
    key = here.keys.create("a", name="k", scopes=[Scope.QUERY]).secret
    others = here.keys.create("b", name="k", scopes=[Scope.QUERY]).secret
    here.keys.ensure_operator("carrel_key_op_x")
    operators, _ = here.tokens.issue("a", key_id="key_op", wish=Wish([Scope.QUERY], 900))
    for credential in (key, others, operators):
        assert here.identifier.identify(credential).standing == ACTIVE
    told: list[str | None] = []
    here.identifier.on_change.append(told.append)
    world.change("a", **values)
    world.later(TRUST_S)
    for credential in (key, operators):
        if standing is None:
            assert _refused(lambda credential=credential: here.identifier.identify(credential))  # type: ignore[misc]
        else:
            assert here.identifier.identify(credential).standing == standing
    assert here.identifier.identify(others).standing == ACTIVE
    assert told == ["a"]
    world.change("a", suspended_at=None, deleted_at=None)
    world.later(TRUST_S)
    assert here.identifier.identify(key).standing == ACTIVE


def test_a_change_that_commits_late_or_by_a_slow_clock_is_seen(world: World) -> None:
    here = world.process()
    key = here.keys.create("a", name="k", scopes=[Scope.QUERY])
    here.identifier.identify(key.secret)
    with world.database.system_write() as session:
        slow = world.clock.now - LOOK_BACK_MS + 5000
        values = {"revoked_at": slow, "changed_at": slow}
        session.execute(sa.update(ApiKey).where(col(ApiKey.id) == key.row.id).values(values))
    world.later(TRUST_S)
    assert _refused(lambda: here.identifier.identify(key.secret))


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_was_revoked_before_a_quiet_hour_is_refused_after_it(world: World, elsewhere: bool) -> None:
    here, there = world.process(), world.process()
    new, other = (here.keys.create(tenant, name="k", scopes=[Scope.QUERY]) for tenant in "ab")
    for secret in (new.secret, other.secret):
        here.identifier.identify(secret)
    world.later(30)
    (there if elsewhere else here).keys.revoke(new.row.id)
    world.later(3600)
    assert _refused(lambda: here.identifier.identify(new.secret))
    assert not _refused(lambda: here.identifier.identify(other.secret))


def test_a_change_is_seen_across_a_step_of_the_clock(world: World) -> None:
    here = world.process()
    for step_s in (7200, -7200):
        key = here.keys.create("a", name="k", scopes=[Scope.QUERY])
        here.identifier.identify(key.secret)
        here.keys.revoke(key.row.id)
        world.clock.now += step_s * 1000
        assert _refused(lambda key=key: here.identifier.identify(key.secret))  # type: ignore[misc]


def test_more_changes_than_are_told_apart_forget_everything(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenants.identity.changes.MOST", 0)
    here = world.process()
    key = here.keys.create("a", name="k", scopes=[Scope.QUERY]).secret
    here.identifier.identify(key)
    world.change("b")
    world.later(TRUST_S)
    told: list[str | None] = []
    here.identifier.on_change.append(told.append)
    here.identifier._changes.look()
    assert here.identifier._kept == {}
    assert told == [None], "whoever keeps something else of tenants forgets it too"
    assert not _refused(lambda: here.identifier.identify(key))


def test_while_the_database_does_not_answer_nobody_is_let_in_for_longer_than_a_second(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world.process()
    key = here.keys.create("a", name="k", scopes=[Scope.QUERY]).secret
    here.identifier.identify(key)

    def down(*_: Any) -> None:
        raise OperationalError("x", None, Exception())

    monkeypatch.setattr(world.database, "system_read", down)
    assert here.identifier.known(key) is not None
    world.later(TRUST_S)
    assert here.identifier.known(key) is None
    with pytest.raises(OperationalError):
        here.identifier.identify(key)
    monkeypatch.undo()
    assert not _refused(lambda: here.identifier.identify(key))


def test_what_was_read_before_a_change_is_not_kept_after_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = world.process(), world.process()
    new = here.keys.create("a", name="k", scopes=[Scope.QUERY])
    there.identifier.identify(new.secret)
    row = there.keys.row(new.row.id)

    def late(_key_id: str) -> ApiKey | None:
        here.keys.revoke(new.row.id)  # after the row was read
        world.later(TRUST_S)
        there.identifier._changes.look()
        return row

    there.identifier._forget(None)
    monkeypatch.setattr(there.keys, "row", late)
    there.identifier.identify(new.secret)  # this one request had begun before
    monkeypatch.undo()
    assert there.identifier.known(new.secret) is None
    assert _refused(lambda: there.identifier.identify(new.secret))


def test_an_expired_key_is_refused_from_that_moment_on(world: World) -> None:
    here = world.process()
    key = here.keys.create("a", name="k", scopes=[Scope.QUERY], expires_at=world.clock.now + 500)
    token, _ = here.tokens.issue_for(_context(here.identifier.identify(key.secret)), Wish([Scope.QUERY], 900, "ann"))
    assert here.identifier.known(token) is not None
    world.clock.now += 500
    for credential in (key.secret, token):
        assert here.identifier.known(credential) is None
        assert _refused(lambda credential=credential: here.identifier.identify(credential))  # type: ignore[misc]
    with pytest.raises(InvalidInput):
        here.keys.create("a", name="k", scopes=[Scope.QUERY], expires_at=world.clock.now)


def test_a_wrong_secret_of_a_known_key_is_refused(world: World) -> None:
    here = world.process()
    key = here.keys.create("a", name="k", scopes=[Scope.QUERY]).secret
    here.identifier.identify(key)
    assert here.identifier.known(key[:-1]) is None
    ran = []
    for wrong in (key[:-1], make_secret("key_nobodys")):
        world.statements.clear()
        assert _refused(lambda wrong=wrong: here.identifier.identify(wrong))  # type: ignore[misc]
        ran.append([*world.statements])
    assert ran[0] == ran[1], "which keys there are cannot be told by what is run"


@pytest.mark.parametrize(
    ("allowed", "address", "admitted"),
    [
        (None, None, True),
        (["192.0.2.7"], "192.0.2.7", True),
        (["192.0.2.7"], "192.0.2.8", False),
        (["192.0.2.0/24", "2001:db8::/32"], "2001:db8::1", True),
        (["192.0.2.0/24"], "::ffff:192.0.2.9", True),
        (["192.0.2.0/24"], "unknown", False),
        (["192.0.2.0/24"], None, False),
        ([], "192.0.2.7", False),
    ],
)
def test_a_key_is_used_from_its_addresses_only(
    world: World, allowed: list[str] | None, address: str | None, admitted: bool
) -> None:
    here = world.process()
    key = here.keys.create("a", name="k", scopes=[Scope.QUERY], allowed_addresses=allowed).secret
    for _ in range(2):  # looked up, and known
        assert _refused(lambda: here.identifier.identify(key, address)) is not admitted
        assert (here.identifier.known(key, address) is not None) is admitted


def test_addresses_must_be_some(world: World) -> None:
    here = world.process()
    for wrong in (["nowhere"], ["192.0.2.0/33"], ["192.0.2.1"] * 101):
        with pytest.raises(InvalidInput) as refused:
            here.keys.create("a", name="k", scopes=[Scope.QUERY], allowed_addresses=wrong)
        assert refused.value.field == "allowed_addresses"


def test_last_use_is_noted_late_and_never_goes_back(world: World) -> None:
    here, there = world.process(), world.process()
    new = here.keys.create("a", name="k", scopes=[Scope.QUERY])
    unused = here.keys.create("b", name="k", scopes=[Scope.QUERY])
    here.identifier.identify(new.secret)
    early = here.identifier.take_used()
    world.later(5)
    there.identifier.identify(new.secret)
    there.keys.note_used(there.identifier.take_used())
    assert here.keys.get(new.row.id).last_used_at == world.clock.now
    here.keys.note_used(early)
    assert here.keys.get(new.row.id).last_used_at == world.clock.now
    assert here.keys.get(unused.row.id).last_used_at is None
    assert here.identifier.take_used() == {}


def _context(identity: Identity) -> Any:
    assert identity.tenant is not None
    return identity.tenant


def test_a_token_allows_what_it_asks_for_and_its_key_has(world: World) -> None:
    here = world.process()
    key = here.keys.create("a", name="k", scopes=[Scope.QUERY, Scope.INGEST], collections=["one", "two"], labels=["x", "y"])
    context = _context(here.identifier.identify(key.secret))
    wish = Wish([Scope.QUERY], 900, "ann", ["one"], ["y"], read_only=True)
    identity = here.identifier.identify(here.tokens.issue_for(context, wish)[0])
    assert (identity.principal.scopes, identity.principal.read_only) == ({Scope.QUERY}, True)
    assert identity.principal.key_id == key.row.id
    found = _context(identity)
    assert (found.tenant_id, found.subject, found.collections, found.labels) == ("a", "ann", {"one"}, {"y"})
    assert found.principal == identity.principal
    all_of_it = _context(here.identifier.identify(here.tokens.issue_for(context, Wish([Scope.INGEST], 900, "bob"))[0]))
    assert (all_of_it.collections, all_of_it.labels, all_of_it.subject) == ({"one", "two"}, {"x", "y"}, "bob")
    assert found.speaking_for(None) == found.speaking_for("ann") == "ann"
    with pytest.raises(Forbidden):
        found.speaking_for("bob")
    assert context.speaking_for("bob") == "bob"


@pytest.mark.parametrize(
    "wish",
    [
        Wish([Scope.MANAGE], 900, "ann"),
        Wish([Scope.QUERY], 900, "ann", ["three"]),
        Wish([Scope.QUERY], 900, "ann", ["one", "three"]),
        Wish([Scope.QUERY], 900, "ann", None, ["z"]),
    ],
)
def test_a_token_beyond_its_key_is_not_made(world: World, wish: Wish) -> None:
    here = world.process()
    key = here.keys.create("a", name="k", scopes=[Scope.QUERY], collections=["one"], labels=["x"])
    context = _context(here.identifier.identify(key.secret))
    with pytest.raises(Forbidden):
        here.tokens.issue_for(context, wish)
    token, _ = here.tokens.issue_for(context, Wish([Scope.QUERY], 900, "ann"))
    with pytest.raises(Forbidden):
        here.tokens.issue_for(_context(here.identifier.identify(token)), Wish([Scope.QUERY], 900, "bob"))


def test_a_token_that_claims_more_than_its_key_has_gets_what_the_key_has(world: World) -> None:
    here = world.process()
    key = here.keys.create("a", name="k", scopes=[Scope.QUERY], collections=["one"], read_only=True)
    token, _ = here.tokens.issue("a", key_id=key.row.id, wish=Wish(TENANT_SCOPES, 900, "ann", ["one", "two"]))
    identity = here.identifier.identify(token)
    assert (identity.principal.scopes, identity.principal.read_only) == ({Scope.QUERY}, True)
    assert _context(identity).collections == {"one"}
    foreign, _ = here.tokens.issue("b", key_id=key.row.id, wish=Wish([Scope.QUERY], 900, "ann"))
    assert _refused(lambda: here.identifier.identify(foreign))


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        (Wish([Scope.QUERY], 900, ""), "subject"),
        (Wish([Scope.QUERY], 900, "s" * 201), "subject"),
        (Wish([Scope.QUERY], 900, "a\0b"), "subject"),
        (Wish([Scope.QUERY], 900, "ann", ["c"] * 101), "collections"),
        (Wish([Scope.QUERY], 900, "ann", None, [""]), "labels"),
        (Wish([Scope.QUERY], 900, "ann", None, [f"{n:0100d}" for n in range(MAX_CHARS // 100)]), "labels"),
    ],
)
def test_tokens_outside_the_rules_are_not_made(world: World, wish: Wish, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        world.process().tokens.issue("a", key_id="key_x", wish=wish)
    assert refused.value.field == field


def test_memory_of_keys_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenants.identity.authenticator.MAX_KEPT", 3)
    here = world.process()
    made = [here.keys.create("a", name="k", scopes=[Scope.QUERY]).secret for _ in range(5)]
    assert [not _refused(lambda key=key: here.identifier.identify(key)) for key in made] == [True] * 5  # type: ignore[misc]
    assert [here.identifier.known(key) is not None for key in made] == [False, False, True, True, True]
