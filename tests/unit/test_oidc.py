"""JWTs of the operator's identity provider: one that is wrong in anything lets nobody in, and what it lacks never widens."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jwt
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from sqlmodel import col

from api.wiring.core import Core
from api.wiring.gates import _users
from api.wiring.identity_provider import build_users
from config.database import Database
from config.errors import SetupError, Unauthenticated, Unavailable
from config.settings import Settings
from tenants.context import PrincipalKind, Scope, TenantContext
from tenants.identity.authenticator import Identifier, Identity
from tenants.identity.changes import TRUST_S, Changes
from tenants.identity.keys import KeyRing
from tenants.identity.oidc import LEEWAY_S, MAX_CHARS, OidcUsers, user_id_of
from tenants.identity.oidc_keys import AGAIN_S, MAX_KEYS, SigningKeys
from tenants.identity.tokens import TokenSigner, Wish
from tenants.registry import TenantRegistry
from tenants.standing import ACTIVE, Standing
from tenants.tables import Tenant
from tests.identity_provider import AUDIENCE, Pair, Provider, identity_provider, joined, pair, rsa_key, segments
from tests.sites import page, redirect
from tests.unit.conftest import SetClock

CLAIMS = {"oidc_scopes_claim": "scope", "oidc_labels_claim": "groups", "oidc_collections_claim": "rooms"}


@pytest.fixture
def clock() -> SetClock:
    return SetClock(int(time.time()) * 1000)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with identity_provider() as running:
        yield running


def _core(provider: Provider, clock: SetClock, **settings: Any) -> Core:
    chosen = {"oidc_issuer": provider.issuer, "oidc_audience": AUDIENCE, **settings}
    return cast(Core, SimpleNamespace(settings=Settings(**chosen), clock=clock, registry=None))


def _accepted(provider: Provider, clock: SetClock, token: str, **settings: Any) -> bool:
    return build_users(_core(provider, clock, **settings)).verify(token, ask=True) is not None


# --- what is wrong in a token


def _with_header(provider: Provider, **header: Any) -> str:
    """A token whose header says this, under the signature of another header: what comes before the signature is checked."""
    _, payload, signature = segments(provider.token(tenant="a"))
    return joined(json.dumps({"alg": "RS256", "kid": "one", **header}).encode(), payload, signature)


def _pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))


def _hmac(provider: Provider, secret: bytes) -> str:
    """HS256 with what is public as the secret."""
    header = json.dumps({"alg": "HS256", "typ": "JWT", "kid": "one"}).encode()
    signed = joined(header, json.dumps(provider.claims(tenant="a")).encode())
    return f"{signed}.{joined(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def _claims(**claims: Any) -> Callable[[Provider], str]:
    return lambda provider: provider.token(tenant=claims.pop("tenant", "a"), **claims)


def _signed_header(**header: Any) -> Callable[[Provider], str]:
    """Signed as it is, past what the library would not write."""

    def token(provider: Provider) -> str:
        signed = joined(
            json.dumps({"alg": "RS256", "kid": "one", **header}).encode(), json.dumps(provider.claims(tenant="a")).encode()
        )
        return f"{signed}.{joined(provider.signer.private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    return token


def _now() -> int:
    return int(time.time())


HOSTILE: dict[str, Callable[[Provider], str]] = {
    "alg none": lambda p: jwt.encode(p.claims(tenant="a"), "", "none", headers={"kid": "one"}),
    "alg None, no signature": lambda p: _with_header(p, alg="None").rsplit(".", 1)[0] + ".",
    "HS256 with the public key": lambda p: _hmac(p, _pem(p.signer.private)),
    "HS256 with the JWK": lambda p: _hmac(p, json.dumps(p.keys[0]).encode()),
    "HS256 with nothing": lambda p: _hmac(p, b""),
    "an algorithm that is not taken": lambda p: p.token(Pair("one", "RS512", p.signer.private), tenant="a"),
    "PS256 by a key for RS256": lambda p: p.token(Pair("one", "PS256", p.signer.private), tenant="a"),
    "an algorithm that is a list": lambda p: _with_header(p, alg=["RS256"]),
    "no algorithm": lambda p: _with_header(p, alg=None),
    "another's key under our kid": lambda p: p.token(pair("one", number=1), tenant="a"),
    "another's key in the header": lambda p: p.sign(
        p.claims(tenant="a"), pair("one", number=1), jwk=pair("one", number=1).jwk(), jku=p.site.url("/keys")
    ),
    "unknown kid": lambda p: p.token(pair("two", number=1), tenant="a"),
    "kid of another's file": lambda p: _with_header(p, kid="../../../dev/null"),
    "kid with SQL": lambda p: _with_header(p, kid="one' OR '1'='1"),
    "kid that is a number": lambda p: _with_header(p, kid=1),
    "kid that is an object": lambda p: _with_header(p, kid={"one": 1}),
    "kid with NUL": lambda p: _with_header(p, kid="one\0"),
    "huge kid": lambda p: _with_header(p, kid="1" * 10_000),
    "critical header": _signed_header(crit=["b64"], b64=True),
    "unknown critical header": _signed_header(crit=["exp"], exp=1),
    "detached": lambda p: _with_header(p, b64=False, crit=["b64"]),
    "header too deep": lambda p: joined(b"[" * 9000, *segments(p.token(tenant="a"))[1:]),
    "header no JSON": lambda p: joined(b"{", *segments(p.token(tenant="a"))[1:]),
    "other payload": lambda p: joined(
        *(segments(p.token())[0], json.dumps(p.claims(tenant="b")).encode(), segments(p.token(tenant="a"))[2])
    ),
    "no signature": lambda p: p.token(tenant="a").rpartition(".")[0] + ".",
    "huge": _claims(filler="x" * MAX_CHARS),
    "only dots": lambda _: "..",
    "not ASCII": lambda p: p.token(tenant="a") + "é",
    "other audience": _claims(aud="https://other.example"),
    "audience that only begins alike": _claims(aud=AUDIENCE + ".evil"),
    "audience of a wrong type": _claims(aud={AUDIENCE: True}),
    "no audience": _claims(aud=None),
    "other issuer": _claims(iss="https://evil.example"),
    "issuer that only begins alike": lambda p: p.token(tenant="a", iss=p.issuer + "/"),
    "issuers in a list": lambda p: p.token(tenant="a", iss=[p.issuer]),
    "no issuer": _claims(iss=None),
    "expired": lambda p: p.token(tenant="a", exp=_now() - LEEWAY_S - 1),
    "no expiry": _claims(exp=None),
    "expiry as text": lambda p: p.token(tenant="a", exp=str(_now() + 99)),
    "expiry without end": _claims(exp=float("inf")),
    "expiry that is no number": _claims(exp=float("nan")),
    "expiry beyond time": _claims(exp=10**400),
    "expiry true": _claims(exp=True),
    "not yet": lambda p: p.token(tenant="a", nbf=_now() + LEEWAY_S + 60),
    "not before, as text": _claims(nbf="0"),
    "not before, as true": _claims(nbf=True),
    "issued in future": lambda p: p.token(tenant="a", iat=_now() + LEEWAY_S + 60),
    "issued long ago": lambda p: p.token(tenant="a", iat=_now() - 86_400 - LEEWAY_S - 1),
    "never issued": _claims(iat=None),
    "no subject": _claims(sub=None),
    "empty subject": _claims(sub=""),
    "long subject": _claims(sub="s" * 201),
    "subject that is a number": _claims(sub=7),
    "subject with NUL": _claims(sub="ann\0"),
    "subject of half a character": _claims(sub="\ud800"),
    "no tenant": lambda p: p.token(),
    "tenant that is a list": _claims(tenant=["a"]),
    "tenant that is true": _claims(tenant=True),
    "empty tenant": _claims(tenant=""),
    "scopes that are a number": _claims(scope=1),
    "scopes that are null": lambda p: p.sign(p.claims(tenant="a", scope=None), p.signer),
    "scopes that are an object": _claims(scope={"carrel:query": True}),
    "scopes in lists": _claims(scope=[["carrel:query"]]),
    "labels that are text": _claims(groups="staff"),
    "labels that are null": lambda p: p.sign(p.claims(tenant="a", groups=None), p.signer),
    "labels that are true": _claims(groups=True),
    "labels that are numbers": _claims(groups=[1]),
    "too many labels": _claims(groups=[str(number) for number in range(101)]),
    "empty label": _claims(groups=[""]),
    "collections that are an object": _claims(rooms={"one": 1}),
    "long collection": _claims(rooms=["c" * 101]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_token_that_is_wrong_in_one_thing_lets_nobody_in(provider: Provider, clock: SetClock, name: str) -> None:
    users = build_users(_core(provider, clock, **CLAIMS))
    assert users.verify(provider.token(tenant="a"), ask=True) is not None
    hostile = HOSTILE[name](provider)
    for ask in (True, False):
        assert users.verify(hostile, ask=ask) is None
    assert set(provider.asked) <= {"/keys", "/.well-known/openid-configuration"}


def test_a_token_that_is_right_in_all_is_taken_for_its_time(provider: Provider, clock: SetClock) -> None:
    users, issued = build_users(_core(provider, clock)), clock.now // 1000
    assert users.verify(_signed_header()(provider), ask=True) is not None
    several = provider.token(tenant="a", aud=[AUDIENCE, "https://other.example"], nbf=issued, jti="x", exp=issued + 10.5)
    for later_s, taken in ((0, True), (10 + LEEWAY_S, True), (11 + LEEWAY_S, False), (-LEEWAY_S, True), (-LEEWAY_S - 1, False)):
        clock.now = (issued + later_s) * 1000
        assert (users.verify(several, ask=True) is not None) is taken, later_s


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS384", "ES256", "EdDSA"])
def test_each_algorithm_that_is_named_verifies(clock: SetClock, algorithm: str) -> None:
    with identity_provider(pair("k", algorithm)) as provider:
        token = provider.token(tenant="a")
        assert _accepted(provider, clock, token, oidc_algorithms=(algorithm,))
        assert not _accepted(provider, clock, token, oidc_algorithms=("ES384",))
        assert not _accepted(provider, clock, token[:-8] + "AAAAAAAA", oidc_algorithms=(algorithm,))


@pytest.mark.parametrize("name", ["none", "HS256", "HS512", "rs256", "", "RS256,HS256"])
def test_an_algorithm_with_a_common_secret_cannot_be_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("CARREL_OIDC_ALGORITHMS", name)
    with pytest.raises(ValueError, match="oidc_algorithms"):
        Settings()


# --- what its claims allow


def _identity(database: Database, provider: Provider, clock: SetClock, **settings: Any) -> Identifier:
    core = _core(provider, clock, **settings)
    users = OidcUsers(*_parts(build_users(core)), TenantRegistry(database, clock), clock)
    return Identifier(database, KeyRing(database, clock), TokenSigner(bytes(32), clock), clock, users)


def _parts(users: OidcUsers) -> tuple[Any, Any]:
    return users._rules, users._keys


def _context(identity: Identity) -> TenantContext:
    assert identity.tenant is not None
    return identity.tenant


def _refused(identifier: Identifier, token: str) -> bool:
    try:
        identifier.identify(token)
    except Unauthenticated:
        return True
    return False


def test_claims_become_a_context_of_one_tenant(database: Database, provider: Provider, clock: SetClock) -> None:
    identifier = _identity(database, provider, clock, **CLAIMS, oidc_subject_claim="email", oidc_tenant_claim="org")
    more = {"email": "ann@example.org", "scope": "openid carrel:ingest carrel:operate query", "groups": ["*"], "rooms": ["one"]}
    found = identifier.identify(provider.token(org="a", **more))
    assert identifier.known(provider.token(org="a", **more)) == found
    assert (found.principal.kind, found.principal.scopes) == (PrincipalKind.USER, {Scope.INGEST})
    context = _context(found)
    assert (context.tenant_id, context.cache_salt, context.subject) == ("a", b"a" * 32, "ann@example.org")
    assert (context.labels, context.collections) == ({"*"}, {"one"})
    assert found.principal.id == found.principal.key_id == user_id_of(provider.issuer, "ann@example.org")
    assert len(found.principal.id) == 36
    other = identifier.identify(provider.token(org="b", email="ann@example.org"))
    assert (_context(other).tenant_id, _context(other).cache_salt) == ("b", b"b" * 32)
    assert _refused(identifier, provider.token(org="c", **more))
    assert _refused(identifier, provider.token(tenant="a", email="ann@example.org"))


@pytest.mark.parametrize(
    "scope", ["openid", "", [], "carrel:operate", "query ingest manage operate", ["carrel"], "CARREL:QUERY"]
)
def test_a_claim_of_scopes_without_ours_allows_nothing(provider: Provider, clock: SetClock, scope: Any) -> None:
    users = build_users(_core(provider, clock, **CLAIMS))
    user = users.verify(provider.token(tenant="a", scope=scope), ask=True)
    assert user is not None
    assert user.principal.scopes == set()


def test_what_a_token_does_not_say_is_as_the_operator_set(provider: Provider, clock: SetClock) -> None:
    token = provider.token(tenant="a")
    for claims in (CLAIMS, {}):
        user = build_users(_core(provider, clock, **claims)).verify(token, ask=True)
        assert user is not None
        assert (user.principal.scopes, user.labels, user.collections) == ({Scope.QUERY}, set(), set())
        given = {"oidc_default_scopes": "query,ingest", "oidc_default_labels": "staff, all", "oidc_default_collections": "*"}
        user = build_users(_core(provider, clock, **claims, **given)).verify(token, ask=True)
        assert user is not None
        assert (user.principal.scopes, user.labels, user.collections) == (
            {Scope.QUERY, Scope.INGEST},
            {"staff", "all"},
            None,
        )
    with pytest.raises(ValueError, match="oidc_default_scopes"):
        Settings(oidc_default_scopes=cast(Any, "operate"))


def test_a_tenants_standing_holds_for_users_too(database: Database, provider: Provider, clock: SetClock) -> None:
    with database.system_write() as session:
        session.add(Tenant(id="ten_x", name="acme", cache_salt=b"x" * 32, created_at=0))
    monotonic = SetClock(0)
    identifier = _identity(database, provider, clock)
    identifier._changes = Changes(database, clock, identifier._forget, monotonic=lambda: monotonic.now / 1000)
    named, by_id, other = (provider.token(tenant=tenant) for tenant in ("acme", "ten_x", "b"))
    for token in (named, by_id, other):
        assert identifier.identify(token).standing == ACTIVE
    assert _context(identifier.identify(named)).tenant_id == _context(identifier.identify(by_id)).tenant_id == "ten_x"

    def change(**values: Any) -> None:
        with database.system_write() as session:
            clock.now += 1
            values["changed_at"] = clock.now
            session.execute(sa.update(Tenant).where(col(Tenant.id) == "ten_x").values(values))
        monotonic.now += int(TRUST_S * 1000)

    change(suspended_at=1)
    for token in (named, by_id):
        assert identifier.known(token) is None
        assert identifier.identify(token).standing == Standing(True, False)
    change(suspended_at=None, deleted_at=1)
    for token in (named, by_id):
        assert _refused(identifier, token)
    assert identifier.identify(other).standing == ACTIVE
    with database.system_write() as session:
        session.execute(sa.delete(Tenant).where(col(Tenant.id) == "ten_x"))
        session.add(Tenant(id="ten_y", name="acme", cache_salt=b"y" * 32, created_at=0, changed_at=clock.now))
    monotonic.now += int(TRUST_S * 1000)
    assert _refused(identifier, by_id)
    assert _context(identifier.identify(named)).cache_salt == b"y" * 32


def test_a_known_user_is_let_in_without_sql_and_without_the_provider(
    database: Database, provider: Provider, clock: SetClock
) -> None:
    identifier = _identity(database, provider, clock)
    identifier.identify(provider.token(tenant="a"))
    asked, statements = len(provider.asked), list[str]()
    seen = lambda *args: statements.append(args[2])  # noqa: E731
    sa.event.listen(database.engine, "before_cursor_execute", seen)
    for number in range(20):
        assert identifier.known(provider.token(tenant="a", sub=f"user {number}")) is not None
    assert identifier.known(provider.token(pair("two", number=1), tenant="a")) is None
    sa.event.remove(database.engine, "before_cursor_execute", seen)
    assert (len(provider.asked), statements, identifier.take_used()) == (asked, [], {})


def test_own_tokens_and_foreign_ones_are_told_apart(database: Database, provider: Provider, clock: SetClock) -> None:
    identifier = _identity(database, provider, clock)
    key = identifier._keys.create("a", name="k", scopes=[Scope.QUERY])
    own, _ = identifier._tokens.issue_for(_context(identifier.identify(key.secret)), Wish([Scope.QUERY], 900, "ann"))
    assert identifier.identify(own).principal.kind is PrincipalKind.TOKEN
    assert provider.asked == [], "what is signed here concerns no provider"
    own_claims = {"ten": "a", "act": key.row.id, "jti": "tok_x", "scope": "query ingest", "aud": "carrel"}
    assert _refused(identifier, provider.token(tenant="a", **own_claims))
    assert _refused(identifier, own[:-2] + ("AA" if own[-2:] != "AA" else "BB"))
    without = Identifier(database, identifier._keys, identifier._tokens, clock)
    assert _refused(without, provider.token(tenant="a"))


# --- the provider's keys


@dataclass
class Publisher:
    """What the provider publishes; None: it does not answer."""

    keys: list[Any] | None
    fetched: int = 0
    now: float = 1000.0

    def fetch(self) -> bytes:
        self.fetched += 1
        if self.keys is None:
            raise Unavailable("down")
        return json.dumps({"keys": self.keys}).encode()

    def signing_keys(self, *algorithms: str) -> SigningKeys:
        return SigningKeys(self.fetch, algorithms or ("RS256", "ES256"), fresh_s=600, stale_s=3600, clock=lambda: self.now)


def test_a_rotated_key_is_fetched_and_a_withdrawn_one_forgotten() -> None:
    one, two = pair("one"), pair("two", "ES256")
    publisher = Publisher([one.jwk()])
    keys = publisher.signing_keys()
    assert keys.find("RS256", "one", ask=False) is None
    assert keys.find("RS256", "one", ask=True) is not None
    publisher.keys = [two.jwk()]
    for _ in range(50):
        assert keys.find("ES256", "two", ask=True) is None, "strangers can name any kid"
    assert publisher.fetched == 1
    publisher.now += AGAIN_S
    assert keys.find("ES256", "two", ask=True) is not None
    assert keys.find("RS256", "one", ask=False) is None
    assert publisher.fetched == 2
    publisher.keys, publisher.now = [], publisher.now + 599
    assert keys.find("ES256", "two", ask=True) is not None
    publisher.now += 1
    assert keys.find("ES256", "two", ask=True) is None
    assert publisher.fetched == 3


def test_while_the_provider_is_away_its_keys_hold_for_the_stated_time() -> None:
    publisher = Publisher([pair().jwk()])
    keys = publisher.signing_keys()
    keys.find("RS256", "one", ask=True)
    publisher.keys, began = None, publisher.now
    for after_s in (600, 601, 631, 3599):
        publisher.now = began + after_s
        assert keys.find("RS256", "one", ask=True) is not None
        assert keys.find("RS256", "one", ask=False) is not None
        assert keys.find("RS256", "two", ask=True) is None
    assert publisher.fetched == 4, "at most one in 30 s"
    publisher.now = began + 3600
    assert keys.find("RS256", "one", ask=False) is None
    with pytest.raises(Unavailable) as refused:
        keys.find("RS256", "one", ask=True)
    assert refused.value.retry_after_s is not None
    assert keys.find("HS256", "one", ask=True) is None, "what would never do is wrong, whoever is away"
    publisher.keys, publisher.now = [pair().jwk()], publisher.now + AGAIN_S
    assert keys.find("RS256", "one", ask=True) is not None


def test_while_one_fetches_others_do_not_wait() -> None:
    publisher = Publisher([pair().jwk()])
    keys = publisher.signing_keys()
    answers: list[object] = []

    def slow() -> bytes:
        with pytest.raises(Unavailable):
            keys.find("RS256", "one", ask=True)
        answers.append("none waits")
        return publisher.fetch()

    keys._fetch = slow
    assert keys.find("RS256", "one", ask=True) is not None

    def again() -> bytes:
        answers.append(keys.find("RS256", "one", ask=True))
        return publisher.fetch()

    keys._fetch, publisher.now = again, publisher.now + 600
    found = keys.find("RS256", "one", ask=True)
    assert answers[0] == "none waits"
    assert answers[1] is not None
    assert found is not None


def test_a_token_without_kid_needs_a_single_key_that_fits() -> None:
    unnamed, ec = pair(None), pair("ec", "ES256")
    keys = Publisher([unnamed.jwk(), ec.jwk(), {"kty": "oct", "k": "c2VjcmV0"}]).signing_keys()
    assert keys.find("RS256", None, ask=True) is not None
    assert keys.find("ES256", None, ask=False) is not None
    assert keys.find("RS256", "ec", ask=False) is None, "a key verifies by its own kind of algorithm only"
    two = Publisher([pair("one").jwk(), pair("two", number=1).jwk()]).signing_keys()
    assert two.find("RS256", None, ask=True) is None
    twice = Publisher([pair("one").jwk(), pair("one", number=1).jwk()]).signing_keys()
    assert twice.find("RS256", "one", ask=True) is None, "which of them is meant cannot be told"


JWK = pair("bad").jwk()
USELESS: dict[str, Any] = {
    "for encryption": {**JWK, "use": "enc"},
    "for another algorithm": {**JWK, "alg": "RS512"},
    "for a common secret": {"kty": "oct", "k": "c2VjcmV0", "kid": "bad", "alg": "RS256"},
    "short": Pair("bad", "RS256", rsa_key(2, 1024)).jwk(),
    "no object": ["bad"],
    "kind is a list": {**JWK, "kty": ["RSA"]},
    "modulus is a number": {**JWK, "n": 3},
    "modulus is nothing": {**JWK, "n": ""},
    "no exponent": {name: value for name, value in JWK.items() if name != "e"},
    "no base64": {**JWK, "n": "é"},
    "another curve": {**pair("bad", "ES256").jwk(), "crv": "P-384"},
    "a point beside the curve": {**pair("bad", "ES256").jwk(), "y": "AAAA"},
    "kid is a number": {**JWK, "kid": 7},
}


@pytest.mark.parametrize("name", USELESS)
def test_a_key_that_is_none_does_not_spoil_the_others(name: str) -> None:
    keys = Publisher([USELESS[name], pair("good").jwk()]).signing_keys()
    assert keys.find("RS256", "good", ask=True) is not None
    assert [keys.find(algorithm, "bad", ask=False) for algorithm in ("RS256", "ES256")] == [None, None]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": null}', b"\xff", b"[" * 100_000, b'{"keys": [' + b"1," * MAX_KEYS + b"1]}"],
)
def test_what_is_no_set_of_keys_is_no_answer(body: bytes) -> None:
    publisher = Publisher([pair().jwk()])
    keys = publisher.signing_keys()
    keys.find("RS256", "one", ask=True)
    keys._fetch = lambda: body
    publisher.now += 600
    assert keys.find("RS256", "one", ask=True) is not None, "the keys that were there hold"


def test_a_private_key_that_was_published_is_kept_as_a_public_one() -> None:
    private = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key()))
    found = Publisher([{**private, "kid": "one", "key_ops": None}]).signing_keys().find("RS256", "one", ask=True)
    assert found is not None
    assert not hasattr(found.key, "private_numbers")


# --- asking for them


ANSWERS: dict[str, Callable[[Provider], bytes]] = {
    "redirect": lambda p: redirect(p.site.url("/keys")),
    "error": lambda p: page(json.dumps({"keys": p.keys}).encode(), "application/json", status="404 Not Found"),
    "too long": lambda p: page(json.dumps({"keys": p.keys, "filler": "x" * 300_000}).encode(), "application/json"),
    "packed": lambda _: page(b"\x1f\x8b", "application/json", "Content-Encoding: gzip"),
    "no HTTP": lambda _: b"SSH-2.0-x\r\n\r\n",
    "cut off": lambda p: page(json.dumps({"keys": p.keys}).encode(), "application/json")[:-5],
    "nothing": lambda _: b" ",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_not_what_was_asked_for_gives_no_keys(provider: Provider, clock: SetClock, name: str) -> None:
    for path in ("/keys", "/.well-known/openid-configuration"):
        provider.answers = lambda asked, path=path: ANSWERS[name](provider) if asked == path else None  # type: ignore[misc]
        with pytest.raises(Unavailable):
            _accepted(provider, clock, provider.token(tenant="a"))
    provider.answers = lambda _path: None
    assert _accepted(provider, clock, provider.token(tenant="a"))


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://evil.example"},
        {"jwks_uri": None},
        {"jwks_uri": "http://idp.example/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://user:pass@idp.example/"},
        {"jwks_uri": "https://[/"},
    ],
)
def test_a_discovery_document_that_leads_astray_is_not_followed(
    provider: Provider, clock: SetClock, document: dict[str, Any]
) -> None:
    provider.document = document
    with pytest.raises(Unavailable):
        _accepted(provider, clock, provider.token(tenant="a"))
    assert provider.asked == ["/.well-known/openid-configuration"]
    assert _accepted(provider, clock, provider.token(tenant="a"), oidc_jwks_url=provider.site.url("/keys"))


def test_a_provider_that_is_away_is_told_as_such(clock: SetClock) -> None:
    with identity_provider() as provider:
        token = provider.token(tenant="a")
    with pytest.raises(Unavailable):
        _accepted(provider, clock, token)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"oidc_issuer": "https://idp.example"}, "CARREL_OIDC_AUDIENCE"),
        ({"oidc_audience": "x"}, "CARREL_OIDC_ISSUER"),
        ({"oidc_jwks_url": "https://idp.example/keys"}, "CARREL_OIDC_ISSUER"),
        ({"oidc_issuer": "http://idp.example", "oidc_audience": "x"}, "CARREL_OIDC_ALLOW_HTTP"),
        ({"oidc_issuer": "idp", "oidc_audience": "x"}, "CARREL_OIDC_ISSUER"),
        ({"oidc_issuer": "idp", "oidc_audience": "x", "oidc_jwks_url": "http://10.0.0.1/keys"}, "CARREL_OIDC_JWKS_URL"),
        ({"oidc_issuer": "http://idp.example", "oidc_audience": "x", "oidc_allow_http": True}, None),
        ({"oidc_issuer": "idp", "oidc_audience": "x", "oidc_jwks_url": "https://idp.example/keys?p=1"}, None),
        ({"oidc_issuer": "http://127.0.0.1:1", "oidc_audience": "x"}, None),
        ({}, None),
    ],
)
def test_settings_that_make_no_sense_say_what_to_set(tmp_path: Path, settings: dict[str, Any], advice: str | None) -> None:
    core = cast(Core, SimpleNamespace(settings=Settings(data_dir=tmp_path, **settings), clock=SetClock(), registry=None))
    if advice is None:
        assert (_users(core) is None) is ("oidc_issuer" not in settings)
    else:
        with pytest.raises(SetupError, match=advice):
            _users(core)
