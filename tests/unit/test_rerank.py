"""A second opinion is budgeted, bound to its deadline, and never fails a question: by a real cross-encoder and a bad server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from api.wiring.core import build_reranking
from config.clock import system_clock
from config.database import Database
from config.errors import SetupError
from config.settings import Settings
from rag.rerank.base import RerankFailed
from rag.rerank.local import LocalReranker
from rag.rerank.remote import RemoteReranker
from rag.rerank.stage import Reranking
from rag.retrieval.question import Answer, Question
from rag.store.memory import MemoryStore
from tenants.ledger.usage import UsageReader
from tests.world import TENANTS, World, text_of

pytestmark = pytest.mark.xdist_group("torch")  # whose import takes seconds

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "oak", "pine", "lamp", "river", "shelf", "book"]


def make_cross_encoder(folder: Path, *, labels: int = 1) -> Path:
    """A BERT of a few kilobytes with random weights: nothing it says is sensible, but all of it is real."""
    import torch  # noqa: PLC0415  seconds, for two of the workers that run tests
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast  # noqa: PLC0415

    torch.manual_seed(7)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, num_labels=labels, **sizes)
    BertForSequenceClassification(config).save_pretrained(folder, safe_serialization=True)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", pair, [("[CLS]", 2), ("[SEP]", 3)])
    named = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **named).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cross_encoder(tmp_path_factory.mktemp("cross-encoder"))


@pytest.fixture
def local(cross_encoder: Path) -> Iterator[LocalReranker]:
    reranker = LocalReranker(cross_encoder, name="tiny", device="cpu")
    yield reranker
    reranker.close()


def test_a_cross_encoder_scores_each_pair_within_one(local: LocalReranker) -> None:
    texts = ["lamp", "river river", "book " * 100, ""] * 5
    scores = local.scores("oak", texts, deadline_s=60)
    assert len(scores) == len(texts)
    assert all(0 < score < 1 for score in scores)
    assert scores[0] != scores[1]
    assert scores[:4] == pytest.approx(scores[4:8], abs=1e-5)
    assert local.count_tokens("oak", ["lamp", "river river", "book " * 100]) == 5 + 6 + 64


def test_who_waits_in_vain_for_the_model_has_not_begun_it(local: LocalReranker, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, released = threading.Event(), threading.Event()
    predict = local._model.predict

    def slow(*args: Any, **kwargs: Any) -> Any:
        entered.set()
        released.wait(30)
        return predict(*args, **kwargs)

    monkeypatch.setattr(local._model, "predict", slow)
    with pytest.raises(RerankFailed) as late:
        local.scores("oak", ["lamp"], deadline_s=0.05)
    assert entered.wait(10)
    with pytest.raises(RerankFailed) as behind:
        local.scores("oak", ["lamp"], deadline_s=0.05)
    released.set()
    assert (late.value.began, behind.value.began) == (True, False)
    assert len(local.scores("oak", ["lamp"], deadline_s=30)) == 1


def test_a_folder_without_safe_weights_or_with_another_head_is_refused(cross_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="safetensors"):
        build_reranking(Settings(data_dir=tmp_path, rerank_model=str(tmp_path)))
    with pytest.raises(SetupError, match="CARREL_RERANK_MODEL"):
        build_reranking(Settings(data_dir=tmp_path, rerank_model="nobody/has-this"))
    with pytest.raises(SetupError, match="CARREL_RERANK_MODEL"):
        build_reranking(Settings(data_dir=tmp_path, rerank_url="http://127.0.0.1:1/rerank"))
    with pytest.raises(SetupError, match="CARREL_RERANK_URL"):
        build_reranking(Settings(data_dir=tmp_path, rerank_model="m", rerank_url="ftp://127.0.0.1/rerank"))
    pair = make_cross_encoder(tmp_path / "pair", labels=2)
    with pytest.raises(SetupError, match="2 values"):
        build_reranking(Settings(data_dir=tmp_path, rerank_model=str(pair)))
    assert build_reranking(Settings(data_dir=tmp_path)) is None
    made = build_reranking(Settings(data_dir=tmp_path, rerank_model=str(cross_encoder), embedding_device="cpu"))
    assert made is not None
    made.reranker.close()


# --- a provider


@dataclass
class Provider:
    act: str = "ok"
    url: str = ""
    received: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)


def _longest_last(documents: list[str]) -> list[dict[str, Any]]:
    return [{"index": n, "relevance_score": 1 / len(text)} for n, text in enumerate(documents)]


#: What is answered instead of a score for each text.
WRONG: dict[str, Callable[[list[str]], Any]] = {
    "garbage": lambda _: "<html>",
    "list": lambda _: [],
    "no results": lambda _: {"results": None},
    "one missing": lambda documents: {"results": _longest_last(documents)[1:]},
    "one twice": lambda documents: {"results": [*_longest_last(documents)[1:], _longest_last(documents)[-1]]},
    "one more": lambda documents: {"results": [*_longest_last(documents), {"index": len(documents), "relevance_score": 1}]},
    "negative": lambda documents: {"results": [{"index": n - 1, "relevance_score": 1} for n in range(len(documents))]},
    "not finite": lambda documents: {"results": [{"index": n, "relevance_score": float("nan")} for n in range(len(documents))]},
    "texts": lambda documents: {"results": [{"index": "first", "relevance_score": "high"} for _ in documents]},
    "deep": lambda _: [],
}


class _Handler(BaseHTTPRequestHandler):
    provider: ClassVar[Provider]

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        provider = self.provider
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        provider.received.append(request)
        provider.keys.append(self.headers["Authorization"])
        act = provider.act
        if act == "hang":
            provider.released.wait(30)
            return
        made = WRONG[act](request["documents"]) if act in WRONG else {"results": _longest_last(request["documents"])[::-1]}
        body = b"[" * 100_000 if act == "deep" else json.dumps(made).encode()
        if act == "flood":
            body = b" " * (8 << 20)
        self.send_response(int(act) if act.isdigit() else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:  # a client that has had enough
            self.close_connection = True


@pytest.fixture
def provider() -> Iterator[Provider]:
    with _server() as running:
        yield running


@contextmanager
def _server() -> Iterator[Provider]:
    provider = Provider()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"provider": provider}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    provider.url = f"http://127.0.0.1:{server.server_address[1]}/v1/rerank"
    try:
        yield provider
    finally:
        provider.released.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.fixture
def remote(provider: Provider) -> Iterator[RemoteReranker]:
    reranker = RemoteReranker(provider.url, "secret", model="rerank-1")
    yield reranker
    reranker.close()


def test_a_provider_is_asked_as_agreed_and_answers_in_any_order(provider: Provider, remote: RemoteReranker) -> None:
    assert remote.scores("q", ["four", "fivef", "x"], deadline_s=10) == [1 / 4, 1 / 5, 1.0]
    assert provider.received == [{"model": "rerank-1", "query": "q", "documents": ["four", "fivef", "x"], "top_n": 3}]
    assert provider.keys == ["Bearer secret"]


@pytest.mark.parametrize("act", [*WRONG, "flood", "500", "503"])
def test_a_wrong_answer_was_worked_on_and_is_not_used(provider: Provider, remote: RemoteReranker, act: str) -> None:
    provider.act = act
    with pytest.raises(RerankFailed) as failed:
        remote.scores("q", ["one", "two"], deadline_s=10)
    assert failed.value.began


@pytest.mark.parametrize("act", ["401", "403", "404", "422", "429"])
def test_a_refusal_costs_nothing(provider: Provider, remote: RemoteReranker, act: str) -> None:
    provider.act = act
    with pytest.raises(RerankFailed) as failed:
        remote.scores("q", ["one", "two"], deadline_s=10)
    assert not failed.value.began


def test_a_provider_that_keeps_failing_is_left_alone(provider: Provider, remote: RemoteReranker) -> None:
    provider.act = "500"
    for _ in range(20):
        with pytest.raises(RerankFailed):
            remote.scores("q", ["one"], deadline_s=10)
    assert len(provider.received) == 8


# --- as a step of a question


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    database = Database(f"sqlite:///{tmp_path / 'carrel.db'}")
    world = World(database, MemoryStore(), tmp_path)
    world.fill()
    yield world
    world.close()
    database.close()


def ask(world: World, name: str, reranking: Reranking | None, *, charge_id: str = "ask", rerank: bool | None = None) -> Answer:
    world.retriever.reranking = reranking
    meter = world.ledger.for_tenant(world.contexts[name], "query")
    question = Question("oak pine shelf", ("default",), top_k=4, rerank=rerank)
    return world.retriever.for_tenant(world.contexts[name], meter).query(question, charge_id=charge_id)


def money(world: World, name: str) -> tuple[int, int]:
    usage = UsageReader(world.database, system_clock).of(world.contexts[name])
    return usage.used, usage.held


def test_the_best_are_reordered_and_their_tokens_charged_once(world: World, provider: Provider, remote: RemoteReranker) -> None:
    one, two = TENANTS
    reranking = Reranking(remote, 10.0, 30)
    others = money(world, two)
    before = money(world, one)[0]
    answer = ask(world, one, reranking)
    [request] = provider.received
    scores = [passage.rerank_score for passage in answer.passages]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == max(1 / len(text) for text in request["documents"])
    assert len(request["documents"]) > 4
    assert answer.rerank_tokens == remote.count_tokens("oak pine shelf", request["documents"])
    assert money(world, one) == (before + answer.charged + answer.rerank_tokens, 0)
    again = ask(world, one, reranking)
    assert [passage.id for passage in again.passages] == [passage.id for passage in answer.passages]
    assert money(world, one)[0] == before + answer.charged + answer.rerank_tokens
    assert money(world, two) == others
    assert not any(text_of(two, 2, 4)[:20] in document for document in request["documents"])


@pytest.mark.parametrize(("act", "charged"), [("hang", True), ("500", True), ("429", False)])
def test_a_failing_reranker_leaves_the_order_as_it_was(
    world: World, provider: Provider, remote: RemoteReranker, act: str, charged: bool
) -> None:
    plain, provider.act = ask(world, TENANTS[0], None, charge_id="plain"), act
    before = money(world, TENANTS[0])[0]
    answer = ask(world, TENANTS[0], Reranking(remote, 0.2 if act == "hang" else 10.0, 30))
    assert answer.degraded == ("rerank",)
    assert [passage.id for passage in answer.passages] == [passage.id for passage in plain.passages]
    assert money(world, TENANTS[0]) == (before + answer.charged + answer.rerank_tokens, 0)
    assert bool(answer.rerank_tokens) is charged


def test_a_budget_that_does_not_cover_it_answers_without(
    world: World, provider: Provider, remote: RemoteReranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = TENANTS[0]
    used = money(world, name)[0]
    [cost] = world.embedding.count_tokens(["oak pine shelf"])
    world.registry.update(world.contexts[name].tenant_id, {"monthly_tokens": 2 * (used + cost)})
    monkeypatch.setattr(remote, "count_tokens", lambda *_: used + cost + 1)
    answer = ask(world, name, Reranking(remote, 10.0, 30))
    assert (answer.degraded, answer.rerank_tokens, provider.received) == (("rerank",), 0, [])
    assert money(world, name) == (used + cost, 0)


def test_near_the_end_of_the_budget_it_is_left_out(world: World, provider: Provider, remote: RemoteReranker) -> None:
    name, tight = TENANTS[0], Reranking(remote, 10.0, 30)
    used = money(world, name)[0]
    world.registry.update(world.contexts[name].tenant_id, {"monthly_tokens": used * 10 // 9})
    answers = [ask(world, name, tight, charge_id="charged"), ask(world, name, tight, charge_id="known")]
    assert [(answer.degraded, answer.rerank_tokens) for answer in answers] == [(("budget",), 0)] * 2
    assert [passage.id for passage in answers[0].passages] == [passage.id for passage in answers[1].passages]
    assert ask(world, name, tight, rerank=False).degraded == ()  # nothing was left out that was wanted
    assert provider.received == []
    assert ask(world, TENANTS[1], tight).degraded == ()


def test_profile_and_request_say_whether_it_is_done(world: World, provider: Provider, remote: RemoteReranker) -> None:
    name, reranking = TENANTS[0], Reranking(remote, 10.0, 30)
    collections = world.retriever.collections.for_tenant(world.contexts[name])
    ask(world, name, reranking, rerank=False)
    collections.update("default", profile="economy")
    ask(world, name, reranking)
    assert provider.received == []
    assert ask(world, name, reranking, rerank=True).passages[0].rerank_score is not None
    collections.update("default", profile="standard")
    assert ask(world, name, reranking, charge_id="second").passages[0].rerank_score is not None
    assert ask(world, TENANTS[1], replace(reranking, candidates=2)).degraded == ()


def test_a_real_model_reranks_a_question(world: World, local: LocalReranker) -> None:
    for name in TENANTS:
        answer = ask(world, name, Reranking(local, 60.0, 30))
        assert answer.degraded == ()
        assert answer.rerank_tokens > 0
        assert {passage.id for passage in answer.passages} <= set(world.vectors(name).ids())
