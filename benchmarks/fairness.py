"""A tenant that floods the queue beside two that bring a few documents: how long these take against their fair share of the
machine, and what taking turns costs a tenant that is alone."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count
from pathlib import Path

from api.processes.local import local_service
from benchmarks.corpus import Text, Writer
from benchmarks.harness import BenchmarkError, alternate, in_parallel, median, pairwise, shown
from benchmarks.report import Figures, Report
from benchmarks.way_in import Plan as Questions
from benchmarks.way_in import run as asked
from benchmarks.workload import IN_FLIGHT, SERVICE, tokenizer_of
from carrel_client import Carrel, Jobs, Submitted

SUBMITTING = 4  #: threads that bring a tenant's documents
SMALL = ("b", "c")  #: tenants that bring little
ACTIVE = 1 + len(SMALL)
WARM_UP = (10, 20)  #: documents and chunks of each; the model compiles a kernel for each shape that it meets first
WRITTEN = 20  #: documents that a flood is made of
DRAIN_S, LOOK_S = 120.0, 0.2


@dataclass(frozen=True)
class Plan:
    flood: int  #: documents
    small: int  #: documents of each small tenant
    chunks: int  #: of a document
    alone: int  #: documents of a tenant that has the service for itself
    repeats: int
    runtime: str
    seed: int
    queries: int = 100  #: of one side in one round


@dataclass(frozen=True)
class Waited:
    """Seconds until a small tenant's documents were found."""

    alone_s: float
    flooded_s: float

    @property
    def over_share(self) -> float:
        """1: as long as with an equal share of the machine."""
        return self.flooded_s / (ACTIVE * self.alone_s)


@dataclass
class Side:
    """A service, a client for each tenant, and documents that it has not seen."""

    plan: Plan
    writer: Writer
    clients: dict[str, Carrel]
    brought: Iterator[int] = field(default_factory=count)

    def documents(self, number: int, chunks: int | None = None) -> list[Text]:
        return self.writer.documents(number, chunks or self.plan.chunks, prefix=f"load-{next(self.brought)}")

    def flood(self) -> list[Text]:
        """Written out of a few, because one takes 50 ms: each paragraph gets a number, so that no text is known."""
        few = self.documents(WRITTEN)
        numbered = (few[number % WRITTEN] for number in range(self.plan.flood))
        return [
            replace(text, name=f"flood-{next(self.brought)}", text=text.text.replace("\n\n", f"\n\n{next(self.brought)} "))
            for text in numbered
        ]

    def seconds(self, tenant: str, documents: Sequence[Text]) -> float:
        """From the first submission until the last job's end, by the service's own clock: a client sees it later."""
        jobs = [job for each in self.submit(tenant, documents) if (job := each.wait()) is not None]
        ends = [datetime.fromisoformat(job.finished_at or job.updated_at) for job in jobs]
        return (max(ends) - min(datetime.fromisoformat(job.created_at) for job in jobs)).total_seconds()

    def submit(self, tenant: str, documents: Sequence[Text]) -> list[Submitted]:
        create = self.clients[tenant].documents.create
        return in_parallel(
            lambda text: create(text=text.text, title=text.title, external_id=text.name),
            documents,
            threads=SUBMITTING,
            label="submitting",
        )

    def chunks_per_s(self, _number: int) -> float:
        documents = self.documents(self.plan.alone)
        return self.plan.alone * self.plan.chunks / self.seconds("a", documents)


def run(plan: Plan) -> Report:
    tokenizer = tokenizer_of(plan.runtime)
    with ExitStack() as stack:
        sides = {name: _side(stack, plan, tokenizer, name) for name in ("on", "off")}
        rounds = [flooded(sides["on"]) for _ in shown(range(plan.repeats), "flooded", plan.repeats)]
        speeds = alternate({name: side.chunks_per_s for name, side in sides.items()}, plan.repeats)
    way_in = Questions(plan.queries, plan.repeats, plan.runtime, plan.seed)
    return Report("fairness", figures(plan, rounds, speeds) | asked(way_in))


def _side(stack: ExitStack, plan: Plan, tokenizer: str, fairness: str) -> Side:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="carrel-fairness-"))
    settings = {**SERVICE, "embedding_runtime": plan.runtime, "worker_fairness": fairness}
    service = stack.enter_context(local_service(Path(folder), **settings))
    clients = {tenant: stack.enter_context(service.tenant(tenant)) for tenant in ("a", *SMALL)}
    side = Side(plan, Writer(plan.seed, tokenizer), clients)
    side.seconds("a", side.documents(*WARM_UP))
    return side


def flooded(side: Side) -> dict[str, Waited]:
    """How long the small tenants' documents take alone, and beside a flood that was there before and is not over after."""
    plan = side.plan
    alone = {tenant: side.seconds(tenant, side.documents(plan.small)) for tenant in SMALL}
    loads = {tenant: side.documents(plan.small) for tenant in SMALL}
    flood = [each.job.id for each in side.submit("a", side.flood()) if each.job is not None]
    jobs = side.clients["a"].jobs
    try:
        jobs.wait(flood[0])
        together = in_parallel(
            lambda tenant: side.seconds(tenant, loads[tenant]), SMALL, threads=len(SMALL), label="beside a flood"
        )
        if all(jobs.get(job).finished for job in flood[-IN_FLIGHT:]):
            raise BenchmarkError("The flood was over before the small tenants were done: it needs more documents.")
    finally:
        _drain(jobs, flood)
    return {tenant: Waited(alone[tenant], seconds) for tenant, seconds in zip(SMALL, together, strict=True)}


def _drain(jobs: Jobs, flood: Sequence[str]) -> None:
    """Cancel what waits, and wait until nothing of it is left to do."""
    in_parallel(jobs.cancel, flood[::-1], threads=SUBMITTING, label="cancelling")
    deadline = time.monotonic() + DRAIN_S
    for job in flood:
        _await_end(jobs, job, deadline)


def _await_end(jobs: Jobs, job: str, deadline: float) -> None:
    while jobs.get(job).stage != "done":
        if time.monotonic() > deadline:
            raise BenchmarkError(f"The flood was not gone {DRAIN_S:g} s after it was cancelled.")
        time.sleep(LOOK_S)


def figures(plan: Plan, rounds: Sequence[Mapping[str, Waited]], speeds: Mapping[str, Sequence[float]]) -> Figures:
    """Of a round the slower small tenant counts."""
    return {
        "small_tenants_over_fair_share": median(max(one.over_share for one in each.values()) for each in rounds),
        "small_tenant_alone_s": median(one.alone_s for each in rounds for one in each.values()),
        "small_tenant_flooded_s": median(one.flooded_s for each in rounds for one in each.values()),
        "alone_over_ungated": pairwise(speeds["on"], speeds["off"]),
        "alone_chunks_per_s": median(speeds["on"]),
        "ungated_chunks_per_s": median(speeds["off"]),
        "flood_documents": plan.flood,
        "small_documents": plan.small,
        "chunks_per_document": plan.chunks,
    }
