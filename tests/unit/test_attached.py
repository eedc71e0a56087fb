"""What is attached to a session: found with it by whoever reaches it, and by nobody and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import system_clock
from config.database import Database
from config.errors import Conflict, Forbidden, InvalidInput, NotFound
from ingestion.conversations import exporting, promotion
from ingestion.conversations.attached import AttachedDocuments, TenantAttached
from ingestion.conversations.exporting import Exports
from ingestion.conversations.promotion import Promotion
from ingestion.conversations.transcripts import content_of
from ingestion.conversations.turn_vectors import TurnEmbedding
from ingestion.erasing.requests import end_sessions
from ingestion.intake.passages import Passages
from ingestion.intake.submission import Submission
from ingestion.jobs.jobs import Jobs
from ingestion.jobs.tables import Job
from ingestion.repair.quotas import recount
from rag.attached import name_of
from rag.corpus import Chunk, Collection, VersionChunk
from rag.embedding.batcher import Batcher
from rag.embedding.hashing import HashRuntime
from rag.embedding.runtime import Matrix
from rag.recall.tables import TurnVector
from rag.retrieval.question import Question
from rag.sessions.sessions import Sessions
from rag.sessions.tables import CLOSED, ERASED, ChatSession
from rag.sessions.values import NewSession, NewTurn
from rag.store.memory import MemoryStore
from tenants.context import TenantContext
from tenants.limits.quotas import used_of
from tenants.tables import LedgerEntry
from tests.support import FreeMeter
from tests.world import TENANTS, World

POSTGRESQL_DAILY = False
ASH, ELM = TENANTS
TEXT = "The lighthouse keeper paints the gallery blue each spring."


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(database, MemoryStore(), tmp_path)
    yield world
    world.close()


def conversation(world: World, name: str = ASH, subject: str = "alice") -> str:
    return Sessions(world.database, system_clock).for_tenant(world.contexts[name]).create(NewSession(subject=subject)).id


def attached(world: World, context: TenantContext) -> TenantAttached:
    return AttachedDocuments(world.documents, world.embedding.space).for_tenant(context)


def attach(world: World, session_id: str, text: str = TEXT, *, context: TenantContext | None = None) -> tuple[str, str]:
    """Ids of the document and of its job, which has ended."""
    submission = Submission(text.encode(), external_id="note", media_type="text/plain")
    submitted = attached(world, context or world.contexts[ASH]).submit(session_id, submission)
    assert submitted.job is not None
    world.run_jobs()
    return submitted.shown.document.id, submitted.job.id


def ask(world: World, context: TenantContext, session: str | None, *collections: str) -> list[str]:
    question = Question("lighthouse gallery", collections, session=session, top_k=100)
    found = world.retriever.for_tenant(context, FreeMeter()).query(question, charge_id="q")
    return [passage.text for passage in found.passages]


def test_it_is_searched_with_its_session_only(world: World) -> None:
    world.fill()
    ash, elm = world.contexts[ASH], world.contexts[ELM]
    mine, other, foreign = conversation(world), conversation(world, subject="bob"), conversation(world, ELM)
    attach(world, mine)
    alice, bob = (replace(ash, subject=name, collections=frozenset({"other"})) for name in ("alice", "bob"))
    for context, collections in ((ash, ()), (ash, ("default",)), (alice, ())):
        assert TEXT in ask(world, context, mine, *collections)
    assert len(ask(world, ash, mine, "default")) == 1 + len(ask(world, ash, None, "default"))
    assert TEXT not in ask(world, ash, None, "default")
    assert ask(world, ash, other) == ask(world, elm, foreign) == []
    for context, session in ((bob, mine), (elm, mine), (ash, foreign), (ash, "ses_none")):
        with pytest.raises(NotFound):
            ask(world, context, session)
    with pytest.raises(InvalidInput, match="collections"):
        ask(world, ash, None)
    with pytest.raises(NotFound):
        ask(world, ash, None, name_of(mine))


def test_nothing_but_its_session_leads_to_it(world: World) -> None:
    world.fill()
    ash, session = world.contexts[ASH], conversation(world)
    document, job = attach(world, session)
    catalogue = world.of(ASH)
    assert document not in {shown.document.id for shown in catalogue.list(collection=None, after=None, limit=100)[0]}
    with world.database.read(ash) as sql:
        names = [row.name for row in world.all(ASH, Collection)]
        counted = recount(sql), used_of(sql, ash.tenant_id)
    assert sorted(names) == ["default", name_of(session)]
    assert [row.name for row, _ in world.documents.collections.for_tenant(ash).list(after=None, limit=9)] == ["default"]
    assert counted[0].collections == counted[1].collections == 1
    assert counted[0].documents == counted[1].documents == 3, "its documents count as all do"
    passages = Passages(world.database, world.blobs)
    [passage] = [row.id for row in _passages(world, session)]
    for refused in (
        lambda: catalogue.get(document),
        lambda: catalogue.text(document),
        lambda: catalogue.delete(document),
        lambda: catalogue.list(collection=name_of(session), after=None, limit=9),
        lambda: catalogue.submit(Submission(b"x", collection=name_of(session), media_type="text/plain")),
        lambda: passages.for_tenant(ash).get(passage, around=0),
        lambda: attached(world, ash).submit(session, Submission(b"x", collection="other", media_type="text/plain")),
    ):
        with pytest.raises((NotFound, InvalidInput)):
            refused()
    assert passages.for_tenant(ash.within(session)).get(passage, around=0).passage.text == TEXT
    jobs = Jobs(world.database, system_clock, world.queue)
    assert job not in {row.id for row in jobs.for_tenant(ash).list(limit=100)[0]}
    assert jobs.for_tenant(replace(ash, subject="alice", collections=frozenset({"x"}))).get(job).state == "succeeded"
    for foreign in (replace(ash, subject="bob"), world.contexts[ELM]):
        with pytest.raises(NotFound):
            jobs.for_tenant(foreign).get(job)


def _passages(world: World, session: str) -> list[object]:
    question = Question("lighthouse gallery", (), session=session)
    return [*world.retriever.for_tenant(world.contexts[ASH], FreeMeter()).query(question, charge_id="q").passages]


def test_whoever_reaches_the_session_lists_reads_and_deletes_what_is_attached(world: World) -> None:
    session, other = conversation(world), conversation(world)
    document, _ = attach(world, session)
    handle = attached(world, world.contexts[ASH])
    [shown] = handle.within(session).list(collection=None, after=None, limit=9)[0]
    assert (shown.document.id, shown.collection) == (document, name_of(session))
    assert handle.within(session).text(document)[1].strip() == TEXT
    assert handle.within(other).list(collection=None, after=None, limit=9)[0] == []
    handle.require(session, [document])
    for elsewhere in (other, session):
        with pytest.raises(NotFound):
            handle.require(elsewhere, ["doc_none"] if elsewhere == session else [document])
    with pytest.raises(NotFound):
        handle.within(other).delete(document)
    handle.within(session).delete(document)
    world.run_jobs()
    assert ask(world, world.contexts[ASH], session) == []
    world.check_invariants()


def test_a_session_that_is_not_open_takes_nothing_and_attaching_keeps_it_alive(world: World) -> None:
    ash = world.contexts[ASH]
    session = Sessions(world.database, system_clock).for_tenant(ash).create(NewSession(subject="alice", idle_ttl_s=3600)).id
    before = world.all(ASH, ChatSession)[0].expires_at
    with world.database.write(ash) as sql:
        sql.get_one(ChatSession, session).last_active_at -= 5_000
    attach(world, session)
    assert world.all(ASH, ChatSession)[0].expires_at >= before
    with world.database.write(ash) as sql:
        sql.get_one(ChatSession, session).state = CLOSED
    with pytest.raises(Conflict):
        attach(world, session, "another")
    assert ask(world, ash, session) == [TEXT]


class Counting(HashRuntime):
    """Remembers how many texts it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.texts = 0

    def embed(self, texts: Sequence[str]) -> Matrix:
        self.texts += len(texts)
        return super().embed(texts)


