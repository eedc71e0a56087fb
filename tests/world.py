"""The whole service in one process, without its processes: two tenants whose jobs run when a test says so."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlmodel import SQLModel, col, select

from config.clock import system_clock
from config.database import Database, TenantOwned
from config.profiles import BUILT_IN
from ingestion.blobs import BlobStore
from ingestion.fetch.fetcher import Fetcher
from ingestion.intake.catalogue import DocumentLimits, bump_generation
from ingestion.intake.documents import Documents, TenantDocuments
from ingestion.intake.submission import Submission
from ingestion.jobs.instances import Instances
from ingestion.pipeline.pipeline import Pipeline
from ingestion.queue.workflow import MemoryQueue, Step, Steps, process
from ingestion.readers.base import Parsed
from ingestion.readers.registry import read
from ingestion.reconciler import Reconciler
from ingestion.removal.collector import Collector
from ingestion.repair.parts import Parts
from ingestion.repair.terms import recount
from rag.collections import Collections
from rag.corpus import Chunk, Collection, Document, DocumentVersion, FormerText, TermCounts, VersionChunk
from rag.embedding.batcher import Batcher
from rag.embedding.cache import NullVectorCache, VectorCache
from rag.embedding.hashing import HashRuntime
from rag.embedding.runtime import Embedder
from rag.embedding.service import EmbeddingService
from rag.lexical.counting import add_counts, read_counts_of
from rag.lexical.encoder import encode_chunk
from rag.lexical.statistics import Counts, terms_of, total
from rag.profiles import Profiles
from rag.retrieval.question import Question
from rag.retrieval.retriever import Retriever
from rag.splitting.chunkers import Chunkers
from rag.store.base import Point, TenantVectors, VectorStore
from tenants.context import TenantContext
from tenants.ledger.budget import Ledger
from tenants.limits.quotas import UNLIMITED
from tenants.registry import TenantRegistry
from tenants.tables import BudgetWindow, LedgerEntry, UsageDay
from tests.support import FreeMeter
from tests.tables import make_tables

TENANTS = ("ash", "elm")
LONG_AGO_S = 1_000_000_000


class InProcessReader:
    """Reads without the sandbox, which has tests of its own and would cost a fork a document here."""

    def read(self, path: Path, media_type: str, *_note: object) -> Parsed:
        parsed = read(path.read_bytes(), media_type, max_chars=10**6)
        return replace(parsed, text=parsed.text + "\n")  # as of other formats, the text is another blob than the content


@dataclass
class World:
    database: Database
    store: VectorStore
    folder: Path
    keep_failed_days: float = 0
    embedder: Embedder | None = None
    cache: VectorCache = field(default_factory=NullVectorCache)
    fetcher: Fetcher | None = None
    contexts: dict[str, TenantContext] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.taking, self.reader = threading.Lock(), InProcessReader()
        make_tables(self.database)
        embedder = self.embedder or Batcher(HashRuntime(), batch_tokens=2048)
        self.embedding = EmbeddingService(embedder, self.cache)
        self.registry = TenantRegistry(self.database, system_clock)
        self.ledger = Ledger(self.database, system_clock, lease_s=60, price=20_000)
        self.blobs = BlobStore(self.folder / "blobs")
        self.queue = MemoryQueue()
        self.instances = Instances(self.database, system_clock)
        profiles = Profiles(BUILT_IN, embedder.model)
        collections = Collections(self.database, system_clock, embedder.model.fingerprint, profiles, UNLIMITED)
        collections.register_space()
        limits = DocumentLimits(10**6, self.fetcher and self.fetcher.policy)
        self.documents = Documents(self.database, system_clock, collections, self.blobs, self.queue, self.ledger, limits)
        self.retriever = Retriever(self.database, collections, self.store, self.embedding)
        self.collector = Collector(
            self.database,
            system_clock,
            self.blobs,
            self.store,
            self.embedding,
            self.queue,
            keep_failed_days=self.keep_failed_days,
        )
        self.pipeline = Pipeline(
            self.database,
            system_clock,
            self.blobs,
            self.reader,  # type: ignore[arg-type]
            Chunkers(embedder.model.tokenizer_json),
            self.embedding,
            self.store,
            self.ledger,
            self.collector,
            self.queue,
            max_chunks=1000,
            fetcher=self.fetcher,
        )
        for name in TENANTS:
            self.contexts[name] = self.registry.context_of_job(self.registry.create(name, monthly_tokens=None).id, "test")
        self.reconciler = Reconciler(self.parts(self.store))

    def parts(self, store: VectorStore) -> Parts:
        return Parts(
            database=self.database,
            clock=system_clock,
            registry=self.registry,
            instances=self.instances,
            blobs=self.blobs,
            queue=self.queue,
            collector=self.collector,
            embedding=self.embedding,
            store=store,
            brief_store=store,
        )

    def close(self) -> None:
        self.embedding.close()

    def of(self, name: str) -> TenantDocuments:
        return self.documents.for_tenant(self.contexts[name])

    def vectors(self, name: str) -> TenantVectors:
        return self.store.for_tenant(self.contexts[name], self.embedding.space)

    def bring(self, name: str, external_id: str, text: str, **fields: Any) -> str:
        """Submit; the job waits. Return the document's id."""
        submission = Submission(text.encode(), external_id=external_id, media_type="text/plain", **fields)
        return self.of(name).submit(submission).shown.document.id

    def fill(self) -> None:
        """For each tenant a document in its second version and one in its first, with labels and attributes."""
        for name in TENANTS:
            self.bring(name, "one", text_of(name, 1, 3))
            self.run_jobs()
            self.bring(name, "one", text_of(name, 2, 4))
            self.bring(name, "two", text_of(name, 3, 2), labels=["red"], attributes={"floor": 3, "wing": "north"})
            self.run_jobs()
        self.age()

    def age(self) -> None:
        """Let every stored content be old: what was written just now might belong to a submission under way."""
        for path in (self.folder / "blobs").glob("??/*"):
            os.utime(path, (LONG_AGO_S, LONG_AGO_S))

    def run_jobs(self, pause: Callable[[float], None] | None = None) -> None:
        while arguments := self._take():
            try:
                process(self.steps(pause), *arguments)
            except BaseException:  # a death that a test plays: the job is begun again
                self.queue.waiting.append(arguments)
                raise
            finally:
                self.queue.running.discard(arguments[1])

    def _take(self) -> tuple[str, str] | None:
        with self.taking:
            if not self.queue.waiting:
                return None
            self.queue.running.add(self.queue.waiting[0][1])  # first: at no moment it may seem to be in neither
            return self.queue.waiting.popleft()

    def steps(self, pause: Callable[[float], None] | None) -> Steps:
        def never(_seconds: float) -> None:
            raise AssertionError("nothing is unavailable here")

        def wrap(_name: str, step: Step) -> Step:
            def checked(*args: object) -> dict[str, object] | None:
                outcome = step(*args)
                assert outcome is None or outcome.get("code") != "internal_error", outcome
                return outcome

            return checked

        return Steps.of(self.pipeline, self.registry.context_of_job, pause=pause or never, wrap=wrap)

    def answer(self, name: str) -> list[tuple[str, int, int, int, str, float]]:
        question = Question("oak pine shelf", ("default",), top_k=100)
        found = self.retriever.for_tenant(self.contexts[name], FreeMeter()).query(question, charge_id="q")
        return sorted((p.external_id, p.version, p.start, p.end, p.text, round(p.score, 5)) for p in found.passages)

    def rows(self, name: str) -> dict[str, list[dict[str, Any]]]:
        """Everything SQL knows of a tenant."""
        with self.database.read(self.contexts[name]) as session:
            return {
                table.__name__: sorted((row.model_dump() for row in session.scalars(select(table))), key=str)
                for table in TenantOwned.__subclasses__()
            }

    def snapshot(self, name: str) -> tuple[object, ...]:
        return (self.rows(name), self.vectors(name).page(None, 2000), self.files())

    def files(self) -> set[str]:
        return {path.name for path in (self.folder / "blobs").glob("??/*")}

    def change(self, name: str, *statements: sa.Update | sa.Delete) -> None:
        with self.database.write(self.contexts[name]) as session:
            for statement in statements:
                session.execute(statement, execution_options={"synchronize_session": False})

    def all(self, name: str, table: type[SQLModel]) -> list[Any]:
        with self.database.read(self.contexts[name]) as session:
            return [*session.scalars(select(table))]

    def check_invariants(self) -> None:
        """Points = chunk rows of live versions, stored contents match, windows are their sums."""
        named: set[str] = set()
        for name in TENANTS:
            live = {document.live_version_id for document in self.all(name, Document)} - {None}
            versions = self.all(name, DocumentVersion)
            assert {version.id for version in versions if version.state == "live"} == live
            chunks = self.all(name, Chunk)
            assert all(chunk.indexed for chunk in chunks)
            assert all(chunk.terms == encode_chunk(chunk.context, chunk.text).terms for chunk in chunks)
            with self.database.read(self.contexts[name]) as session:
                for collection in self.all(name, Collection):
                    counts = total([*read_counts_of(session, collection.id).values()])
                    assert counts == recount(session, collection.id)
            assert [row[0] for row in self.vectors(name).page(None, 2000)] == sorted(chunk.id for chunk in chunks)
            places = self.all(name, VersionChunk)
            assert {place.version_id for place in places} == live - {version.id for version in versions if version.linked}
            assert {place.chunk_id for place in places} == {chunk.id for chunk in chunks}
            named |= {blob for version in versions for blob in (version.content_blob, version.text_blob) if blob}
            entries = self.all(name, LedgerEntry)
            windows = self.all(name, BudgetWindow)
            assert {window.period for window in windows} == {entry.day[:to] for entry in entries for to in (7, 10)}
            for window in windows:
                here = [entry for entry in entries if entry.day.startswith(window.period)]
                assert window.used == sum(entry.tokens for entry in here if entry.state in ("settled", "unsettled"))
                assert window.held == sum(entry.tokens for entry in here if entry.state in ("held", "started"))
                assert window.cost == sum(entry.tokens * entry.price for entry in here if entry.cost) > 0
            days = self.all(name, UsageDay)
            assert sum(row.charged for row in days) == sum(entry.tokens for entry in entries if entry.cost)
        assert self.files() == named


