"""Documents through HTTP until their jobs have succeeded, beside the same chunks embedded by the same runtime with nothing
around it: what is lost on the way is what the service costs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from api.processes.local import local_service
from benchmarks.bare import BareEmbedding
from benchmarks.corpus import Text, Writer, embedded_texts
from benchmarks.harness import BenchmarkError, Side, alternate, in_parallel, median, pairwise
from benchmarks.report import Figures, Report
from benchmarks.workload import SERVICE, tokenizer_of
from carrel_client import Carrel, Submitted

SUBMITTING = 4  #: threads that bring documents; the queue then holds all of them
WARM_UP = (10, 20)  #: documents and chunks of each; the model compiles a kernel for each shape that it meets first


@dataclass(frozen=True)
class Load:
    """What one round brings. Every round has documents of its own, or the cache would answer."""

    documents: list[Text]
    texts: list[str]  #: what the model reads of them


@dataclass(frozen=True)
class Sizes:
    documents: int
    chunks_per_document: int
    small_documents: int


def run(sizes: Sizes, repeats: int, runtime: str, seed: int) -> Report:
    tokenizer = tokenizer_of(runtime)
    writer = Writer(seed, tokenizer)

    def loads(count: int, chunks: int, prefix: str) -> list[Load]:
        rounds = (writer.documents(count, chunks, prefix=f"{prefix}-{number}") for number in range(repeats))
        return [Load(documents, embedded_texts(documents, tokenizer)) for documents in rounds]

    large = loads(sizes.documents, sizes.chunks_per_document, "large")
    small = loads(sizes.small_documents, 1, "small")
    with tempfile.TemporaryDirectory(prefix="carrel-ingest-") as data, BareEmbedding(runtime) as bare:
        with local_service(Path(data), **SERVICE, embedding_runtime=runtime) as service, service.tenant("one") as client:
            warm_up = writer.documents(*WARM_UP, prefix="warm-up")
            texts = embedded_texts(warm_up, tokenizer)
            through_service(client, Load(warm_up, texts))
            bare.embed(texts)
            figures = _compare(client, bare, large, "") | _compare(client, bare, small, "small_")
    return Report("ingest", {**figures, "documents": sizes.documents, "small_documents": sizes.small_documents})


def _compare(client: Carrel, bare: BareEmbedding, loads: Sequence[Load], prefix: str) -> Figures:
    sides: Mapping[str, Side[float]] = {
        "service": lambda number: through_service(client, loads[number]),
        "bare": lambda number: bare.chunks_per_s(loads[number].texts),
    }
    speeds = alternate(sides, len(loads))
    return {
        f"{prefix}chunks_per_s": median(speeds["service"]),
        f"{prefix}bare_chunks_per_s": median(speeds["bare"]),
        f"{prefix}fraction_of_bare_embedding": pairwise(speeds["service"], speeds["bare"]),
    }


def through_service(client: Carrel, load: Load) -> float:
    """Chunks a second from the first submission until the last job has succeeded."""
    began = time.perf_counter()
    submitted = in_parallel(partial(_submit, client), load.documents, threads=SUBMITTING, label="submitting")
    jobs = [each.wait() for each in submitted]
    seconds = time.perf_counter() - began
    chunks = sum(job.chunks_total for job in jobs if job is not None)
    if chunks != len(load.texts):
        raise BenchmarkError(f"The service made {chunks} chunks of these documents, the bare side has {len(load.texts)}.")
    return chunks / seconds


def _submit(client: Carrel, document: Text) -> Submitted:
    return client.documents.create(text=document.text, title=document.title, external_id=document.name)
