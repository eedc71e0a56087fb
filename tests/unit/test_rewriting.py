"""Questions are worded anew by a language model that is not trusted, may be late, and is paid for: by a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from api.schemas.query import QueryIn
from api.wiring.core import build_rewriting
from config.clock import system_clock
from config.database import Database
from config.errors import InvalidInput, ModelUnavailable, SetupError
from config.profiles import BUILT_IN, Profile, Rewrite
from config.settings import Settings
from rag.filters import parse
from rag.llm.base import CompletionFailed
from rag.llm.remote import RemoteLanguageModel
from rag.llm.rewriting import Rewriting
from rag.llm.wording import MAX_REWRITE_CHARS, NotUnderstood, texts_of
from rag.result_cache import ResultCache
from rag.retrieval.question import MAX_PHRASINGS, Answer, Question
from rag.store.memory import MemoryStore
from tenants.ledger.usage import UsageReader
from tenants.tables import LimitOverride
from tests.llm import USED, WRONG, Llm, serving
from tests.support import FreeMeter
from tests.world import TENANTS, World

ONE, TWO = TENANTS


@pytest.fixture
def llm() -> Iterator[Llm]:
    with serving() as running:
        yield running


@pytest.fixture
def model(llm: Llm) -> Iterator[RemoteLanguageModel]:
    made = RemoteLanguageModel(llm.url, "secret", model="small")
    yield made
    made.close()


# --- the provider


def complete(model: RemoteLanguageModel, *, deadline_s: float = 10.0) -> str:
    return model.complete("tell", "what?", max_tokens=50, deadline_s=deadline_s).text


def test_a_provider_is_asked_as_agreed(llm: Llm, model: RemoteLanguageModel) -> None:
    llm.says = "anything"
    answer = model.complete("tell", "what?", max_tokens=50, deadline_s=10.0)
    assert (answer.text, answer.tokens) == ("anything", USED)
    messages = [{"role": "system", "content": "tell"}, {"role": "user", "content": "what?"}]
    assert llm.received == [{"model": "small", "messages": messages, "max_tokens": 50, "temperature": 0, "stream": False}]
    assert llm.keys == ["Bearer secret"]


@pytest.mark.parametrize("usage", [-1, "many", None, True, 1.5])
def test_a_count_that_makes_no_sense_is_no_count(llm: Llm, model: RemoteLanguageModel, usage: object) -> None:
    llm.usage = usage
    assert model.complete("tell", "what?", max_tokens=50, deadline_s=10.0).tokens is None


@pytest.mark.parametrize("act", ["500", "429", "garbage", "no choices"])
def test_what_may_pass_is_tried_again(llm: Llm, model: RemoteLanguageModel, act: str) -> None:
    llm.acts = [act, "ok"]
    assert complete(model) == llm.says
    assert len(llm.received) == 2


@pytest.mark.parametrize("act", [*WRONG, "garbage", "flood", "503"])
def test_a_wrong_answer_was_worked_on(llm: Llm, model: RemoteLanguageModel, act: str) -> None:
    llm.acts = [act]
    with pytest.raises(CompletionFailed) as failed:
        complete(model)
    assert failed.value.began
    assert len(llm.received) == 3


@pytest.mark.parametrize(("act", "requests"), [("400", 1), ("401", 1), ("302", 1), ("404", 1), ("429", 3)])
def test_a_refusal_is_no_work(llm: Llm, model: RemoteLanguageModel, act: str, requests: int) -> None:
    llm.acts = [act]
    with pytest.raises(CompletionFailed, match=f"status {act}") as failed:
        complete(model)
    assert (failed.value.began, len(llm.received)) == (False, requests)


@pytest.mark.parametrize("act", ["hang", "drip"])
def test_the_deadline_ends_silence_and_slowness(llm: Llm, model: RemoteLanguageModel, act: str) -> None:
    llm.acts = [act]
    with pytest.raises(CompletionFailed) as failed:
        complete(model, deadline_s=0.2)
    assert failed.value.began


def test_a_pause_beyond_the_deadline_is_not_waited_for(llm: Llm, model: RemoteLanguageModel) -> None:
    llm.acts, llm.headers = ["429"], {"Retry-After": "60"}
    with pytest.raises(CompletionFailed, match="429"):
        complete(model)
    assert len(llm.received) == 1


def test_a_provider_that_keeps_failing_is_left_alone(llm: Llm, model: RemoteLanguageModel) -> None:
    llm.acts = ["500"]
    for _ in range(5):
        with pytest.raises(CompletionFailed):
            complete(model)
    assert len(llm.received) == 8


# --- what is believed of an answer


def test_texts_are_cleaned_counted_and_told_from_what_was_asked() -> None:
    says = json.dumps({"queries": ["  Oak\n shelf ", "pine\u200b\u202e board", "OAK  SHELF", "third", "fourth"]})
    assert texts_of("multi_query", says, asked=("third",), count=2) == ("Oak shelf", "pine board")
    assert texts_of("decompose", f"```json\n{says}\n```", asked=(), count=9)[2:] == ("third", "fourth")
    assert texts_of("hyde", '{"passage": "It is so."}', asked=(), count=1) == ("It is so.",)
    assert texts_of("multi_query", '{"queries": ["a"]}', asked=("A",), count=3) == ()


@pytest.mark.parametrize(
    "says",
    [
        "",
        "Sure! Here are three wordings: ...",
        '["a"]',
        '{"queries": "a"}',
        '{"queries": ["a"], "filter": {"key": "secret"}}',
        '{"queries": [{"text": "a"}]}',
        '{"queries": [""]}',
        '{"queries": ["a", "\u200b"]}',
        '{"passage": "a"}',
        json.dumps({"queries": ["a" * (MAX_REWRITE_CHARS + 1)]}),
        '{"queries": ["a"]} and more',
        "[" * 100_000,
    ],
)
def test_anything_but_the_form_is_no_answer(says: str) -> None:
    with pytest.raises(NotUnderstood):
        texts_of("multi_query", says, asked=("q",), count=3)


# --- as it is asked for


@pytest.mark.parametrize("rewrite", ["hyde", {"mode": "hyde"}])
def test_a_mode_is_a_word_or_an_object(rewrite: object) -> None:
    assert QueryIn.model_validate({"query": "q", "rewrite": rewrite}).question().rewrite == "hyde"
    assert QueryIn.model_validate({"query": "q"}).question().rewrite is None


@pytest.mark.parametrize("rewrite", ["summary", {"mode": "hyde", "model": "x"}, True, 7, {}])
def test_another_mode_is_refused(rewrite: object) -> None:
    with pytest.raises(ValidationError, match="rewrite"):
        QueryIn.model_validate({"query": "q", "rewrite": rewrite})


def test_a_profile_may_say_yes_or_no() -> None:
    given: list[object] = [True, False, "hyde"]
    assert [Profile.model_validate({"rewrite": each}).rewrite for each in given] == ["multi_query", "none", "hyde"]
    assert {profile.rewrite for profile in BUILT_IN.values()} == {"none"}


# --- as a step of a question


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    database = Database(f"sqlite:///{tmp_path / 'carrel.db'}")
    world = World(database, MemoryStore(), tmp_path)
    for name in TENANTS:
        for external_id, text in (
            ("wood", "wooden shelf of oak"),
            ("lamp", "a lamp by the river"),
            ("cord", "the cord is red"),
        ):
            world.bring(name, external_id, f"{text} says {name}")
    world.run_jobs()
    yield world
    world.close()
    database.close()


@pytest.fixture
def rewriting(world: World, model: RemoteLanguageModel) -> Rewriting:
    made = Rewriting(model, 10.0, lambda scope: world.ledger.at(5).for_tenant(scope, "llm"))  # type: ignore[arg-type]
    world.retriever.rewriting = made
    return made


def ask(
    world: World, name: str, text: str = "lamp", *, rewrite: Rewrite | None = "multi_query", charge_id: str = "ask", **more: Any
) -> Answer:
    meter = world.ledger.for_tenant(world.contexts[name], "query")
    question = Question(text, ("default",), rewrite=rewrite, explain=more.pop("explain", True), **more)
    return world.retriever.for_tenant(world.contexts[name], meter).query(question, charge_id=charge_id)


def spent(world: World, name: str) -> dict[str, int]:
    usage = UsageReader(world.database, system_clock).of(world.contexts[name])
    assert usage.held == 0
    return {day.operation: day.charged for day in usage.days if day.operation != "ingest"}


def found(answer: Answer) -> list[str]:
    return [passage.external_id for passage in answer.passages]


def test_other_wordings_find_what_the_question_does_not(world: World, llm: Llm, rewriting: Rewriting) -> None:
    llm.says = '{"queries": ["wooden shelf"]}'
    before = spent(world, TWO)
    plain = ask(world, ONE, rewrite="none", mode="lexical", charge_id="plain")
    answer = ask(world, ONE, mode="lexical")
    assert (found(plain), sorted(found(answer))) == (["lamp"], ["lamp", "wood"])
    assert (llm.asked, answer.degraded, answer.llm_tokens) == (["lamp"], (), USED)
    assert spent(world, ONE) == {"llm": USED}
    assert answer.explanation is not None
    assert answer.explanation.rewrite is not None
    assert (answer.explanation.rewrite.mode, answer.explanation.rewrite.texts) == ("multi_query", ("wooden shelf",))
    assert "rewriting" in answer.timings_ms
    assert all(passage.text.endswith(ONE) for passage in answer.passages)
    assert spent(world, TWO) == before
    assert sorted(found(ask(world, TWO, mode="lexical"))) == ["lamp", "wood"]
    assert spent(world, TWO)["llm"] == USED


def test_the_words_of_a_document_that_might_answer_are_not_searched_for(world: World, llm: Llm, rewriting: Rewriting) -> None:
    asked = ("lamp", "wooden shelf of oak says ash")
    llm.says = json.dumps({"passage": asked[1]})
    plain = ask(world, ONE, rewrite="none", mode="dense", charge_id="plain")
    answer = ask(world, ONE, rewrite="hyde", mode="dense")
    scores = [{passage.external_id: passage.score for passage in each.passages} for each in (plain, answer)]
    assert scores[1]["wood"] > scores[0]["wood"] + 0.2
    one, passage = world.embedding.embed_queries(world.contexts[ONE], FreeMeter(), asked, charge_id="x").vectors
    middle = (one + passage) / np.linalg.norm(one + passage)
    assert scores[1]["wood"] == pytest.approx(float(passage @ middle), abs=1e-3)
    hybrid = ask(world, ONE, rewrite="hyde", charge_id="hybrid").explanation
    assert hybrid is not None
    assert [(leg.name, leg.features) for leg in hybrid.legs][1:] == [("lexical", 1)]
    with pytest.raises(InvalidInput, match="hyde"):
        ask(world, ONE, rewrite="hyde", mode="lexical")


@pytest.mark.parametrize(("act", "charged"), [("hang", True), ("500", True), ("garbage", True), ("401", False)])
def test_a_failing_model_leaves_the_question_as_it_was(
    world: World, llm: Llm, rewriting: Rewriting, act: str, charged: bool
) -> None:
    plain, llm.acts = ask(world, ONE, rewrite="none", charge_id="plain"), [act]
    world.retriever.rewriting = replace(rewriting, deadline_s=0.2 if act == "hang" else 10.0)
    answer = ask(world, ONE)
    assert answer.degraded == ("rewrite",)
    assert [(one.id, one.score) for one in answer.passages] == [(one.id, one.score) for one in plain.passages]
    assert bool(answer.llm_tokens) is charged
    assert spent(world, ONE).get("llm", 0) == answer.llm_tokens
    assert answer.explanation is not None
    assert answer.explanation.rewrite is None


def test_an_answer_that_is_not_understood_is_paid_for_and_not_used(world: World, llm: Llm, rewriting: Rewriting) -> None:
    llm.says = '{"queries": ["cord"], "collections": ["other"], "labels": ["secret"]}'
    answer = ask(world, ONE, mode="lexical")
    assert (found(answer), answer.degraded, answer.llm_tokens) == (["lamp"], ("rewrite",), USED)


def test_a_provider_cannot_charge_more_than_was_held(world: World, llm: Llm, rewriting: Rewriting) -> None:
    llm.usage = 10**9
    assert 0 < ask(world, ONE).llm_tokens < 2000
    assert spent(world, ONE)["llm"] < 2000


def test_a_budget_that_does_not_cover_it_answers_without(world: World, llm: Llm, rewriting: Rewriting) -> None:
    override = {"tenant_id": world.contexts[ONE].tenant_id, "name": "llm_tokens_month", "value": "100"}
    with world.database.system_write() as session:
        session.add(LimitOverride(**override, reason="", created_at=0))
    answer = ask(world, ONE)
    assert (answer.degraded, answer.llm_tokens, llm.received) == (("rewrite",), 0, [])
    assert ask(world, TWO).degraded == ()


def test_near_the_end_of_its_budget_it_is_left_out(world: World, llm: Llm, rewriting: Rewriting) -> None:
    override = {"tenant_id": world.contexts[ONE].tenant_id, "name": "llm_tokens_month", "value": "100000"}
    with world.database.system_write() as session:
        session.add(LimitOverride(**override, reason="", created_at=0))
    world.ledger.for_tenant(world.contexts[ONE], "llm").debit("before", 90_000)
    answer = ask(world, ONE)
    assert (answer.degraded, answer.llm_tokens, llm.received) == (("rewrite",), 0, [])
    assert ask(world, TWO).degraded == ()


def test_the_same_request_pays_once(world: World, llm: Llm, rewriting: Rewriting) -> None:
    assert ask(world, ONE).llm_tokens == ask(world, ONE).llm_tokens == USED
    assert spent(world, ONE)["llm"] == USED


def test_wordings_widen_neither_filter_nor_number(world: World, llm: Llm, rewriting: Rewriting) -> None:
    llm.says = json.dumps({"queries": [f"wooden shelf {number}" for number in range(50)]})
    nothing = parse({"key": "year", "op": "eq", "value": 1})
    assert found(ask(world, ONE, filter=nothing)) == []
    answer = ask(world, ONE, others=("river", "red cord"), charge_id="many")
    assert answer.explanation is not None
    assert answer.explanation.rewrite is not None
    assert len(answer.explanation.rewrite.texts) == MAX_PHRASINGS - 3
    asked = len(llm.received)
    assert ask(world, ONE, others=("a", "b", "c", "d"), charge_id="full").degraded == ()
    assert len(llm.received) == asked


def test_who_asks_or_the_profile_says_how(
    world: World, llm: Llm, rewriting: Rewriting, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(world, ONE, rewrite=None).llm_tokens == 0
    profiles = world.retriever.collections.profiles
    monkeypatch.setitem(profiles._named, "standard", replace(profiles.get("standard"), rewrite="decompose"))
    answer = ask(world, ONE, rewrite=None, charge_id="second")
    assert answer.explanation is not None
    assert answer.explanation.rewrite is not None
    assert answer.explanation.rewrite.mode == "decompose"
    assert ask(world, ONE, rewrite="none", charge_id="third").llm_tokens == 0
    world.retriever.rewriting = None
    assert ask(world, ONE, rewrite=None, charge_id="fourth").degraded == ()
    with pytest.raises(InvalidInput, match="CARREL_LLM_URL"):
        ask(world, ONE, rewrite="hyde")
    assert ask(world, TWO, rewrite="none").degraded == ()


def test_known_answers_are_known_by_how_they_were_asked(world: World, llm: Llm, rewriting: Rewriting) -> None:
    world.retriever.results = ResultCache(1 << 20)
    wants: list[Rewrite] = ["multi_query", "none", "decompose", "multi_query"]
    answers = [ask(world, ONE, rewrite=rewrite, explain=False, charge_id=str(n)) for n, rewrite in enumerate(wants)]
    assert [answer.reused for answer in answers] == [False, False, False, True]
    assert len(llm.received) == 2
    assert not ask(world, TWO, explain=False).reused


def test_without_the_embedding_model_the_words_are_reworded(
    world: World, llm: Llm, rewriting: Rewriting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_args: object, **_fields: object) -> Any:
        raise ModelUnavailable("The provider does not answer.")

    monkeypatch.setattr(world.embedding, "embed_queries", unavailable)
    answer = ask(world, ONE)
    assert (sorted(found(answer)), answer.degraded) == (["lamp", "wood"], ("dense",))
    assert found(ask(world, ONE, rewrite="hyde", charge_id="hyde")) == ["lamp"]


def test_settings_that_make_no_sense_are_refused(tmp_path: Path, world: World) -> None:
    def build(**settings: Any) -> Rewriting | None:
        return build_rewriting(Settings(data_dir=tmp_path, **settings), world.ledger)

    assert build() is None
    for settings, said in (
        ({"llm_model": "m"}, "CARREL_LLM_URL"),
        ({"llm_url": "http://127.0.0.1:1/v1"}, "CARREL_LLM_MODEL"),
        ({"llm_url": "http://user@127.0.0.1:1/v1", "llm_model": "m"}, "CARREL_LLM_URL"),
        ({"llm_url": "http://127.0.0.1:1/v1", "llm_model": "m", "hold_lease_seconds": 3}, "CARREL_LLM_DEADLINE_SECONDS"),
    ):
        with pytest.raises(SetupError, match=said):
            build(**settings)
    made = build(llm_url="http://127.0.0.1:1/v1", llm_model="m")
    assert made is not None
    made.model.close()
