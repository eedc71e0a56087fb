"""What a check found and what became of it, added up so that a million damaged points are one line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

#: What each kind of finding means, as people read it.
KINDS = {
    "version_without_job": "versions waited for a job that did not exist",
    "deletion_without_job": "deleted documents had no job that removes their remains",
    "job_without_workflow": "unfinished jobs were no longer in the queue",
    "job_unlike_version": "jobs did not know that their version had ended",
    "remains": "documents kept remains of versions that had ended",
    "names_without_document": "texts of deleted documents were still named",
    "live_version": "documents disagreed with their versions about which is live",
    "quota_use": "what tenants are counted to have differed from what they have",
    "budget_window": "sums of tokens and money of a day or month differed from their ledger entries",
    "usage_day": "a day's usage differed from its ledger entries",
    "point_without_chunk": "points in the engine had no chunk in SQL",
    "points_of_unknown_tenant": "points belonged to tenants that do not exist",
    "chunk_without_point": "chunks had no point in the engine",
    "chunk_without_terms": "chunks were indexed without their words, and only the dense leg finds them",
    "term_counts": "counts of words differed from the chunks of their collection",
    "chunk_of_other_space": "chunks belong to another embedding model than the one loaded",
    "blob_without_version": "stored contents belonged to no version",
    "version_without_blob": "stored contents are missing",
}
ADVICE = {
    "chunk_of_other_space": "Load the model that made the collection, or bring its documents again into a new one.",
    "version_without_blob": "Restore blobs/ from a backup, or bring the document again.",
}
REPAIR = "Run `carrel doctor --repair`."


@dataclass(frozen=True, slots=True)
class Finding:
    kind: str  #: a key of KINDS
    tenant_id: str | None  #: None for what cannot be told any more
    repaired: bool
    count: int = 1
    subject: str | None = None  #: id of one that it concerns, as an example

    @property
    def advice(self) -> str | None:
        return None if self.repaired else ADVICE.get(self.kind, REPAIR)


@dataclass
class Report:
    tokens: int = 0  #: embedded again; no tenant is charged for a repair
    _found: dict[tuple[str, str | None, bool], Finding] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        key = (finding.kind, finding.tenant_id, finding.repaired)
        known = self._found.get(key)
        self._found[key] = finding if known is None else replace(known, count=known.count + finding.count)

    @property
    def findings(self) -> list[Finding]:
        return [*self._found.values()]

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged, or not any more."""
        return all(finding.repaired for finding in self._found.values())
