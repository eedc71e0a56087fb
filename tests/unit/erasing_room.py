"""Two tenants whose sessions have something in every table, and what erases them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import SQLModel, col, select

from config.clock import system_clock
from config.database import Database
from ingestion.conversations.attached import AttachedDocuments
from ingestion.conversations.turn_vectors import TurnEmbedding
from ingestion.erasing import reach
from ingestion.erasing.reach import Table, tables
from ingestion.erasing.removal import Erasing
from ingestion.erasing.requests import Erasures, TenantErasures
from ingestion.intake.submission import Submission
from ingestion.jobs.tables import Erasure
from rag.memories.memories import Memories
from rag.memories.tables import MemorySubject
from rag.memories.values import Fact
from rag.recall.recall import Recall, RecallQuestion
from rag.recall.resident import Residents
from rag.recall.tables import TurnVector
from rag.retrieval.question import Question
from rag.sessions.sessions import Sessions
from rag.sessions.sweeping import SessionSweeper
from rag.sessions.tables import ChatSession, SessionTag, Turn, TurnArchive
from rag.sessions.values import NewSession, NewTurn
from rag.traces.left import Left, TracePolicy
from rag.traces.recorder import Tracer
from tenants.context import TenantContext
from tenants.idempotency import Call, Claim, IdempotencyStore, Result
from tenants.limits.quotas import UNLIMITED
from tests.support import FreeMeter
from tests.world import TENANTS, World

ASH, ELM = TENANTS
#: What a session or a document fills by itself; every other table is given a row by `plant`.
FILLED = {ChatSession, SessionTag, Turn, TurnArchive, TurnVector, MemorySubject}
numbers = itertools.count(1)


@dataclass
class Room:
    world: World
    results: IdempotencyStore

    def __post_init__(self) -> None:
        database, embedding = self.world.database, self.world.embedding
        self.residents = Residents(embedding.space.dimensions, 10**8)
        self.recall = Recall(database, system_clock, embedding, self.residents)
        self.memories = Memories(database, system_clock, embedding, 100)
        self.tracer = Tracer(database, system_clock, lambda _: TracePolicy(1.0, "full", 30), embedding.space.id)

    def context(self, tenant: str, subject: str | None = None) -> TenantContext:
        return replace(self.world.contexts[tenant], subject=subject)

    def erasures(self, tenant: str, subject: str | None = None) -> TenantErasures:
        parts = Erasures(self.world.database, system_clock, self.results, self.world.embedding, self.residents.forget)
        return parts.for_tenant(self.context(tenant, subject))

    def erasing(self, database: Database | None = None, *, grace_ms: int = 0) -> Erasing:
        world = self.world
        parts = (database or world.database, system_clock, world.registry, self.results, world.blobs, world.store)
        return Erasing(*parts, world.collector, world.embedding, grace_ms=grace_ms, pause=lambda _seconds: None)

    def expire(self, tenant: str, session_id: str) -> None:
        """Its time is up, and the worker has seen that."""
        with self.world.database.write(self.context(tenant)) as sql:
            sql.get_one(ChatSession, session_id).expires_at = 1
        sweeper = SessionSweeper(Sessions(self.world.database, system_clock, UNLIMITED), pause=lambda _seconds: None)
        assert sweeper.run_once() == 1

    def settle(self, erasure: Erasure) -> Erasure:
        for _ in range(3):
            self.erasing().run_once()
        done = self.erasures(ASH).get(erasure.id)
        assert done.state == "done"
        return done

    def talk(self, tenant: str, subject: str) -> str:
        """A session that has something in every table; each text of it has the subject's name in it."""
        context, said = self.context(tenant), f"canary of {subject}"
        new = NewSession(subject=subject, title=said, tags=[said], metadata={"note": said})
        session = Sessions(self.world.database, system_clock, UNLIMITED).for_tenant(context)
        chat = session.create(new)
        turns = [NewTurn("user", f"{said} {number}", speaker=said, metadata={"x": said}) for number in range(3)]
        session.append(chat.id, turns)
        world = self.world
        while TurnEmbedding(
            world.database, system_clock, world.embedding, world.ledger, world.registry.context_of_job
        ).run_once():
            pass
        attached = AttachedDocuments(self.world.documents, self.world.embedding.space).for_tenant(context)
        for number in (1, 2):  # the second is another version of it
            content = f"{said}, version {number}, on paper.".encode()
            attached.submit(chat.id, Submission(content, external_id=said, title=said, media_type="text/plain"))
            self.world.run_jobs()
        self.recall.for_tenant(context, FreeMeter()).in_session(chat.id, RecallQuestion(said), charge_id="q")
        remembers = self.memories.for_tenant(context, FreeMeter(), by="key")
        for number, of in ((1, chat.id), (2, "")):  # that goes with the session, and that does not
            remembers.add([Fact(f"{said} likes {number}")], charge_id="m", subject=subject, session_id=of)
        self.leave(context, chat.id, subject)
        self.tracer.flush()
        self._answer(context, chat.id, subject, said)
        self.plant(context, chat.id, subject, said)
        return chat.id

    def leave(self, context: TenantContext, session_id: str, subject: str) -> None:
        """Traces of a context in the session, and of a question of the subject's own; they are not written yet."""
        asked = Question(f"canary of {subject}?", ("default",))
        self.tracer.leave(context, Left("context", asked, session_id=session_id, subject=subject), request="r")
        self.tracer.leave(replace(context, subject=subject), Left("query", asked), request="r")

    def _answer(self, context: TenantContext, session_id: str, subject: str, said: str) -> None:
        owner = context.tenant_id
        for route, key in (("POST /v1/memories", "1"), (f"POST /v1/sessions/{session_id}/turns", "2")):
            named = subject if key == "1" else None
            claim = self.results.claim(Call(owner, owner, route, f"{said} {next(numbers)}", b"", named))
            assert isinstance(claim, Claim)
            self.results.finish(claim, Result(200, said.encode(), None if named else session_id))

    def plant(self, context: TenantContext, session_id: str, subject: str, said: str) -> None:
        made: dict[str, dict[str, Any]] = {"sessions": {"id": session_id}}
        with self.world.database.write(context) as sql:
            made["turns"] = {"id": sql.scalars(select(col(Turn.id)).where(col(Turn.session_id) == session_id)).first()}
            documents = reach.documents_family()
            for table in reversed(tables()):
                if table in FILLED or table in documents:
                    continue
                row = _row(table, {"tenant_id": context.tenant_id, "session_id": session_id, "subject": subject}, made, said)
                made[str(table.__tablename__)] = row
                sql.execute(sa.insert(table), [row])

    def traces_of(self, subject: str) -> list[str]:
        """Every place where the subject's name is found."""
        found, name = [], subject.encode()
        with self.world.database.system_read() as sql:
            for table in SQLModel.metadata.sorted_tables:
                rows = sql.execute(sa.select(table)).all()
                found += [table.name for row in rows if subject in str(row)]
        found += [path.name for path in (self.world.folder / "blobs").glob("??/*") if name in path.read_bytes()]
        if not self.world.database.is_postgresql:  # beside the file itself, whose pages `secure_delete` clears
            file = Path(self.world.database.engine.url.database or "")
            found += [path.name for path in file.parent.glob(f"{file.name}-*") if name in path.read_bytes()]
        return found

    def counted(self, tenant: str, subject: str) -> dict[str, int]:
        return {name: len([1 for row in rows if subject in str(row)]) for name, rows in self.world.rows(tenant).items()}


def _row(table: Table, known: dict[str, Any], made: dict[str, dict[str, Any]], said: str) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for column in table.__table__.columns:  # type: ignore[attr-defined]
        parent = next((key.column for key in column.foreign_keys), None)
        if column.name in known:
            row[column.name] = known[column.name]
        elif parent is not None:
            row[column.name] = made[parent.table.name][parent.name]
        elif isinstance(column.type, sa.JSON):
            row[column.name] = {"x": said} if table.model_fields[column.name].default_factory is dict else [said]
        elif isinstance(column.type, sa.LargeBinary):
            row[column.name] = said.encode()
        elif isinstance(column.type, sa.Boolean):
            row[column.name] = False
        else:
            row[column.name] = next(numbers) if isinstance(column.type, sa.Integer | sa.Float) else f"{said} {next(numbers)}"
    return row