def text_of(name: str, number: int, paragraphs: int) -> str:
    return "\n\n".join(f"Shelf {number} board {board} of {name}: " + f"oak pine{number} " * 20 for board in range(paragraphs))


def old_blob(world: World, owner: str, content: bytes) -> str:
    name = world.blobs.put(owner, content)
    os.utime(world.blobs.path(name), (LONG_AGO_S, LONG_AGO_S))
    return name


@dataclass(frozen=True)
class Damage:
    """Something that no sequence of operations should leave behind; `kinds` are what a repair finds of it."""

    name: str
    do: Callable[[World, str], None]
    kinds: frozenset[str]
    owned: bool = True  #: whether a finding can say whose it is


def _damage(*kinds: str, owned: bool = True) -> Callable[[Callable[[World, str], None]], Callable[[World, str], None]]:
    def register(do: Callable[[World, str], None]) -> Callable[[World, str], None]:
        DAMAGES.append(Damage(do.__name__.strip("_"), do, frozenset(kinds), owned))
        return do

    return register


DAMAGES: list[Damage] = []


@_damage("budget_window")
def _a_window_that_drifted(world: World, name: str) -> None:
    world.change(name, sa.update(BudgetWindow).values(used=col(BudgetWindow.used) + 7, held=5))


@_damage("budget_window")
def _a_window_whose_cost_drifted(world: World, name: str) -> None:
    world.change(name, sa.update(BudgetWindow).values(cost=col(BudgetWindow.cost) + 1))


