"""A tenant's collections, and the space each was made in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import ROWS_BY_KEY, Database
from config.errors import Conflict, InvalidInput, NotFound, SetupError, SpaceMismatch, Unavailable
from config.ids import new_id
from config.profiles import STANDARD
from rag.attributes import conformed, declared, learned, numeric
from rag.corpus import Collection, Document, NumericSlot, SpaceRow
from rag.embedding.runtime import Fingerprint
from rag.filters import Value, slot_name
from rag.profiles import Profiles
from rag.retrieval.past import kept_since
from rag.store.base import Space
from rag.store.conditions import NUMBER_SLOTS
from rag.types import Reader

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
DEFAULT = "default"
MAX_LOST_NAMED = 10
_SLOTS = (
    select(NumericSlot)
    .where(col(NumericSlot.collection_id).in_(sa.bindparam("collections", expanding=True)))
    .execution_options(**ROWS_BY_KEY)
)
_TYPES = select(col(Collection.attribute_types)).where(col(Collection.id) == sa.bindparam("of"))
_ANY = (
    select(col(Document.id))
    .where(col(Document.collection_id) == sa.bindparam("of"), col(Document.deleted_at).is_(None))
    .limit(1)
)
EMPTY: Mapping[str, str] = MappingProxyType({})
_BY_NAMES = select(Collection).where(col(Collection.name).in_(sa.bindparam("names", expanding=True)))


class CollectionRules(Protocol):
    """What a tenant may have of collections, and how they may be. `tenants.limits.quotas.Quotas` satisfies it."""

    def require_rules(
        self, tenant_id: str, *, profile: str | None = None, keep_versions_days: int | None = None, dedicated: bool = False
    ) -> None:
        """Raise NotInPlan."""

    def made_collection(self, session: Session, tenant_id: str) -> None:
        """Count it when the session commits, which then may raise QuotaExceeded."""


class NoRules:
    """Where nothing is counted or refused."""

    def require_rules(
        self, tenant_id: str, *, profile: str | None = None, keep_versions_days: int | None = None, dedicated: bool = False
    ) -> None: ...

    def made_collection(self, session: Session, tenant_id: str) -> None: ...


class Collections:
    def __init__(
        self,
        database: Database,
        clock: Clock,
        fingerprint: Fingerprint,
        profiles: Profiles,
        rules: CollectionRules | None = None,
    ) -> None:
        self._database, self._clock, self._fingerprint = database, clock, fingerprint
        self._space, self.profiles, self._rules = fingerprint.space, profiles, rules or NoRules()

    def register_space(self) -> None:
        """Make the loaded model's space known to SQL; called once when the service starts."""
        space = self._space
        row = SpaceRow(
            id=space.id, dimensions=space.dimensions, description=self._fingerprint.describe(), created_at=self._clock()
        )
        with self._database.system_read() as session:
            known = session.get(SpaceRow, space.id) is not None
        if not known:
            with suppress(IntegrityError):  # another process starts at the same moment
                with self._database.system_write() as session:
                    session.add(row)

    def since(self) -> int:
        """When the loaded model's space was first used here, Unix milliseconds."""
        with self._database.system_read() as session:
            return session.get_one(SpaceRow, self._space.id).created_at

    def require_profiles(self) -> None:
        """Raise SetupError if collections are processed by a profile that is gone; asked once when the service starts."""
        known = [profile.name for profile in self.profiles.all()]
        lost = select(col(Collection.profile)).where(col(Collection.profile).not_in(known)).distinct().limit(MAX_LOST_NAMED)
        with self._database.system_read() as session:
            names = sorted(session.scalars(lost))
        if names:
            raise SetupError(
                f"Collections are processed by profiles that are not there: {', '.join(names)}. "
                "Put them back into CARREL_PROFILES_FILE, or take them out after the collections were given another one."
            )

    def for_tenant(self, scope: Reader) -> TenantCollections:
        return TenantCollections(self._database, self._clock, self._space, self.profiles, self._rules, scope)


