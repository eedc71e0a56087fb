"""Facts that a language model finds and contradictions that it sees: asked of a real server, paid for, and not believed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from config.database import Database
from config.errors import BudgetExhausted, Forbidden, InvalidInput, NotFound, Unavailable
from rag.embedding.batcher import Batcher
from rag.embedding.cache import NullVectorCache
from rag.embedding.hashing import HashRuntime
from rag.embedding.service import EmbeddingService
from rag.llm.remote import RemoteLanguageModel
from rag.llm.rewriting import Rewriting
from rag.llm.wording import NotUnderstood
from rag.memories.extraction import Message, extract, facts_of, places_of, verbatim
from rag.memories.memories import Memories
from rag.memories.values import MAX_TEXT_CHARS, Fact, Source, Wanted
from rag.sessions.sessions import Sessions
from rag.sessions.values import NewSession
from tests.llm import USED, Llm, serving
from tests.postgresql import ON_SQLITE
from tests.support import FakeScope, FreeMeter
from tests.unit.conftest import SetClock

A, B = FakeScope("a"), FakeScope("b")
SAID = [Message("user", "I moved to Oslo", Source("ses_1", 1)), Message("user", "I sing", Source("ses_1", 3))]


@dataclass
class Meter(FreeMeter):
    gone: bool = False
    released: list[str] = field(default_factory=list)

    def strained(self) -> bool:
        return self.gone

    def release(self, hold_id: str) -> None:
        self.released.append(hold_id)


@pytest.fixture
def llm() -> Iterator[Llm]:
    with serving() as running:
        yield running


@pytest.fixture
def meter() -> Meter:
    return Meter()


@pytest.fixture
def rewriting(llm: Llm, meter: Meter) -> Iterator[Rewriting]:
    model = RemoteLanguageModel(llm.url, None, model="small")
    yield Rewriting(model, 5.0, lambda _: meter)
    model.close()


def answer(*facts: Any) -> str:
    return json.dumps({"facts": facts})


def test_facts_are_found_paid_for_and_named_by_their_source(llm: Llm, rewriting: Rewriting, meter: Meter) -> None:
    llm.says = answer(
        {"text": "Ann lives\n in Oslo.", "key": "Home City", "from": 0}, {"text": "Ann sings.", "key": None, "from": 9}
    )
    found = extract(rewriting, A, SAID, charge_id="c")
    assert found.facts == (
        Fact("Ann lives in Oslo.", key="home_city", sources=(Source("ses_1", 1),)),
        Fact("Ann sings.", sources=(Source("ses_1", 3),)),
    )
    assert found.charged == meter.paid["c:extract"] == USED
    assert json.loads(llm.asked[0])[0] == {"number": 0, "role": "user", "text": "I moved to Oslo"}


@pytest.mark.parametrize(
    "said",
    [
        *("", "sure!", "[]", "{}", '{"facts": {}}', '{"facts": [], "more": 1}', '{"facts": ["x"]}', answer({"key": "x"})),
        *(
            answer({"text": ""}),
            answer({"text": 1}),
            answer({"text": "x" * (MAX_TEXT_CHARS + 1)}),
            answer({"text": "x", "do": 1}),
        ),
        *(answer({"text": "x", "key": 5}), answer({"text": "x", "key": " "}), answer({"text": "x", "key": "k" * 101})),
    ],
)
def test_anything_but_the_form_is_no_answer(said: str) -> None:
    with pytest.raises(NotUnderstood):
        facts_of(said, SAID)


def test_what_an_answer_may_hold_is_bounded() -> None:
    assert len(facts_of(answer(*({"text": f"Fact {number}"} for number in range(50))), SAID)) == 20
    assert facts_of(answer({"text": "x", "from": "0"}), SAID)[0].sources == (Source("ses_1", 3),)
    assert places_of('{"contradicted": [1, 0, 1, -1, 7]}', 2) == [0, 1]
    for wrong in ('{"contradicted": [true]}', '{"contradicted": ["0"]}', '{"contradicted": 0}', "[0]"):
        with pytest.raises(NotUnderstood):
            places_of(wrong, 2)


def test_without_an_answer_nothing_is_kept_and_it_is_said_why(llm: Llm, rewriting: Rewriting, meter: Meter) -> None:
    with pytest.raises(InvalidInput, match="CARREL_LLM_URL"):
        extract(None, A, SAID, charge_id="c")
    llm.says = "sure!"
    with pytest.raises(Unavailable, match="cannot be used"):
        extract(rewriting, A, SAID, charge_id="c1")
    llm.acts, llm.received[:] = ["400"], []
    with pytest.raises(Unavailable, match="does not answer"):
        extract(rewriting, A, SAID, charge_id="c2")
    assert meter.released == ["c2:extract"]
    meter.gone, llm.received[:] = True, []
    with pytest.raises(BudgetExhausted):
        extract(rewriting, A, SAID, charge_id="c3")
    assert llm.received == []


def test_what_users_said_can_be_kept_as_it_is() -> None:
    found = verbatim([*SAID, Message("assistant", "Nice!"), Message("user", "  ")])
    assert [fact.text for fact in found.facts] == ["I moved to Oslo", "I sing"]
    assert found.facts[0].sources == (Source("ses_1", 1),)
    with pytest.raises(InvalidInput):
        verbatim([Message("user", "x" * (MAX_TEXT_CHARS + 1))])


@ON_SQLITE
def test_nothing_is_asked_of_a_model_for_whom_it_is_refused(
    database: Database, clock: SetClock, llm: Llm, rewriting: Rewriting, meter: Meter
) -> None:
    embedding = EmbeddingService(Batcher(HashRuntime(), batch_tokens=2048), NullVectorCache())
    memories = Memories(database, clock, embedding, llm=rewriting)
    chats = [Sessions(database, clock).for_tenant(scope).create(NewSession("ann")).id for scope in (A, B)]
    here, there = ([Message("user", "I sing", Source(chat))] for chat in chats)
    bob = memories.for_tenant(FakeScope("a", subject="bob"), meter)
    for handle, messages, more, refusal in (
        (bob, here, {"subject": "ann"}, Forbidden),
        (bob, here, {}, NotFound),
        (memories.for_tenant(A, meter), there, {"subject": "ann"}, NotFound),
        (memories.for_tenant(A, meter), here, {"subject": "ann", "session_id": chats[1]}, NotFound),
        (memories.for_tenant(A, meter), here, {}, InvalidInput),
    ):
        with pytest.raises(refusal):
            handle.extracted(messages, by_model=True, charge_id="c", **more)
    assert (llm.received, meter.paid) == ([], {})
    llm.says = answer({"text": "Ann sings."})
    found = memories.for_tenant(A, meter).extracted(here, by_model=True, charge_id="c", subject="ann", session_id=chats[0])
    assert [fact.text for fact in found.facts] == ["Ann sings."]
    embedding.close()


@ON_SQLITE
def test_a_model_may_say_what_a_fact_contradicts_among_what_it_is_shown(
    database: Database, clock: SetClock, llm: Llm, rewriting: Rewriting, meter: Meter
) -> None:
    embedding = EmbeddingService(Batcher(HashRuntime(), batch_tokens=2048), NullVectorCache())
    memories = Memories(database, clock, embedding, llm=rewriting)
    ann, eve = memories.for_tenant(A, Meter()), memories.for_tenant(B, Meter())
    for handle in (ann, eve):
        handle.add([Fact("Ann lives in the city of Berlin")], subject="ann", charge_id="first")
    assert llm.received == []  # there was nothing that it could contradict
    llm.says = '{"contradicted": [0, 5]}'
    added = ann.add([Fact("Ann lives in the town of Oslo now")], subject="ann", charge_id="second")
    assert [*map(json.loads, llm.asked)] == [
        {"new": "Ann lives in the town of Oslo now", "known": ["Ann lives in the city of Berlin"]}
    ]
    assert len(added.placed[0].superseded) == 1
    assert (added.llm_tokens, added.degraded) == (USED, ())
    assert [each.version.text for each in ann.page(Wanted("ann"), after=None, limit=9)[0]] == [
        "Ann lives in the town of Oslo now"
    ]
    llm.says = "both, I think"
    again = ann.add([Fact("Ann lives in the town of Bergen")], subject="ann", charge_id="third")
    assert (again.placed[0].superseded, again.degraded) == ((), ("judge",))
    llm.says = '{"contradicted": [0]}'
    keyed = ann.add([Fact("Ann lives in the town of Oslo", key="home")], subject="ann", charge_id="fourth")
    assert (keyed.placed[0].superseded, keyed.llm_tokens) == ((), 0)
    assert [each.version.text for each in eve.page(Wanted("ann"), after=None, limit=9)[0]] == [
        "Ann lives in the city of Berlin"
    ]
    embedding.close()