@_damage("budget_window")
def _a_window_that_is_gone(world: World, name: str) -> None:
    world.change(name, sa.delete(BudgetWindow))


@_damage("usage_day")
def _a_day_of_usage_that_drifted(world: World, name: str) -> None:
    world.change(name, sa.update(UsageDay).values(charged=col(UsageDay.charged) + 3))


@_damage("usage_day")
def _a_day_of_usage_that_is_gone(world: World, name: str) -> None:
    world.change(name, sa.delete(UsageDay))


@_damage("live_version")
def _a_document_that_forgot_its_live_version(world: World, name: str) -> None:
    world.change(name, sa.update(Document).values(live_version_id=None, live_number=0))


@_damage("live_version")
def _a_document_with_the_wrong_number(world: World, name: str) -> None:
    world.change(name, sa.update(Document).values(live_number=7))


@_damage("remains")
def _contents_of_an_ended_version(world: World, name: str) -> None:
    for version in world.all(name, DocumentVersion):
        if version.state == "superseded":
            blob = old_blob(world, version.id, b"remains")
            world.change(
                name, sa.update(DocumentVersion).where(col(DocumentVersion.id) == version.id).values(content_blob=blob)
            )


@_damage("names_without_document")
def _a_name_that_outlived_its_document(world: World, name: str) -> None:
    """And the vector that it leads to."""
    context, text = world.contexts[name], f"said by {name} alone"
    [key] = world.embedding.cache_keys(context, [text])
    if key not in {row.key for row in world.all(name, FormerText)}:
        world.cache.put(context, world.embedding.space, {text: np.ones(world.embedding.space.dimensions, np.float32)})
        with world.database.write(context) as session:
            session.add(FormerText(tenant_id=context.tenant_id, document_id="doc_gone", key=key))


