"""Questions alone, eight at a time, and while documents are embedded in bulk: what many callers of one model wait for."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from api.processes.local import local_service
from benchmarks.bare import BareEmbedding
from benchmarks.corpus import Text, Writer
from benchmarks.embedders import SentenceTransformersDefault
from benchmarks.harness import BenchmarkError, Side, alternate, median, pairwise, percentile, shown
from benchmarks.report import Figures, Peer, Report
from benchmarks.workload import SERVICE, ask, bring, model_folder, tokenizer_of
from carrel_client import Carrel

WARM_UP = 30
BULK_DOCUMENTS, BULK_DOCUMENT_CHUNKS = 40, 40  #: of a round; more than can be embedded while the questions are asked
Ask = Callable[[str], object]


@dataclass(frozen=True)
class Plan:
    queries: int
    clients: int
    repeats: int
    runtime: str
    seed: int


@dataclass(frozen=True)
class Turn:
    """One side's answers in one round."""

    per_s: float
    waits_ms: Sequence[float]

    def ms(self, percent: float) -> float:
        return percentile(self.waits_ms, percent)


def run(plan: Plan) -> Report:
    tokenizer = tokenizer_of(plan.runtime)
    peer = SentenceTransformersDefault(model_folder())
    with BareEmbedding(plan.runtime) as carrel:
        sides: dict[str, Ask] = {"carrel": carrel.embed_query, "sentence_transformers": lambda text: peer.embed([text])}
        figures = _against(sides, plan, Writer(plan.seed, tokenizer))
    figures |= _under_bulk(plan, tokenizer)
    peers: dict[str, Peer] = {"sentence_transformers": {"how": "fp32, encode() of one text, called by each client directly"}}
    return Report("concurrency", figures | {"queries": plan.queries, "clients": plan.clients, "repeats": plan.repeats}, peers)


def _against(sides: Mapping[str, Ask], plan: Plan, writer: Writer) -> Figures:
    for side in sides.values():
        turn(side, writer.questions(WARM_UP), 1)
        turn(side, writer.questions(WARM_UP), plan.clients)

    def of(side: Ask, clients: int) -> Side[Turn]:
        return lambda _round: turn(side, writer.questions(plan.queries), clients)

    one = alternate({name: of(side, 1) for name, side in sides.items()}, plan.repeats)
    many = alternate({name: of(side, plan.clients) for name, side in sides.items()}, plan.repeats)
    ours, theirs = many["carrel"], many["sentence_transformers"]
    return {
        "one_query_p50_ms": median(each.ms(50) for each in one["carrel"]),
        "one_query_p50_fraction_of_sentence_transformers": _paired(one, 50),
        "queries_per_s": median(each.per_s for each in ours),
        "throughput_ratio_vs_sentence_transformers": pairwise([e.per_s for e in ours], [e.per_s for e in theirs]),
        "p99_ms": median(each.ms(99) for each in ours),
        "p99_fraction_of_sentence_transformers": _paired(many, 99),
    }


def _paired(turns: Mapping[str, Sequence[Turn]], percent: float) -> float:
    """Our wait over theirs, by round: below 1 we are faster."""
    return pairwise(*([each.ms(percent) for each in turns[name]] for name in ("carrel", "sentence_transformers")))


def turn(ask_one: Ask, questions: Sequence[str], clients: int) -> Turn:
    """Each client asks its share one after the other, without a pause."""

    def wait_ms(question: str) -> float:
        began = time.perf_counter()
        ask_one(question)
        return (time.perf_counter() - began) * 1000

    def share(number: int) -> list[float]:
        return [wait_ms(question) for question in questions[number::clients]]

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        waits = [wait for part in pool.map(share, range(clients)) for wait in part]
    return Turn(len(questions) / (time.perf_counter() - began), waits)


def _under_bulk(plan: Plan, tokenizer: str) -> Figures:
    """One client's questions to a service, its settings the defaults, while its worker has more documents than it can do."""
    writer = Writer(plan.seed + 1, tokenizer)
    polite = {**SERVICE, "worker_scheduling": "idle", "embedding_runtime": plan.runtime}
    with tempfile.TemporaryDirectory(prefix="carrel-concurrency-") as data, local_service(Path(data), **polite) as service:
        with service.tenant("one") as client, service.tenant("bulk") as bulk:
            bring(client, writer.document("first", BULK_DOCUMENT_CHUNKS))
            for question in writer.questions(WARM_UP):
                ask(client, question)
            ratios = [_round(plan, writer, client, bulk) for _ in shown(range(plan.repeats), "under bulk", plan.repeats)]
    return {
        "query_p95_ms": median(quiet for quiet, _ in ratios),
        "query_p95_ms_under_bulk": median(busy for _, busy in ratios),
        "query_p95_ratio_under_bulk": median(busy / quiet for quiet, busy in ratios),
    }


def _round(plan: Plan, writer: Writer, client: Carrel, bulk: Carrel) -> tuple[float, float]:
    questions = [writer.questions(plan.queries) for _ in range(2)]
    documents = writer.documents(BULK_DOCUMENTS, BULK_DOCUMENT_CHUNKS, prefix=f"bulk-{time.monotonic_ns()}")

    def p95(number: int) -> float:
        return percentile([ask(client, question).wall_ms for question in questions[number]], 95)

    quiet = p95(0)
    with _flood(bulk, documents):
        return quiet, p95(1)


@contextmanager
def _flood(client: Carrel, documents: Sequence[Text]) -> Iterator[None]:
    """The documents are in the queue before, and some are left after. Nobody follows their jobs meanwhile: the machine's other
    work is the worker's. Raises BenchmarkError if the worker ran out of it.
    """
    jobs = [client.documents.create(text=one.text, title=one.title, external_id=one.name) for one in documents]
    try:
        yield
        working = any(each.job and not client.jobs.get(each.job.id).finished for each in reversed(jobs))
    finally:
        for job in jobs:
            job.wait()
    if not working:
        raise BenchmarkError("The worker had nothing left to embed: some questions were asked of a quiet service.")
