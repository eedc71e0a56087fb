"""Whatever two tenants write, delete, set and ask: with a cache of answers every answer is what it is without one."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.database import Database
from rag.arranging.wishes import NONE, Wishes
from rag.filters import parse
from rag.result_cache import ResultCache
from rag.retrieval.question import Answer, Question
from rag.store.memory import MemoryStore
from tests.support import FreeMeter
from tests.world import TENANTS, World

WORDS = ("ash", "birch", "cedar", "elm")
NAMES = ("one", "two", "three")
READERS = (None, frozenset[str](), frozenset({"red"}))
FILTERS = (None, *(parse({"key": "floor", "op": "eq", "value": value}) for value in (1, True, "1")))

WRITE = st.tuples(
    st.just("write"),
    st.sampled_from(TENANTS),
    st.sampled_from(NAMES),
    st.sampled_from(WORDS),
    st.sampled_from(((), ("red",))),
    st.sampled_from((1, True, "1")),
)
ASK = st.tuples(
    st.just("ask"),
    st.sampled_from(TENANTS),
    st.sampled_from(WORDS),
    st.sampled_from(READERS),
    st.sampled_from(FILTERS),
    st.sampled_from((NONE, Wishes(per_document=1), Wishes(after=1))),
)
OTHER = st.tuples(
    st.sampled_from(("delete", "delete", "run", "run", "profile")), st.sampled_from(TENANTS), st.sampled_from(NAMES)
)
STEPS = st.lists(st.one_of(WRITE, ASK, ASK, ASK, OTHER), min_size=10, max_size=40)


class Twins:
    """One world, asked with a cache and without."""

    def __init__(self, folder: Path, *, room: int) -> None:
        self.database = Database(f"sqlite:///{folder / 'carrel.db'}", synchronous="off")
        self.world = World(self.database, MemoryStore(), folder)
        self.cache, self.none = ResultCache(room), ResultCache(0)
        self.reused = 0

    def close(self) -> None:
        self.world.close()
        self.database.close()

    def do(self, kind: str, name: str, *rest: object) -> None:
        getattr(self, kind)(name, *rest)

    def write(self, name: str, document: str, word: str, labels: tuple[str, ...], floor: object) -> None:
        text = "\n\n".join(f"{name} {document} " + f"{word}{part} " * 60 for part in range(2))
        self.world.bring(name, document, text, labels=list(labels), attributes={"floor": floor})

    def run(self, _name: str, _document: str) -> None:
        self.world.run_jobs()

    def delete(self, name: str, document: str) -> None:
        shown, _ = self.world.of(name).list(collection=None, after=None, limit=100)
        for one in shown:
            if one.document.external_id == document:
                self.world.of(name).delete(one.document.id)

    def profile(self, name: str, document: str) -> None:
        chosen = "precise" if document == "one" else "standard"
        self.world.retriever.collections.for_tenant(self.world.contexts[name]).update("default", profile=chosen)

    def ask(self, name: str, word: str, labels: frozenset[str] | None, filter_: object, wishes: Wishes) -> None:
        context = replace(self.world.contexts[name], labels=labels)
        question = Question(f"{word}0 {word}1", ("default",), filter=filter_, wishes=wishes)  # type: ignore[arg-type]
        answers: list[Answer] = []
        for cache in (self.cache, self.none):
            self.world.retriever.results = cache
            answers.append(self.world.retriever.for_tenant(context, FreeMeter()).query(question, charge_id="q"))
        cached, searched = answers
        assert cached.passages == searched.passages
        assert cached.generations == searched.generations
        assert all(passage.text.startswith(name) for passage in cached.passages if passage.start == 0)
        self.reused += cached.reused


def check(steps: list[tuple[str, ...]], *, room: int = 2**20) -> int:
    with tempfile.TemporaryDirectory(prefix="carrel-twins-") as folder:
        twins = Twins(Path(folder), room=room)
        try:
            for name in TENANTS:
                for floor in (1, "1"):  # of two kinds, so that filters of each are taken
                    twins.write(name, "one", "ash", (), floor)
            for step in steps:
                twins.do(*step)
            return twins.reused
        finally:
            twins.close()


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_answers_are_the_same_with_a_cache(steps: list[tuple[str, ...]]) -> None:
    check(steps)


@pytest.mark.full
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.sampled_from((20_000, 2**20)))
def test_answers_are_the_same_with_a_cache_at_length(steps: list[tuple[str, ...]], room: int) -> None:
    check(steps, room=room)


def test_the_cache_is_used_in_such_a_run() -> None:
    ash, elm = TENANTS
    written = [("write", name, "one", "ash", (), 1) for name in TENANTS]
    asked = [("ask", name, "ash", None, None, NONE) for name in (ash, elm, ash, elm)]
    assert check([*written, ("run", ash, ""), *asked]) == 2  # type: ignore[list-item]