@_damage("chunk_without_point")
def _one_point_lost(world: World, name: str) -> None:
    world.vectors(name).delete_points(world.vectors(name).ids()[:1])


@_damage("chunk_without_point")
def _every_point_lost(world: World, name: str) -> None:
    world.vectors(name).delete_points(world.vectors(name).ids())


@_damage("chunk_without_point")
def _live_chunks_that_are_not_marked(world: World, name: str) -> None:
    world.change(name, sa.update(Chunk).values(indexed=False))


@_damage("point_without_chunk")
def _points_of_nothing(world: World, name: str) -> None:
    documents = [document.id for document in world.all(name, Document)] + ["doc_gone"]
    vector = np.ones(world.embedding.space.dimensions, np.float32)
    world.vectors(name).upsert([Point(str(uuid.uuid4()), "col", document, vector) for document in documents])


@_damage("chunk_without_terms")
def _chunks_from_before_there_were_words(world: World, name: str) -> None:
    world.change(name, sa.update(Chunk).values(terms=None))


@_damage("term_counts")
def _counts_that_are_gone(world: World, name: str) -> None:
    world.change(name, sa.delete(TermCounts))


@_damage("term_counts")
def _counts_that_drifted(world: World, name: str) -> None:
    counts = next(iter(world.all(name, TermCounts)), None)
    if counts is None:  # counts_that_are_gone came first
        return
    with world.database.write(world.contexts[name]) as session:
        bump_generation(session, counts.collection_id)
        add_counts(session, counts.collection_id, counts.tenant_id, Counts.of_chunks([terms_of([1, 2, 3], "en")]))


@_damage("blob_without_version", owned=False)
def _a_content_of_nobody(world: World, name: str) -> None:
    old_blob(world, f"ver_{name}", b"written by a process that died before it could name it")


@_damage("blob_without_version", owned=False)
def _a_draft_of_a_dead_writer(world: World, name: str) -> None:
    draft = world.blobs.path("ab" * 16 + "-" + "cd" * 32 + f".1.{name}")
    draft.parent.mkdir(exist_ok=True)
    draft.write_bytes(b"half")
    os.utime(draft, (LONG_AGO_S, LONG_AGO_S))
