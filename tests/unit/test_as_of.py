"""What was known then: former versions are found as long as they are kept, by who may see them, and never after a delete."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import col

from api.openai.store_schemas import ResultOut
from config.clock import system_clock
from config.database import Database
from config.errors import InvalidInput, NotFound
from ingestion.intake.passages import Passages
from rag.arranging.wishes import NONE, Wishes
from rag.corpus import Chunk, Collection, DocumentVersion, VersionChunk
from rag.result_cache import ResultCache
from rag.retrieval.past import DAY_MS, kept_since, reaches_back_to
from rag.retrieval.question import Passage, Question
from rag.store.memory import MemoryStore
from tenants.context import TenantContext
from tests.properties.test_packing import passage
from tests.support import FreeMeter
from tests.world import TENANTS, World

POSTGRESQL_DAILY = False
ASH, ELM = TENANTS


@pytest.fixture
def world(sql_url: str, tmp_path: Path) -> Iterator[World]:
    """The first tenant keeps former versions for ten days, since twenty days ago; the second keeps none."""
    database = Database(sql_url)
    world = World(database, MemoryStore(), tmp_path)
    world.retriever.results = ResultCache(2**20)
    for name in TENANTS:
        world.retriever.collections.for_tenant(world.contexts[name]).create("default", keep_versions_days=10 * (name == ASH))
    world.change(ASH, sa.update(Collection).values(versions_kept_since=system_clock() - 20 * DAY_MS))
    yield world
    world.close()
    database.close()


def bring(world: World, text: str, *, days_ago: float, name: str = ASH, document: str = "rules", **fields: object) -> None:
    """A version that went live so long ago."""
    known = {version.id for version in world.all(name, DocumentVersion)}
    world.bring(name, document, text, **fields)
    world.run_jobs()
    at = system_clock() - int(days_ago * DAY_MS)
    [new] = [version for version in world.all(name, DocumentVersion) if version.id not in known]
    replaced = col(DocumentVersion.document_id) == new.document_id, col(DocumentVersion.number) == new.number - 1
    world.change(
        name,
        sa.update(DocumentVersion).where(col(DocumentVersion.id) == new.id).values(live_from=at),
        sa.update(DocumentVersion).where(*replaced).values(live_until=at),
    )


def ask(world: World, days_ago: float | None, who: str | TenantContext = ASH, wishes: Wishes = NONE) -> list[Passage]:
    as_of = None if days_ago is None else system_clock() - int(days_ago * DAY_MS)
    question = Question("loans of books", ("default",), as_of=as_of, wishes=wishes)
    context = world.contexts[who] if isinstance(who, str) else who
    return [*world.retriever.for_tenant(context, FreeMeter()).query(question, charge_id="q").passages]


def texts(passages: list[Passage]) -> list[str]:
    return sorted(passage.text.strip() for passage in passages)


def test_each_version_is_found_at_its_time(world: World) -> None:
    for number, days_ago in ((1, 9), (2, 6), (3, 3)):
        bring(world, f"Loans of books, {number}.", days_ago=days_ago)
    assert [texts(ask(world, days)) for days in (9.5, 8, 5, 1, None)] == [
        [],
        ["Loans of books, 1."],
        ["Loans of books, 2."],
        ["Loans of books, 3."],
        ["Loans of books, 3."],
    ]
    assert [passage.former for days in (8, 1) for passage in ask(world, days)] == [True, False]
    assert world.reconciler.check(repair=True).findings == []
    assert texts(ask(world, 8)) == ["Loans of books, 1."]


def test_a_time_of_which_not_everything_is_there_is_refused(world: World) -> None:
    bring(world, "Loans of books.", days_ago=0)
    for days, who, said in ((11, ASH, "since"), (1, ELM, "keeps no"), (-1, ASH, "future")):
        with pytest.raises(InvalidInput, match=said):
            ask(world, days, who)


def test_what_was_removed_does_not_come_back_by_a_longer_time() -> None:
    now = 100 * DAY_MS
    row = Collection(id="c", tenant_id="t", name="c", space_id="s", created_at=0)
    assert reaches_back_to(row, now) is None
    for days, expected in ((30, now), (10, now), (0, None), (5, now)):
        row.versions_kept_since = kept_since(row, days, now)
        row.keep_versions_days = days
        assert reaches_back_to(row, now) == expected
    later = now + 50 * DAY_MS
    row.versions_kept_since = kept_since(row, 3650, later)
    row.keep_versions_days = 3650
    assert reaches_back_to(row, later) == later - 5 * DAY_MS


def test_twenty_kept_versions_leave_the_answer_full_and_go_when_their_time_is_over(world: World) -> None:
    for document in range(3):
        for number in range(20):
            world.bring(ASH, f"document {document}", f"Loans of books, document {document}, version {number}.")
            world.run_jobs()
    world.bring(ELM, "own", "Loans of books of elm.")
    world.run_jobs()
    assert len(world.vectors(ASH).ids()) == 60
    assert texts(ask(world, None)) == [f"Loans of books, document {n}, version 19." for n in range(3)]
    world.retriever.collections.for_tenant(world.contexts[ASH]).update("default", keep_versions_days=0)
    world.reconciler.expire()
    assert len(world.vectors(ASH).ids()) == len(world.all(ASH, Chunk)) == len(world.all(ASH, VersionChunk)) == 3
    assert texts(ask(world, None)) == [f"Loans of books, document {n}, version 19." for n in range(3)]
    assert len(world.files()) == 8  # content and text of each live version, of both tenants
    world.age()
    assert world.reconciler.check(repair=True).findings == []


def test_a_delete_leaves_nothing_of_any_version(world: World) -> None:
    bring(world, "Loans of books, 1.", days_ago=5)
    bring(world, "Loans of books, 2.", days_ago=2)
    bring(world, "Loans of books of elm.", days_ago=2, name=ELM)
    [found] = ask(world, 4)
    world.of(ASH).delete(found.document_id)
    assert ask(world, 4) == ask(world, 1) == ask(world, None) == []
    world.run_jobs()
    assert world.vectors(ASH).ids() == world.all(ASH, Chunk) == world.all(ASH, DocumentVersion) == []
    assert len(world.files()) == 2
    assert texts(ask(world, None, ELM)) == ["Loans of books of elm."]


def test_who_may_not_see_a_document_now_does_not_see_what_it_was(world: World) -> None:
    bring(world, "Loans of books, for all.", days_ago=5)
    bring(world, "Loans of books, for the board.", days_ago=2, labels=["board"])
    reader = replace(world.contexts[ASH], labels=frozenset())
    assert ask(world, 4, reader, Wishes(after=1)) == []
    assert texts(ask(world, 4, replace(reader, labels=frozenset({"board"})))) == ["Loans of books, for all."]


def test_a_former_passage_is_shown_in_its_own_text(world: World) -> None:
    bring(world, "Loans of books, 1. And no more.", days_ago=5)
    bring(world, "Loans of books, 2.", days_ago=2)
    [found] = ask(world, 4, wishes=Wishes(after=1))
    passages = Passages(world.database, world.blobs)
    shown = passages.for_tenant(world.contexts[ASH]).get(found.id, around=100, version=1)
    assert (shown.passage.text, shown.passage.version) == (found.text, 1)
    for context, version in ((world.contexts[ASH], None), (world.contexts[ASH], 2), (world.contexts[ELM], 1)):
        with pytest.raises(NotFound):
            passages.for_tenant(context).get(found.id, around=100, version=version)


def test_lost_points_of_former_versions_are_made_again(world: World) -> None:
    bring(world, "Loans of books, 1.", days_ago=5)
    bring(world, "Loans of books, 2.", days_ago=2)
    world.vectors(ASH).delete_points(world.vectors(ASH).ids())
    assert ask(world, 4) == []
    world.reconciler.check(repair=True)
    assert texts(ask(world, 4)) == ["Loans of books, 1."]


def test_links_lead_to_the_version_that_was_cited() -> None:
    former, live = passage("x", former=True), passage("x")
    assert [ResultOut.of(each, {}).url for each in (former, live)] == ["/v1/passages/ver-0?version=1", "/v1/passages/ver-0"]
