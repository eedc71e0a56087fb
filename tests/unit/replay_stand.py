"""Where questions are asked and asked again: two tenants with documents and conversations, and what replays their traces."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa

from api.schemas.context import ContextIn
from api.session_contexts import pack_session
from api.wiring.conversations import Conversations
from config.clock import system_clock
from config.database import Database
from ingestion.conversations.turn_vectors import TurnEmbedding
from rag.context.contexts import Contexts
from rag.context.recaps import Recaps
from rag.memories.memories import Memories, TenantMemories
from rag.memories.values import Fact, Memory
from rag.packing.counting import counter
from rag.packing.packing import pack
from rag.recall.recall import Recall, RecallQuestion
from rag.recall.resident import Residents
from rag.result_cache import ResultCache
from rag.retrieval.question import Question
from rag.sessions.sessions import Sessions
from rag.sessions.values import NewSession, NewTurn
from rag.store.base import VectorStore
from rag.traces.conversations_again import Conversing
from rag.traces.conversed import of_recall
from rag.traces.left import Left, Packing, TracePolicy
from rag.traces.reading import Traces
from rag.traces.recorder import Tracer
from rag.traces.replayed import Otherwise, Replayed
from rag.traces.replaying import Replayer
from rag.traces.tables import Trace
from rag.traces.wording import recall_to_json
from tenants.context import TenantContext
from tests.support import FreeMeter
from tests.unit.conftest import SetClock
from tests.world import TENANTS, World

ASH, ELM = TENANTS
WORDS = ("oak", "pine", "shelf", "lamp", "map", "globe", "atlas", "ladder", "desk", "chair", "window", "door")
AS_IT_WAS = Otherwise()


def sentences(name: str, number: int, count: int = 9) -> str:
    chance, told = random.Random(f"{name} {number}"), "The {} of {} stands by the {}."
    parts = (f"{name} {number}.{part}" for part in range(count))
    return "\n\n".join(
        " ".join(told.format(chance.choice(WORDS), part, chance.choice(WORDS)) for _ in range(6)) for part in parts
    )


FULL = TracePolicy(1.0, "full", 30)


@dataclass
class Stand:
    """Two tenants with documents, and what leaves and replays traces."""

    world: World
    policy: TracePolicy = FULL
    clock: SetClock = field(default_factory=lambda: SetClock(system_clock()))  #: of conversations

    def __post_init__(self) -> None:
        world, retriever = self.world, self.world.retriever
        self._converse()
        retriever.results = ResultCache(1 << 20)
        self.tracer = Tracer(world.database, self.clock, lambda _: self.policy, world.embedding.space.id)
        self.replayer = Replayer(world.database, retriever.collections, retriever, self.conversing)
        self.traces = Traces(world.database)
        for name in TENANTS:
            for number in range(3):
                attributes = {"floor": number, "wing": "north" if number % 2 else "south"}
                world.bring(name, f"document {number}", sentences(name, number), attributes=attributes)
            world.bring(name, "board", sentences(name, 9), labels=["board"])
        world.run_jobs()

    def _converse(self) -> None:
        world, clock = self.world, self.clock
        self.sessions = Sessions(world.database, clock)
        residents = Residents(world.embedding.space.dimensions, 10**8)
        self.conversing = Conversing(
            Contexts(world.database, clock, Recaps(world.database, clock)),
            Recall(world.database, clock, world.embedding, residents),
            Memories(world.database, clock, world.embedding, 1000),
        )
        self.turns = TurnEmbedding(world.database, clock, world.embedding, world.ledger, world.registry.context_of_job)

    @property
    def services(self) -> Any:
        """As far as contexts of sessions need them."""
        world = self.world
        parts = {name: getattr(self.conversing, name) for name in ("contexts", "recall", "memories")}
        conversations = Conversations(sessions=self.sessions, belongings=None, **parts)  # type: ignore[arg-type]
        core = SimpleNamespace(ledger=world.ledger, database=world.database, settings=SimpleNamespace(llm_price=0))
        given = {"core": core, "rewriting": None, "retriever": world.retriever, "embedding": world.embedding}
        return SimpleNamespace(**given, conversations=conversations, traces=SimpleNamespace(tracer=self.tracer))

    def say(self, context: TenantContext, contents: Sequence[str], session_id: str | None = None, **new: Any) -> str:
        """One turn each second, by Ann and by Ben."""
        handle = self.sessions.for_tenant(context)
        if session_id is None:
            session_id = handle.create(NewSession(**{"subject": context.subject or "ann", **new})).id
        self.clock.now += 1000
        turns = [
            NewTurn(("user", "assistant")[n % 2], text, ("Ann", "Ben")[n % 2], said_at=self.clock.now + n * 1000)
            for n, text in enumerate(contents)
        ]
        handle.append(session_id, turns)
        return session_id

    def embed_turns(self) -> None:
        while self.turns.run_once():
            pass

    def memories(self, context: TenantContext) -> TenantMemories:
        return self.conversing.memories.for_tenant(context, FreeMeter())

    def remember(self, context: TenantContext, fact: Fact, subject: str = "ann") -> Memory:
        self.clock.now += 1000
        added = self.memories(context).add([fact], subject=subject, charge_id=f"memory {self.clock.now}")
        self.clock.now += 1000
        return added.placed[0].memory

    def converse(self, context: TenantContext, session_id: str, **asked: Any) -> Trace:
        """A context of the session, as the route leaves its trace."""
        self.clock.now += 1000
        body = ContextIn(session=session_id, **{"max_tokens": 400, "collections": ["default"], **asked})
        packed = pack_session(self.services, context, body, charge_id=f"q {self.clock.now}")
        self.clock.now += 1000
        self.rendered = packed.rendered
        return self.newest(context)

    def recall(
        self, context: TenantContext, question: RecallQuestion, session_id: str | None = None, subject: str = "ann"
    ) -> Trace:
        handle = self.conversing.recall.for_tenant(context, FreeMeter())
        if session_id is not None:
            found = handle.in_session(session_id, question, charge_id="q")
        else:
            found = handle.of_subject(subject, question, charge_id="q")
        words = {"recall": recall_to_json(question)}
        left = Left("recall", subject=subject, session_id=session_id, conversed=of_recall(question.text, found), words=words)
        self.tracer.leave(context, left, request="r")
        return self.newest(context)

    def newest(self, context: TenantContext) -> Trace:
        self.clock.now += 1
        self.tracer.flush()
        everything = replace(context, labels=None, subject=None)
        with self.world.database.read(everything) as session:
            return session.scalars(sa.select(Trace).order_by(Trace.at.desc(), Trace.id.desc()).limit(1)).one()  # type: ignore[attr-defined]

    def context(self, name: str, **bounds: Any) -> TenantContext:
        return replace(self.world.contexts[name], **bounds)

    def ask(self, context: TenantContext, question: Question, *, kind: Any = "query") -> Trace:
        answer = self.world.retriever.for_tenant(context, FreeMeter()).query(question, charge_id="q")
        packing = None
        if kind == "context":
            packed = pack(answer.passages, 300, counter("o200k_base", self.world.embedding.model))
            packing = Packing(packed.text, packed.tokens, 300, "o200k_base", packed.left_out, packed.citations)
        name = self.tracer.leave(context, Left(kind, question, answer, packing), request="r")
        self.tracer.flush()
        return self.traces.for_tenant(replace(context, labels=None)).get(name or "")

    def replay(
        self, context: TenantContext, trace: Trace, otherwise: Otherwise = AS_IT_WAS, meter: FreeMeter | None = None
    ) -> Replayed:
        return self.replayer.for_tenant(context, meter or FreeMeter()).replay(trace, otherwise, charge_id="again")


def opened(folder: Path, store: VectorStore) -> Iterator[Stand]:
    database = Database(f"sqlite:///{folder / 'carrel.db'}", synchronous="off")
    world = World(database, store, folder)
    yield Stand(world)
    world.close()
    database.close()