def test_a_promoted_document_keeps_its_vectors_and_costs_nothing(database: Database, tmp_path: Path) -> None:
    runtime = Counting()
    world = World(database, MemoryStore(), tmp_path, embedder=Batcher(runtime, batch_tokens=2048))  # and no cache
    ash = world.contexts[ASH]
    session, other = conversation(world), conversation(world, ELM)
    text = "\n\n".join(f"Keeper {number} notes wind and weather of day {number}. " * 30 for number in range(80))
    document, _ = attach(world, session, text)
    promoting = Promotion(AttachedDocuments(world.documents, world.embedding.space))
    embedded, entries = runtime.texts, world.all(ASH, LedgerEntry)
    assert embedded > 64, "more than one batch"
    before = {row.text: row.id for row in world.all(ASH, Chunk)}
    [promoted] = promoting.promote(ash, session, collection="kept")
    for again in (None, [document]):  # nothing is done twice
        [same] = promoting.promote(ash, session, collection="kept", documents=again)
        assert same.submitted.shown.document.id == promoted.submitted.shown.document.id
    world.run_jobs()
    assert promoted.submitted.job is not None
    [job] = [job for job in world.all(ASH, Job) if job.id == promoted.submitted.job.id]
    assert (job.state, job.tokens_charged, job.tokens_cached) == ("succeeded", 0, job.tokens_total)
    assert runtime.texts == embedded
    assert world.all(ASH, LedgerEntry) == entries
    kept = [row for row in world.all(ASH, Chunk) if row.document_id != document]
    assert {row.text for row in kept} == set(before)
    vectors = world.vectors(ASH).vectors([row.id for row in kept] + [*before.values()])
    assert all(np.array_equal(vectors[row.id], vectors[before[row.text]]) for row in kept)
    assert (promoted.document_id, promoted.submitted.shown.collection) == (document, "kept")
    assert promoted.submitted.shown.document.external_id == "note"
    with pytest.raises(NotFound):
        promoting.promote(world.contexts[ELM], session, collection="kept")
    for wrong in (["doc_none"], [promoted.submitted.shown.document.id]):
        with pytest.raises(NotFound):
            promoting.promote(ash, session, collection="kept", documents=wrong)
    assert promoting.promote(world.contexts[ELM], other, collection="kept") == []
    world.close()