class TenantCollections:
    def __init__(
        self, database: Database, clock: Clock, space: Space, profiles: Profiles, rules: CollectionRules, scope: Reader
    ) -> None:
        self._database, self._clock, self._space, self._scope = database, clock, space, scope
        self._profiles, self._rules = profiles, rules

    def create(
        self,
        name: str,
        *,
        profile: str = STANDARD,
        near_duplicates: str = "keep",
        near_threshold: float = 0.9,
        semantic_cache: bool = False,
        semantic_threshold: float = 0.95,
        keep_versions_days: int = 0,
        attributes: Mapping[str, str] = EMPTY,
        record: Callable[[Session, Collection], None] | None = None,
    ) -> Collection:
        """`attributes`: kinds by key. `record` writes something of the new collection in its transaction, last.

        Raise QuotaExceeded, NotInPlan.
        """
        self._profiles.get(profile)
        types = declared({}, attributes, empty=True)
        if not NAME.fullmatch(name):
            raise InvalidInput("A collection's name is 1 to 100 of letters, digits, `.`, `_` and `-`.", field="name", limit=100)
        if not self._sees(name):
            raise NotFound(f"There is no collection {name!r}.", field="name")
        self._rules.require_rules(self._scope.tenant_id, profile=profile, keep_versions_days=keep_versions_days)
        row = Collection(
            id=new_id("col"),
            tenant_id=self._scope.tenant_id,
            name=name,
            space_id=self._space.id,
            profile=profile,
            near_duplicates=near_duplicates,
            near_threshold=near_threshold,
            semantic_cache=semantic_cache,
            semantic_threshold=semantic_threshold,
            keep_versions_days=keep_versions_days,
            versions_kept_since=self._clock() if keep_versions_days else None,
            attribute_types=types,
            created_at=self._clock(),
        )
        try:
            with self._database.write(self._scope) as session:
                session.add(row)
                self._rules.made_collection(session, row.tenant_id)
                session.flush()
                _give_slots(session, row)
                if record is not None:
                    record(session, row)
        except IntegrityError as error:
            raise Conflict(f"A collection named {name!r} exists.", field="name") from error
        return row

    def update(
        self,
        name: str,
        *,
        profile: str | None = None,
        near_duplicates: str | None = None,
        near_threshold: float | None = None,
        semantic_cache: bool | None = None,
        semantic_threshold: float | None = None,
        keep_versions_days: int | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> tuple[Collection, int]:
        """What is given holds from now on; documents that were brought stay as they are. Raise NotInPlan."""
        if profile is not None:
            self._profiles.get(profile)
        self._rules.require_rules(self._scope.tenant_id, profile=profile, keep_versions_days=keep_versions_days)
        changes = {
            "profile": profile,
            "near_duplicates": near_duplicates,
            "near_threshold": near_threshold,
            "semantic_cache": semantic_cache,
            "semantic_threshold": semantic_threshold,
            "keep_versions_days": keep_versions_days,
        }
        given = {field: value for field, value in changes.items() if value is not None}
        if not given and not attributes:
            raise InvalidInput(f"Give at least one of {', '.join((*changes, 'attributes'))}.", field="profile")
        with self._database.write(self._scope) as session:
            row = self.hold(session, name)  # before the clock is read: a switch notes its time before it has the row
            if keep_versions_days is not None:
                row.versions_kept_since = kept_since(row, keep_versions_days, self._clock())
            row.sqlmodel_update(given)
            if attributes:
                row.attribute_types = declared(row.attribute_types, attributes, empty=not session.scalar(_ANY, {"of": row.id}))
                _give_slots(session, row)
            session.add(row)
            documents = session.scalar(select(self._live()).where(col(Collection.id) == row.id))
        return row, int(documents or 0)

    def list(self, *, after: str | None, limit: int) -> list[tuple[Collection, int]]:
        """Collections by id, each with its number of live documents."""
        shown = col(Collection.session_id) == self._scope.session  # None is compared as NULL
        statement = select(Collection, self._live()).where(shown).order_by(col(Collection.id)).limit(limit)
        if after is not None:
            statement = statement.where(col(Collection.id) > after)
        if self._scope.collections is not None:
            statement = statement.where(col(Collection.name).in_(self._scope.collections))
        with self._database.read(self._scope) as session:
            return [(row, int(count)) for row, count in session.execute(statement).all()]

    def _live(self) -> sa.ScalarSelect[int]:
        """A collection's number of live documents."""
        return (
            select(sa.func.count())
            .where(
                col(Document.tenant_id) == self._scope.tenant_id,
                col(Document.collection_id) == col(Collection.id),
                col(Document.deleted_at).is_(None),
                col(Document.live_version_id).is_not(None),
            )
            .correlate(Collection)
            .scalar_subquery()
        )

    def find(self, session: Session, name: str) -> Collection:
        """The collection, or NotFound alike for one that is missing, foreign, or outside the principal's bounds."""
        return self.find_all(session, (name,))[0]

    def hold(self, session: Session, name: str) -> Collection:
        """As `find`, the row as it is now and until the transaction ends; NotFound too for one that was deleted just then."""
        row = session.get(Collection, self.find(session, name).id, with_for_update=True, populate_existing=True)
        return self._usable(name, row)

    def find_all(self, session: Session, names: Sequence[str]) -> Sequence[Collection]:
        """Each of the names once, in their order; raises as `find` does for the first that is none."""
        wanted = dict.fromkeys(names)
        visible = [name for name in wanted if self._sees(name)]
        found = {row.name: row for row in session.scalars(_BY_NAMES, {"names": visible})}
        return [self._usable(name, found.get(name)) for name in wanted]

    def _usable(self, name: str, row: Collection | None) -> Collection:
        if row is None or row.session_id != self._scope.session:
            raise NotFound(f"There is no collection {name!r}.", field="collection")
        if row.space_id != self._space.id:
            raise SpaceMismatch(
                f"Collection {name!r} was embedded by another model or at another precision than the one loaded.",
                field="collection",
            )
        return row

    def ensure_default(self) -> None:
        """Every tenant can start without a set-up step: the default collection is made when it is first used."""
        try:
            with self._database.read(self._scope) as session:
                self.find(session, DEFAULT)
        except NotFound:
            if self._sees(DEFAULT):
                try:
                    self.create(DEFAULT)
                except Conflict:
                    return

    def _sees(self, name: str) -> bool:
        bounds = self._scope.collections
        return bounds is None or name in bounds or self._scope.session is not None


def numeric_slots(session: Session, collection_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """For each collection, the numeric slots of its attributes, by `slot_name`."""
    slots: dict[str, dict[str, int]] = {collection_id: {} for collection_id in collection_ids}
    for row in session.scalars(_SLOTS, {"collections": list(collection_ids)}):
        slots[row.collection_id][slot_name(row.key, row.kind)] = row.slot
    return slots


def add_slots(
    session: Session, tenant_id: str, collection_id: str, taken: Mapping[str, int], wanted: Sequence[tuple[str, str]]
) -> None:
    """For keys of these kinds, as long as there are free ones. Whoever calls holds the collection's row."""
    free = [slot for slot in range(NUMBER_SLOTS) if slot not in taken.values()]
    session.add_all(
        NumericSlot(tenant_id=tenant_id, collection_id=collection_id, slot=slot, key=key, kind=kind)
        for slot, (key, kind) in zip(free, wanted, strict=False)
    )


def _give_slots(session: Session, row: Collection) -> None:
    """A free slot was never taken, so no point has a number of a key without one: it may be given to any."""
    wanted = [*numeric(row.attribute_types)]
    taken = numeric_slots(session, [row.id])[row.id] if wanted else {}
    add_slots(session, row.tenant_id, row.id, taken, [one for one in wanted if slot_name(*one) not in taken])


def learn_attributes(session: Session, collection: Collection, attributes: Mapping[str, Value]) -> None:
    """Note of which kinds they are. Raises Unavailable if others were declared since they were checked by `collection`,
    NotFound if it was deleted.
    """
    if not attributes:
        return
    stored = session.scalars(_TYPES, {"of": collection.id}).one_or_none()
    if stored is None:
        raise NotFound("The collection was deleted meanwhile.", field="collection")
    if conformed(stored, attributes) != attributes or [*numeric(stored)] != [*numeric(collection.attribute_types)]:
        raise Unavailable("The collection's attributes were declared otherwise meanwhile; send it again.", retry_after_s=1)
    if learned(stored, attributes) is None:
        return
    row = session.get_one(Collection, collection.id, with_for_update={"key_share": True}, populate_existing=True)
    row.attribute_types = learned(row.attribute_types, attributes) or row.attribute_types
    session.add(row)
