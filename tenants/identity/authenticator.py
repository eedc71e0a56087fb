"""A bearer credential becomes a principal, and for tenants a context. The one place where requests get either.

What the database says of a key and its tenant is kept in memory, so that a request runs no SQL here. It is trusted for
`changes.TRUST_S` after a look at what changed, of which there is one for all requests of that time; without such a
look the database is asked, and where that does not answer nobody is let in.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlmodel import col, select

from config.clock import Clock, system_clock
from config.database import Database
from config.errors import Unauthenticated
from tenants.context import Principal, PrincipalKind, Scope, TenantContext
from tenants.identity.changes import Changes
from tenants.identity.keys import KeyRing, is_genuine, key_id_of
from tenants.identity.oidc import OidcUsers
from tenants.identity.tokens import Claims, TokenSigner, within
from tenants.standing import ACTIVE, Standing, standing_of
from tenants.tables import ApiKey, Tenant

MAX_KEPT = 10_000  #: keys; 2 kB each
REFUSED = "Send a valid key as `Authorization: Bearer <key>`."
_STANDING = select(col(Tenant.cache_salt), col(Tenant.suspended_at), col(Tenant.suspended_reads), col(Tenant.deleted_at)).where(
    col(Tenant.id) == sa.bindparam("id")
)


@dataclass(frozen=True, slots=True)
class Identity:
    """`tenant` is None for operators, whose scope opens `/v1/admin` and nothing else."""

    principal: Principal
    tenant: TenantContext | None
    standing: Standing = ACTIVE


@dataclass(frozen=True, slots=True)
class _Claimed:
    """The tenant that a genuine key or token names."""

    tenant_id: str


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is known of a key that is not revoked. `identity`: None for an operator's token only, which names the tenant."""

    secret_sha256: bytes
    expires_at: int | None
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] | None
    identity: Identity

    def lives(self, now: int) -> bool:
        return self.expires_at is None or self.expires_at > now

    def admits(self, address: str | None) -> bool:
        """The key itself; tokens are made with it for those who are elsewhere."""
        return self.networks is None or _is_in(self.networks, address)


