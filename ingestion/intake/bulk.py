"""Taking in many documents at once: what single requests do one by one, with one transaction and one sync for a batch.

Whatever makes a batch fail as a whole makes it be taken in one by one, so that each document has an outcome of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from config.database import may_be_committed
from config.errors import BudgetExhausted, CarrelError
from ingestion.intake.catalogue import Parts
from ingestion.intake.documents import Given, Submitted, TenantDocuments, by_external_id
from ingestion.intake.submission import Checked, Submission
from rag.collections import DEFAULT
from tenants.context import TenantContext
from tenants.limits.quotas import Counts

Outcome = Submitted | CarrelError
#: Writes something of what was taken in, in its transaction.
Record = Callable[[Session, Sequence[Submitted]], None]


@dataclass(frozen=True, slots=True)
class BulkDocuments(Parts):
    def for_tenant(self, context: TenantContext) -> TenantBulk:
        return TenantBulk(self, context)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A submission that needs a transaction."""

    checked: Checked
    given: Given


@dataclass(slots=True)
class _Batch:
    """What was learnt with the items of a batch so far, and holds for the next ones."""

    default_made: bool = False
    payable: bool = False
    exhausted: BudgetExhausted | None = None
    names: set[tuple[str, str]] = field(default_factory=set)  #: of collections and documents that SQL does not know yet


class TenantBulk(TenantDocuments):
    def require_room_for(self, documents: int, content_bytes: int) -> None:
        """Refuse as a whole what would not find room, where its size is told beforehand. Nothing is reserved."""
        more = Counts(documents=documents, bytes=content_bytes)
        with self._parts.database.read(self._context) as session:
            self._parts.limits.quotas.require_room(session, self._context.tenant_id, more)

    def take(self, items: Sequence[Submission | CarrelError], *, most_refused: int, record: Record) -> list[Outcome]:
        """The outcomes of the items in their order; an item that is an error already is its own.

        There are fewer if it stopped: behind the refusal number `most_refused`, or one that would be another a little later.
        """
        found = self._examined(items, most_refused)
        waiting = [one for one in found if isinstance(one, _Waiting)]
        try:
            kept = iter(self._keep_all(waiting, record))
        except (CarrelError, IntegrityError):
            return self._one_by_one(items, most_refused, record)
        return [next(kept) if isinstance(one, _Waiting) else one for one in found]

    def _examined(self, items: Sequence[Submission | CarrelError], most_refused: int) -> list[_Waiting | Outcome]:
        found: list[_Waiting | Outcome] = []
        batch, refused = _Batch(), 0
        for item in items:
            try:
                found.append(self._examine_next(batch, item))
            except CarrelError as error:
                found.append(error)
                refused += 1
                if error.retryable or refused >= most_refused:
                    break
        return found

    def _examine_next(self, batch: _Batch, item: Submission | CarrelError) -> _Waiting | Submitted:
        """What `submit` does before its transaction."""
        if isinstance(item, CarrelError):
            raise item
        checked = self._checked(item)
        if checked.collection == DEFAULT and not batch.default_made:
            self._collections.ensure_default()
            batch.default_made = True
        with self._parts.database.read(self._context) as session:
            collection = self._collections.find(session, checked.collection)
            profile = self._parts.collections.profiles.get(collection.profile, field="collection")
            checked = checked.within(collection.attribute_types)
            version, known_text = self._new_version(checked, profile), False
            document = by_external_id(session, collection.id, checked.external_id)
            name = (collection.id, checked.external_id)
            if document is not None and name not in batch.names:  # else what is live is not what the line would replace
                if live := self._already(session, document, version, collection):
                    return live
                known_text = self._has_content(session, document, version, checked)
            self._require_room(session, document, version)
        if not known_text:
            self._require_budget(batch)
        batch.names.add(name)
        return _Waiting(checked, Given(collection, checked.external_id, version, profile.rank))

    def _require_budget(self, batch: _Batch) -> None:
        if batch.exhausted is not None:
            raise batch.exhausted
        if not batch.payable:
            try:
                self._parts.ledger.for_tenant(self._context, "ingest").require()
            except BudgetExhausted as error:
                batch.exhausted = error
                raise
            batch.payable = True

    def _keep_all(self, waiting: Sequence[_Waiting], record: Record) -> list[Submitted]:
        if not waiting:
            return []
        brought = [one for one in waiting if one.checked.url is None]
        try:
            names = self._parts.blobs.put_all([(one.given.version.id, one.checked.content) for one in brought])
            for one, name in zip(brought, names, strict=True):
                one.given.version.content_blob = name
            with self._parts.database.write(self._context) as session:
                kept = [self._record(session, one.given) for one in waiting]
                record(session, kept)
                return kept
        except BaseException as error:
            if not may_be_committed(error):
                for one in brought:
                    self._parts.blobs.delete_owned(one.given.version.id)
            raise

    def _one_by_one(self, items: Sequence[Submission | CarrelError], most_refused: int, record: Record) -> list[Outcome]:
        outcomes: list[Outcome] = []
        refused = 0
        for item in items:
            try:
                if isinstance(item, CarrelError):
                    raise item
                outcomes.append(self.submit(item, record=lambda session, submitted: record(session, [submitted])))
            except CarrelError as error:
                outcomes.append(error)
                refused += 1
                if error.retryable or refused >= most_refused:
                    break
        return outcomes
