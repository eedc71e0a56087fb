"""Chunks are found and their parents returned: exact slices of the text, each once, and of its own tenant alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.database import Database
from config.profiles import BUILT_IN, Profile
from rag.embedding.hashing import HashRuntime
from rag.profiles import Chunking, Profiles
from rag.retrieval.question import Passage, Question
from rag.splitting.chunkers import Chunkers
from rag.store.memory import MemoryStore
from tests.support import FreeMeter, examples
from tests.unit.test_chunking import texts
from tests.world import TENANTS, World

MINE, OTHERS = TENANTS
PROFILES = {
    **BUILT_IN,
    "parents": Profile(chunk_tokens=24, parent_tokens=100),
    "overlapping": Profile(chunk_tokens=24, overlap_tokens=8, parent_tokens=100),
}
TEXT = "\n\n\n".join(f"Board {number} holds oak.  Pine stands\tbeside it. A ladder leans there." for number in range(40))


@pytest.fixture(params=["parents", "overlapping"])
def world(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(database, MemoryStore(), tmp_path)
    world.documents.collections.profiles = Profiles(PROFILES, HashRuntime())
    for name in TENANTS:
        world.documents.collections.for_tenant(world.contexts[name]).create("shelves", profile=request.param)
        world.bring(name, "one", f"{name}. {TEXT}", collection="shelves")
    world.run_jobs()
    yield world
    world.close()


def _ask(world: World, name: str, top_k: int = 5) -> tuple[Passage, ...]:
    question = Question("Board 17 holds oak.", ("shelves",), top_k=top_k)
    return world.retriever.for_tenant(world.contexts[name], FreeMeter()).query(question, charge_id="q").passages


def test_the_parents_of_found_chunks_are_returned_each_once(world: World) -> None:
    for name in TENANTS:
        text = f"{name}. {TEXT}\n"
        found = _ask(world, name)
        assert len(found) == 5
        assert len({passage.start for passage in found}) == 5
        assert all(text[passage.start : passage.end] == passage.text for passage in found)
        assert all(len(passage.text) > 60 for passage in found)
        assert "Board 17 holds oak." in found[0].text
        everything = sorted(_ask(world, name, top_k=100), key=lambda passage: passage.start)
        assert not text[everything[-1].end :].strip()
        for before, after in itertools.pairwise(everything):
            assert not text[before.end : after.start].strip()


def test_a_chunk_stands_for_itself_where_its_parent_is_no_longer_whole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _ask(world, MINE)
    monkeypatch.setattr("rag.retrieval.hydration.parents_of", lambda session, passages: {})
    chunks = _ask(world, MINE)
    assert [passage.id for passage in chunks] == [passage.id for passage in whole]
    assert all(chunk.text in parent.text for chunk, parent in zip(chunks, whole, strict=True))


@given(text=texts, markdown=st.booleans(), overlap=st.sampled_from([0, 8]))
@settings(max_examples=examples(60), deadline=None)
def test_chunks_and_gaps_of_a_parent_make_its_text(text: str, markdown: bool, overlap: int) -> None:
    pieces = [*_chunkers.split(Chunking(24, 0, overlap, "auto", 80), text, markdown=markdown, title="")]
    for _, group in itertools.groupby(pieces, key=lambda piece: piece.parent and piece.parent.start):
        run = [*group]
        made, at = "", run[0].start
        for piece in run:
            assert piece.parent is not None
            assert (piece.parent.start, piece.parent.end) == (run[0].start, run[-1].end)
            assert not piece.parent.gap.strip()
            made += piece.parent.gap + piece.text[max(0, at - piece.start) :]
            at = piece.end
        assert made == text[run[0].start : run[-1].end]
        assert len({piece.headings for piece in run}) == 1


_chunkers = Chunkers(HashRuntime().tokenizer_json)