class Identifier:
    """`users`: of the operator's identity provider, if there is one."""

    def __init__(
        self,
        database: Database,
        keys: KeyRing,
        tokens: TokenSigner,
        clock: Clock = system_clock,
        users: OidcUsers | None = None,
    ) -> None:
        self._database, self._keys, self._tokens, self._clock, self._users = database, keys, tokens, clock, users
        self._kept: dict[str, _Kept] = {}  #: by the id of the key
        self._named: dict[str, Identity] = {}  #: tenants by what operators' tokens (an id) and users' (or a name) call them
        self._forgotten, self._lock = 0, threading.Lock()
        self._used: dict[str, int] = {}
        self._changes = Changes(database, clock, self._forget)
        #: Each told the id of each key and tenant that changed; None: anything may have.
        self.on_change: list[Callable[[str | None], None]] = []

    def identify(self, credential: str, address: str | None = None) -> Identity:
        """Raise Unauthenticated alike for what is missing, wrong, revoked, expired or not to be used from the address."""
        self._changes.look()
        identity = self._admitted(credential, address, look_up=True)
        if identity is None:
            raise Unauthenticated(REFUSED)
        return identity

    def known(self, credential: str, address: str | None = None) -> Identity | None:
        """The same from memory alone, at once; None: only `identify` can tell."""
        return self._admitted(credential, address, look_up=False) if self._changes.trusted_for() > 0 else None

    def trusted_for(self) -> float:
        """Seconds after which whoever goes on with something must be identified again."""
        return self._changes.trusted_for()

    def distrust(self) -> None:
        """What is kept is looked at again with the next request."""
        self._changes.distrust()

    def take_used(self) -> dict[str, int]:
        """When keys were last used, of those that were since this was last asked."""
        used, self._used = self._used, {}
        return used

    def _admitted(self, credential: str, address: str | None, *, look_up: bool) -> Identity | None:
        claims: Claims | None = None
        if credential.startswith("carrel_"):
            key_id = key_id_of(credential)
        elif credential.count(".") != 2:
            return None
        elif claims := self._tokens.verify(credential):
            key_id = claims.key_id
        else:
            return self._of_user(credential, look_up)
        secret, kept = credential if claims is None else None, self._kept.get(key_id)
        if kept is None or not _is_shown(kept.secret_sha256, secret):
            # A wrong secret of a known key too: it must take as long as one of no key.
            kept = self._look_up(key_id, secret) if look_up else None
        now = self._clock()
        if kept is None or not kept.lives(now) or not (claims or kept.admits(address)):
            return None
        self._used[key_id] = now
        return kept.identity if claims is None else self._of_token(kept.identity, claims, look_up)

    def _of_token(self, issuer: Identity, claims: Claims, look_up: bool) -> Identity | None:
        """What the token allows of what the key behind it allows now."""
        if issuer.tenant is None:  # an operator acts for a tenant
            base = self._tenant(claims.tenant_id, claims.tenant_id, look_up)
        else:
            base = issuer if issuer.tenant.tenant_id == claims.tenant_id else None
        if base is None or base.tenant is None:
            return None
        principal = Principal(
            PrincipalKind.TOKEN,
            f"{claims.id} of {claims.key_id}",
            claims.scopes if issuer.tenant is None else claims.scopes & issuer.principal.scopes,
            claims.key_id,
            claims.read_only or base.principal.read_only,
        )
        context = replace(
            base.tenant,
            principal=principal,
            collections=within(base.tenant.collections, claims.collections),
            labels=within(base.tenant.labels, claims.labels),
            subject=claims.subject,
        )
        return Identity(principal, context, base.standing)

    def _of_user(self, credential: str, look_up: bool) -> Identity | None:
        """Of a JWT that is none of this service's own."""
        user = self._users.verify(credential, ask=look_up) if self._users is not None else None
        if self._users is None or user is None:
            return None
        base = self._named.get(user.tenant)
        if base is None and look_up and (tenant_id := self._users.tenant_id(user.tenant)):
            base = self._tenant(user.tenant, tenant_id, look_up)
        if base is None or base.tenant is None:
            return None
        context = replace(
            base.tenant, principal=user.principal, collections=user.collections, labels=user.labels, subject=user.subject
        )
        return Identity(user.principal, context, base.standing)

    # --- what is kept

    def _forget(self, changed: set[str] | None) -> None:
        if changed == set():  # nearly always
            return
        with self._lock:
            self._forgotten += 1
            for key_id, kept in [*self._kept.items()]:
                if changed is None or key_id in changed or _tenant_id(kept.identity) in changed:
                    del self._kept[key_id]
            for name, identity in [*self._named.items()]:
                if changed is None or _tenant_id(identity) in changed:
                    del self._named[name]
        for one in (None,) if changed is None else changed:
            for tell in self.on_change:
                tell(one)

    def _look_up(self, key_id: str, secret: str | None) -> _Kept | None:
        """`secret`: None if a token shows that the key's holder agrees."""
        before = self._forgotten
        row = self._keys.row(key_id)
        shown = _is_shown(None if row is None else row.secret_sha256, secret)
        identity = None if row is None or row.revoked_at is not None or not shown else self._of_key(row)
        if row is None or identity is None:
            return None
        networks = row.allowed_addresses
        kept = _Kept(
            row.secret_sha256,
            row.expires_at,
            None if networks is None else tuple(map(ipaddress.ip_network, networks)),
            identity,
        )
        with self._lock:
            if before == self._forgotten:  # else it may be from before a change that everybody else was told of
                _keep(self._kept, key_id, kept)
        return kept

    def _of_key(self, key: ApiKey) -> Identity | None:
        scopes = frozenset(Scope(scope) for scope in key.scopes)
        if key.tenant_id is None:
            return Identity(Principal(PrincipalKind.OPERATOR, key.id, scopes, key.id, key.read_only), None)
        principal = Principal(PrincipalKind.KEY, key.id, scopes, key.id, key.read_only)
        return self._of_tenant(key.tenant_id, principal, key)

    def _tenant(self, named: str, tenant_id: str, look_up: bool) -> Identity | None:
        """A tenant that somebody acts for whose credential is none of its keys."""
        if (kept := self._named.get(named)) is not None or not look_up:
            return kept
        before = self._forgotten
        identity = self._of_tenant(tenant_id, Principal(PrincipalKind.TOKEN, "", frozenset()))
        with self._lock:
            if identity is not None and before == self._forgotten:
                _keep(self._named, named, identity)
        return identity

    def _of_tenant(self, tenant_id: str, principal: Principal, key: ApiKey | None = None) -> Identity | None:
        with self._database.read(_Claimed(tenant_id)) as session:
            found = session.execute(_STANDING, {"id": tenant_id}).first()
        if found is None or found.deleted_at is not None:
            return None
        context = TenantContext(
            tenant_id,
            found.cache_salt,
            principal,
            collections=None if key is None or key.collections is None else frozenset(key.collections),
            labels=None if key is None or key.labels is None else frozenset(key.labels),
        )
        return Identity(principal, context, standing_of(found.suspended_at, found.suspended_reads))


def _tenant_id(identity: Identity) -> str | None:
    return None if identity.tenant is None else identity.tenant.tenant_id


def _is_shown(stored: bytes | None, secret: str | None) -> bool:
    return secret is None or is_genuine(stored, secret)


def _keep(kept: dict[str, object] | dict[str, _Kept] | dict[str, Identity], name: str, value: object) -> None:
    """The oldest gives way: a key that is still used is soon back."""
    if len(kept) >= MAX_KEPT:
        del kept[next(iter(kept))]
    kept[name] = value  # type: ignore[assignment]


def _is_in(networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...], address: str | None) -> bool:
    try:
        where = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    plain = getattr(where, "ipv4_mapped", None) or where  # as a socket for both protocols names callers by IPv4
    return any(plain in network for network in networks)