def test_turns_are_promoted_as_a_document_that_is_cut_at_them_with_the_vectors_of_recall(
    database: Database, tmp_path: Path
) -> None:
    runtime = Counting()
    world = World(database, MemoryStore(), tmp_path, embedder=Batcher(runtime, batch_tokens=2048))  # and no cache
    ash, session = world.contexts[ASH], conversation(world)
    said = [f"Buoy {number} drifts near the harbour wall." for number in range(80)] + ["", "  The last word.\n"]
    turns = [NewTurn("user", text, speaker="Ada" if text else None) for text in said]
    Sessions(world.database, system_clock).for_tenant(ash).append(session, turns)
    promoting = Promotion(AttachedDocuments(world.documents, world.embedding.space))
    with pytest.raises(InvalidInput):
        promoting.transcript(world.contexts[ELM], conversation(world, ELM), collection="kept")
    work = TurnEmbedding(world.database, system_clock, world.embedding, world.ledger, world.registry.context_of_job)
    while work.run_once():
        pass
    embedded, entries = runtime.texts, world.all(ASH, LedgerEntry)
    assert embedded == 81
    submitted = promoting.transcript(ash, session, collection="kept")
    world.run_jobs()
    assert submitted.job is not None
    [job] = [job for job in world.all(ASH, Job) if job.id == submitted.job.id]
    assert (job.state, job.tokens_charged, job.tokens_cached) == ("succeeded", 0, job.tokens_total)
    assert runtime.texts == embedded
    assert world.all(ASH, LedgerEntry) == entries
    question = Question("buoy 17 harbour", ("kept",), top_k=100)
    found = world.retriever.for_tenant(ash, FreeMeter()).query(question, charge_id="q").passages
    text = world.of(ASH).text(submitted.shown.document.id)[1]
    assert len(found) == 81
    assert all(text[passage.start : passage.end] == passage.text for passage in found)
    [seventeenth] = [passage for passage in found if passage.text == "Ada: Buoy 17 drifts near the harbour wall."]
    assert (seventeenth.first_page, seventeenth.headings[0]) == (18, "Ada")
    assert max(passage.first_page or 0 for passage in found) == 82, "a turn without words has its number all the same"
    Sessions(world.database, system_clock).for_tenant(ash).append(session, [NewTurn("user", "Long. " * 2_000)])
    again = promoting.transcript(ash, session, collection="kept")
    world.run_jobs()
    assert again.shown.document.id == submitted.shown.document.id
    with world.database.read(ash) as sql:
        pages = sql.scalars(select(col(VersionChunk.first_page)).where(col(VersionChunk.version_id) == again.shown.version.id))
        assert [*pages].count(83) > 1, "too long for one chunk"
    world.close()


