"""Judged questions asked of a running service over its API: for `carrel eval`, `carrel tune` and the benchmark of quality."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from carrel_client import Carrel, Collection, ConflictError
from rag.evaluation.questions import Judged, Text

ASKED, BROUGHT = 8, 16  # at once
TOP_K = 100
MAX_TITLE = 500
PAUSES_S = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
Told = Callable[[], object]  #: of each that is done
T = TypeVar("T")
R = TypeVar("R")


def each(act: Callable[[T], R], items: Iterable[T], parallel: int) -> Iterator[R]:
    """Results in the order of the items, of which no more are taken than are under way."""
    with ThreadPoolExecutor(parallel) as pool:
        under_way: deque[Future[R]] = deque()
        try:
            for item in items:
                under_way.append(pool.submit(act, item))
                if len(under_way) == 2 * parallel:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


def bring(place: Callable[[str], tuple[Carrel, str]], documents: Iterable[Text], told: Told = lambda: None) -> int:
    """Ingest them and wait; how many chunks they became. `place`: a group's client and collection."""

    def one(document: Text) -> int:
        client, collection = place(document.group)
        text = document.text.strip() or document.title
        if not text.strip():
            return 0
        title, external_id = document.title[:MAX_TITLE], document.id
        job = client.documents.create(text=text, title=title, external_id=external_id, collection=collection).wait()
        return job.chunks_total if job else 0

    chunks = 0
    for count in each(one, documents, BROUGHT):
        chunks += count
        told()
    return chunks


def ask(
    place: Callable[[str], tuple[Carrel, str]],
    questions: Sequence[Judged],
    options: Mapping[str, Any],
    told: Told = lambda: None,
    *,
    top_k: int = TOP_K,
) -> dict[str, list[str]]:
    """The documents found for each question, best first, by their best passages."""

    def one(question: Judged) -> list[str]:
        client, collection = place(question.group)
        passages = client.query(question.text, top_k=top_k, collections=[collection], **options).passages
        return list(dict.fromkeys(passage.external_id for passage in passages))

    rankings = {}
    for question, ranked in zip(questions, each(one, questions, ASKED), strict=True):
        rankings[question.id] = ranked
        told()
    return rankings


def remove_collection(client: Carrel, name: str, told: Told = lambda: None) -> Collection:
    """With all its documents; begun again after a kill, it goes on."""

    def one(document_id: str) -> None:
        job = client.documents.delete(document_id)
        client.jobs.wait(job.id)

    for _ in each(one, (document.id for document in client.documents.list(collection=name)), BROUGHT):
        told()
    for pause in PAUSES_S:
        try:
            return client.collections.delete(name)
        except ConflictError:  # a job is taking its last step
            time.sleep(pause)
    return client.collections.delete(name)
