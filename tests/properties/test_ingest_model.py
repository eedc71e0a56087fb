"""Random tenants, documents, versions, deletes, cancellations, crashes and queries against a plain-Python model, over the
real engine.

Jobs run in any order, may die before or after any step, and are then run again from their beginning; they are cancelled
before, between and after their steps. Whatever happens, a cancelled version is never live, and a query answers exactly the
live passages of its tenant that its reader may see: none foreign, none stale, none lost, none twice. At the end nothing is
left of what is not live: points, chunk rows and blobs match.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlmodel import col, select

from config.clock import system_clock
from config.database import Database
from config.errors import NotFound
from config.profiles import BUILT_IN
from ingestion.blobs import BlobStore
from ingestion.intake.catalogue import DocumentLimits
from ingestion.intake.documents import Documents
from ingestion.intake.submission import Submission
from ingestion.jobs.jobs import Jobs
from ingestion.pipeline.pipeline import Pipeline
from ingestion.queue.workflow import MemoryQueue, Step, Steps, process
from ingestion.readers.base import Parsed
from ingestion.readers.registry import read
from ingestion.removal.collector import Collector
from ingestion.repair.terms import recount
from rag.collections import Collections
from rag.corpus import Chunk, Collection, VersionChunk
from rag.embedding.batcher import Batcher
from rag.embedding.cache import NullVectorCache
from rag.embedding.hashing import HashRuntime
from rag.embedding.service import EmbeddingService
from rag.lexical.counting import read_counts_of
from rag.lexical.statistics import total
from rag.profiles import Profiles
from rag.result_cache import ResultCache
from rag.retrieval.question import Question
from rag.retrieval.retriever import Retriever
from rag.splitting.chunkers import Chunkers
from rag.splitting.chunking import Chunker
from tenants.context import TenantContext
from tenants.ledger.budget import Ledger
from tenants.limits.quotas import UNLIMITED
from tenants.registry import TenantRegistry
from tests.postgresql import database_url
from tests.support import served_engine
from tests.tables import make_tables

PARAGRAPHS = [f"{word} " * 40 for word in ("ash", "birch", "cedar", "elm", "fir", "oak", "pine", "yew")]
TENANTS, NAMES, LABELS = 2, ("one", "two", "three"), ("red", "blue")


class Died(BaseException):
    """A kill -9, as far as one process can play it."""


def _die() -> None:
    raise Died


class InProcessReader:
    """Reads without the sandbox, which has tests of its own and would cost a fork a document here."""

    def read(self, path: Path, media_type: str, *_note: object) -> Parsed:
        parsed = read(path.read_bytes(), media_type, max_chars=10**6)
        return replace(parsed, text=parsed.text + "\n")  # as of other formats, the text is another blob than the content


@dataclass
class Expected:
    """What the model knows of one document."""

    last: int = 0
    live: int = 0
    texts: dict[int, tuple[str, tuple[str, ...]]] = field(default_factory=dict)  #: version → text, labels
    cancelled: set[int] = field(default_factory=set)  #: versions whose cancellation was acknowledged


@dataclass(frozen=True)
class Task:
    tenant: int
    name: str
    document: Expected
    version: int  #: 0: a delete
    arguments: tuple[str, str]


class IngestModel(RuleBasedStateMachine):
    kind = "sqlite"
    tasks: Bundle[Task] = Bundle("tasks")

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="carrel-model-"))
        self.opened = database_url(self.kind, self.folder)
        self.database = Database(self.opened.__enter__(), synchronous="off")
        make_tables(self.database)
        self.serving = served_engine(self.folder)
        self.engine = self.serving.__enter__()
        runtime = HashRuntime()
        self.embedding = EmbeddingService(Batcher(runtime, batch_tokens=2048), NullVectorCache())
        self.chunker = Chunker(runtime.tokenizer_json)
        self.registry = TenantRegistry(self.database, system_clock)
        self.ledger = Ledger(self.database, system_clock, lease_s=60)
        self.blobs = BlobStore(self.folder / "blobs")
        self.queue = MemoryQueue()
        profiles = Profiles(BUILT_IN, runtime)
        collections = Collections(self.database, system_clock, runtime.fingerprint, profiles, UNLIMITED)
        collections.register_space()
        self.documents = Documents(
            self.database, system_clock, collections, self.blobs, self.queue, self.ledger, DocumentLimits(10**6)
        )
        self.retriever = Retriever(self.database, collections, self.engine, self.embedding, results=ResultCache(1 << 20))
        self.pipeline = Pipeline(
            self.database,
            system_clock,
            self.blobs,
            InProcessReader(),  # type: ignore[arg-type]
            Chunkers(runtime.tokenizer_json),
            self.embedding,
            self.engine,
            self.ledger,
            Collector(self.database, system_clock, self.blobs, self.engine, self.embedding, self.queue, keep_failed_days=0),
            self.queue,
            max_chunks=1000,
        )
        self.contexts = [self._new_tenant(number) for number in range(TENANTS)]
        self.model: list[dict[str, Expected]] = [{} for _ in range(TENANTS)]
        self.unfinished: dict[tuple[str, str], Task] = {}

    def _new_tenant(self, number: int) -> TenantContext:
        tenant = self.registry.create(f"tenant-{number}", monthly_tokens=None)
        return self.registry.context_of_job(tenant.id, "model")

    @rule(
        target=tasks,
        tenant=st.integers(0, TENANTS - 1),
        name=st.sampled_from(NAMES),
        paragraphs=st.lists(st.sampled_from(PARAGRAPHS), min_size=1, max_size=6),
        labels=st.lists(st.sampled_from(LABELS), unique=True, max_size=2),
    )
    def submit(self, tenant: int, name: str, paragraphs: list[str], labels: list[str]) -> Task | None:
        text, expected = "\n\n".join(paragraphs), self.model[tenant].setdefault(name, Expected())
        submission = Submission(text.encode(), external_id=name, labels=labels, media_type="text/plain")
        before = len(self.queue.waiting)
        submitted = self.documents.for_tenant(self.contexts[tenant]).submit(submission)
        if len(self.queue.waiting) == before:
            newest = expected.texts[expected.last]
            assert newest == (text, tuple(sorted(labels))), "a submission that differs was taken for a repetition"
            return self._nothing(tenant, name, expected)
        expected.last += 1
        assert submitted.shown.version.number == expected.last
        expected.texts[expected.last] = (text, tuple(sorted(labels)))
        return self._task(tenant, name, expected, expected.last)

    @rule(target=tasks, tenant=st.integers(0, TENANTS - 1), name=st.sampled_from(NAMES))
    def delete(self, tenant: int, name: str) -> Task | None:
        expected = self.model[tenant].pop(name, None)
        handle = self.documents.for_tenant(self.contexts[tenant])
        shown, _ = handle.list(collection=None, after=None, limit=100)
        found = [item.document.id for item in shown if item.document.external_id == name]
        assert len(found) == (expected is not None)
        if expected is None:
            return self._nothing(tenant, name, Expected())
        other = self.documents.for_tenant(self.contexts[1 - tenant])
        with pytest.raises(NotFound):
            other.delete(found[0])
        handle.delete(found[0])
        expected.live = expected.last = -1  # older tasks of this document must change nothing any more
        return self._task(tenant, name, expected, 0)

    def _task(self, tenant: int, name: str, expected: Expected, version: int) -> Task:
        task = Task(tenant, name, expected, version, self.queue.waiting.pop())
        self.unfinished[task.arguments] = task
        return task

    def _nothing(self, tenant: int, name: str, expected: Expected) -> Task:
        return Task(tenant, name, expected, -1, ("", ""))

    @rule(task=tasks)
    def run(self, task: Task) -> None:
        """Also of what ran already: a job that is run again must change nothing."""
        if task.version >= 0:
            self._run(task, self._steps())

    @rule(task=tasks, survived=st.integers(0, 6), after=st.booleans())
    def run_and_die(self, task: Task, survived: int, after: bool) -> None:
        if task.version >= 0:
            try:
                self._run(task, self._steps(survived, after))
            except Died:
                self._sync(task)

    @rule(task=tasks)
    def cancel(self, task: Task) -> None:
        if task.version < 1:
            return
        jobs, job_id = Jobs(self.database, system_clock, self.queue), task.arguments[1]
        with pytest.raises(NotFound):
            jobs.for_tenant(self.contexts[1 - task.tenant]).cancel(job_id)
        if jobs.for_tenant(self.contexts[task.tenant]).cancel(job_id).state == "cancelled":
            task.document.cancelled.add(task.version)

    @rule(task=tasks, survived=st.integers(0, 6), after=st.booleans())
    def run_and_cancel(self, task: Task, survived: int, after: bool) -> None:
        if task.version > 0:
            self._run(task, self._steps(survived, after, lambda: self.cancel(task)))

    def _run(self, task: Task, steps: Steps) -> None:
        process(steps, *task.arguments)
        self.unfinished.pop(task.arguments, None)
        self._sync(task)

    def _sync(self, task: Task) -> None:
        """Let the model follow what this task may have made live."""
        expected = task.document
        if expected.last < 0 or task.version < 1:
            return
        handle = self.documents.for_tenant(self.contexts[task.tenant])
        shown, _ = handle.list(collection=None, after=None, limit=100)
        mine = next(item for item in shown if item.document.external_id == task.name)
        became = mine.document.live_number
        assert became in (expected.live, max(expected.live, task.version)), "an older version replaced a newer one"
        assert became not in expected.cancelled, "a cancelled version is live"
        if task.arguments not in self.unfinished:
            assert became >= task.version or task.version in expected.cancelled, "a finished job is not live"
        expected.live = became

    def _steps(self, survived: int = -2, after: bool = False, interrupt: Callable[[], None] = _die) -> Steps:
        """`interrupt` comes before or after the step that follows `survived` of them."""
        count = 0

        def wrap(_name: str, step: Step) -> Step:
            def counted(*args: object) -> dict[str, object] | None:
                nonlocal count
                count += 1
                if count == survived + 1 and not after:
                    interrupt()
                outcome = step(*args)
                assert outcome is None or outcome.get("code") != "internal_error", outcome
                if count == survived + 1 and after:
                    interrupt()
                return outcome

            return counted

        def never(_seconds: float) -> None:
            raise AssertionError("nothing is unavailable here")

        return Steps.of(self.pipeline, self.registry.context_of_job, pause=never, wrap=wrap)

    @rule(tenant=st.integers(0, TENANTS - 1), held=st.none() | st.lists(st.sampled_from(LABELS), unique=True))
    def query(self, tenant: int, held: list[str] | None) -> None:
        labels = None if held is None else frozenset(held)
        assert self._answer(tenant, labels) == self._expected(tenant, labels)

    def _answer(self, tenant: int, labels: frozenset[str] | None) -> Counter[tuple[str, int, int, int, str]]:
        context = replace(self.contexts[tenant], labels=labels)
        meter = self.ledger.for_tenant(context, "query")
        question = Question("oak pine", ("default",), top_k=100)
        answer = self.retriever.for_tenant(context, meter).query(question, charge_id=f"q{system_clock()}{id(question)}")
        return Counter((p.external_id, p.version, p.start, p.end, p.text) for p in answer.passages)

    def _expected(self, tenant: int, labels: frozenset[str] | None) -> Counter[tuple[str, int, int, int, str]]:
        passages: Counter[tuple[str, int, int, int, str]] = Counter()
        for name, expected in self.model[tenant].items():
            if expected.live < 1:
                continue
            text, needed = expected.texts[expected.live]
            if labels is not None and not labels.issuperset(needed):
                continue
            for piece in self.chunker.split(text, title=""):
                passages[(name, expected.live, piece.start, piece.end, piece.text)] += 1
        return passages

    @invariant()
    def every_indexed_row_has_its_point(self) -> None:
        for context in getattr(self, "contexts", []):
            points = set(self.engine.for_tenant(context, self.embedding.space).ids())
            with self.database.read(context) as session:
                indexed = {row.id for row in session.scalars(select(Chunk)) if row.indexed}
            assert indexed <= points

    def teardown(self) -> None:
        if not hasattr(self, "folder"):
            return
        try:
            for task in [*self.unfinished.values()]:
                self._run(task, self._steps())
            for tenant in range(TENANTS):
                self._nothing_is_left_over(tenant)
        finally:
            self.serving.__exit__(None, None, None)
            self.embedding.close()
            self.database.close()
            self.opened.__exit__(None, None, None)
            shutil.rmtree(self.folder)

    def _nothing_is_left_over(self, tenant: int) -> None:
        context = self.contexts[tenant]
        expected = self._expected(tenant, None)
        assert self._answer(tenant, None) == expected
        points = self.engine.for_tenant(context, self.embedding.space).ids()
        with self.database.read(context) as session:
            chunks = sorted(row.id for row in session.scalars(select(Chunk)))
            places = len([*session.scalars(select(VersionChunk))])
            for collection in session.scalars(select(col(Collection.id))):
                assert total([*read_counts_of(session, collection).values()]) == recount(session, collection)
        assert points == chunks
        assert places == len(chunks) == expected.total()
        live = sum(document.live > 0 for model in self.model for document in model.values())
        assert self.blobs.count() == 2 * live


class IngestModelOnPostgreSQL(IngestModel):
    kind = "postgresql"


def _run(model: type[IngestModel], examples: int, steps: int) -> Callable[[], None]:
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        phases=[Phase.explicit, Phase.generate],  # shrinking over a real engine takes minutes and hides the failure meanwhile
    )
    return lambda: run_state_machine_as_test(model, settings=profile)


def test_no_history_of_operations_shows_a_foreign_stale_lost_or_doubled_passage() -> None:
    _run(IngestModel, examples=12, steps=25)()


def test_the_same_on_postgresql() -> None:
    _run(IngestModelOnPostgreSQL, examples=4, steps=25)()


@pytest.mark.full
@pytest.mark.parametrize("model", [IngestModel, IngestModelOnPostgreSQL])
def test_many_long_histories(model: type[IngestModel]) -> None:
    _run(model, examples=300, steps=60)()