def test_of_a_session_that_ends_while_it_is_read_nothing_is_promoted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ash, mine, theirs = world.contexts[ASH], conversation(world), conversation(world, ELM)
    for name, session_id in ((ASH, mine), (ELM, theirs)):
        Sessions(world.database, system_clock).for_tenant(world.contexts[name]).append(session_id, [NewTurn("user", "a word")])

    def read(session: Session, session_id: str) -> bytes:
        content = content_of(session, session_id)
        with world.database.system_write() as other:
            end_sessions(other, ash.tenant_id, col(ChatSession.id) == mine, system_clock())
        return content

    monkeypatch.setattr(promotion, "content_of", read)
    promoting = Promotion(AttachedDocuments(world.documents, world.embedding.space))
    with pytest.raises(NotFound):
        promoting.transcript(ash, mine, collection="kept")
    assert world.all(ASH, Job) == []
    assert promoting.transcript(world.contexts[ELM], theirs, collection="kept").job is not None


def test_an_export_has_all_of_a_session_in_lines_and_ends_with_how_much_there_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PAGE", 3)
    monkeypatch.setattr(exporting, "TEXT_CHARS", 20)
    ash, mine, second = world.contexts[ASH], conversation(world), conversation(world)
    conversation(world, subject="bob")
    conversation(world, ELM)
    sessions = Sessions(world.database, system_clock).for_tenant(ash)
    sessions.append(mine, [NewTurn("user", f"turn {number}", metadata={"n": number}) for number in range(7)])
    document, _ = attach(world, mine)
    exports = Exports(AttachedDocuments(world.documents, world.embedding.space))
    lines = [*exports.for_tenant(replace(ash, subject="alice")).of_session(mine)]
    kinds = [line["type"] for line in lines]
    assert kinds == ["session"] + ["turn"] * 7 + ["document"] + ["document_text"] * 3 + ["session_end"]
    assert [line["content"] for line in lines if line["type"] == "turn"] == [f"turn {number}" for number in range(7)]
    assert (lines[1]["metadata"], lines[0]["subject"], lines[8]["id"]) == ({"n": 0}, "alice", document)
    text = "".join(line["text"] for line in lines if line["type"] == "document_text")
    assert (text.strip(), lines[10]["start"]) == (TEXT, 20)
    assert (lines[-1]["turns"], lines[-1]["documents"]) == (7, 1)
    assert all("tenant_id" not in line for line in lines)
    json.dumps(lines)
    whole = [*exports.for_tenant(ash).of_subject("alice")]
    assert [line["id"] for line in whole if line["type"] == "session"] == [mine, second]
    assert whole[-1] == {"type": "subject_end", "subject": "alice", "sessions": 2}
    for context in (replace(ash, subject="bob"), world.contexts[ELM]):
        with pytest.raises(NotFound):
            exports.for_tenant(context).of_session(mine)
    with pytest.raises(Forbidden):
        exports.for_tenant(replace(ash, subject="bob")).of_subject("alice")
    third = conversation(world)
    running, all_of_alice = exports.for_tenant(ash).of_session(mine), exports.for_tenant(ash).of_subject("alice")
    assert [next(each)["type"] for each in (running, all_of_alice, all_of_alice)] == ["session", "session", "turn"]
    with world.database.write(ash) as sql:
        for over in (mine, third):
            sql.get_one(ChatSession, over).state = ERASED
    with pytest.raises(NotFound):  # what is over is told no further, and the end is missing
        list(running)
    rest = [(line["type"], line.get("id")) for line in all_of_alice if line["type"] != "turn"]
    assert rest == [("session", second), ("session_end", second), ("subject_end", None)], "and the others are told of"


def test_a_tenant_whose_turns_cannot_be_embedded_holds_up_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, other = sorted(TENANTS, key=lambda name: world.contexts[name].tenant_id)
    for name in TENANTS:
        session = conversation(world, name)
        Sessions(world.database, system_clock).for_tenant(world.contexts[name]).append(session, [NewTurn("user", TEXT)])
    work = TurnEmbedding(world.database, system_clock, world.embedding, world.ledger, world.registry.context_of_job)
    embed = work._embed

    def failing(context: TenantContext) -> int:
        if context.tenant_id == world.contexts[broken].tenant_id:
            raise ZeroDivisionError
        return embed(context)

    monkeypatch.setattr(work, "_embed", failing)
    for _ in range(3):
        with suppress(ZeroDivisionError):
            work.run_once()
    assert [len(world.all(name, TurnVector)) for name in (broken, other)] == [0, 1]
