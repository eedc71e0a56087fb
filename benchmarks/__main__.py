"""Command line of the benchmarks: prints a table and writes JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import concurrency as concurrency_benchmark
from benchmarks import embed as embed_benchmark
from benchmarks import fairness as fairness_benchmark
from benchmarks import ingest as ingest_benchmark
from benchmarks import memory as memory_benchmark
from benchmarks import quality as quality_benchmark
from benchmarks import query as query_benchmark
from benchmarks import reingest as reingest_benchmark
from benchmarks import startup as startup_benchmark
from benchmarks import tenants as tenants_benchmark
from benchmarks.report import Report

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Measure Carrel through its own path."
)
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")]
Repeats = Annotated[int, typer.Option(min=1, help="Rounds; the figures are their medians.")]
Runtime = Annotated[str, typer.Option(help="What embeds: as in CARREL_EMBEDDING_RUNTIME. `hash` needs no model.")]
Seed = Annotated[int, typer.Option(help="Of the documents and questions: the same number gives the same ones.")]
MODEL = "auto"


@app.callback()
def main() -> None:
    """Each command is one benchmark."""


@app.command()
def embed(
    chunks: Annotated[int, typer.Option(min=10, help="Chunks that each side embeds in a round.")] = 400,
    repeats: Repeats = 3,
    runtime: Runtime = MODEL,
    seed: Seed = 1,
    json_file: JsonFile = None,
) -> None:
    """Chunks a second beside sentence-transformers and fastembed, and closeness to fp32."""
    if runtime == "hash":
        raise typer.BadParameter("hash embeds nothing that could be compared", param_hint="--runtime")
    finish(embed_benchmark.run(chunks, repeats, runtime, seed), json_file)


@app.command()
def ingest(
    documents: Annotated[int, typer.Option(min=1, help="Documents of a round.")] = 30,
    chunks_per_document: Annotated[int, typer.Option(min=1)] = 20,
    small_documents: Annotated[int, typer.Option(min=1, help="Documents of one chunk, in rounds of their own.")] = 100,
    repeats: Repeats = 3,
    runtime: Runtime = MODEL,
    seed: Seed = 1,
    json_file: JsonFile = None,
) -> None:
    """Chunks a second from submission to the end of the jobs, beside the same chunks embedded with nothing around."""
    sizes = ingest_benchmark.Sizes(documents, chunks_per_document, small_documents)
    finish(ingest_benchmark.run(sizes, repeats, runtime, seed), json_file)


@app.command()
def query(
    chunks: Annotated[int, typer.Option(min=1, help="Chunks that the tenant has.")] = 10_000,
    queries: Annotated[int, typer.Option(min=1, help="Questions, one after the other.")] = 500,
    runtime: Runtime = MODEL,
    seed: Seed = 1,
    json_file: JsonFile = None,
) -> None:
    """One client's waiting time, what of it is outside the model, and the engine's memory."""
    finish(query_benchmark.run(chunks, queries, runtime, seed), json_file)


@app.command()
def tenants(
    tenants: Annotated[int, typer.Option(min=2, help="Tenants on the shared service.")] = 1_000,
    chunks: Annotated[int, typer.Option(min=2, help="Chunks of all tenants together.")] = 100_000,
    queries: Annotated[int, typer.Option(min=1, help="Questions of one side in one round.")] = 200,
    repeats: Repeats = 3,
    runtime: Runtime = "hash",
    seed: Seed = 1,
    json_file: JsonFile = None,
) -> None:
    """What other tenants cost one of them, beside a service with one tenant, LanceDB and Chroma; and leaks."""
    plan = tenants_benchmark.Plan(tenants, max(1, chunks // tenants), queries, repeats, runtime, seed)
    finish(tenants_benchmark.run(plan), json_file)


@app.command()
def concurrency(
    queries: Annotated[int, typer.Option(min=20, help="Questions of one side in one round.")] = 400,
    clients: Annotated[int, typer.Option(min=2, help="Clients that ask at once.")] = 8,
    repeats: Repeats = 3,
    runtime: Runtime = MODEL,
    seed: Seed = 1,
    json_file: JsonFile = None,
) -> None:
    """Questions alone, many at a time, and during bulk ingest, beside sentence-transformers called directly."""
    plan = concurrency_benchmark.Plan(queries, clients, repeats, runtime, seed)
    finish(concurrency_benchmark.run(plan), json_file)


@app.command()
def fairness(
    flood: Annotated[int, typer.Option(min=20, help="Documents of the tenant that floods the queue.")] = 500,
    small: Annotated[int, typer.Option(min=1, help="Documents of each of the two others.")] = 5,
    chunks_per_document: Annotated[int, typer.Option(min=1)] = 20,
    alone: Annotated[int, typer.Option(min=1, help="Documents of a tenant that has the service for itself.")] = 40,
    queries: Annotated[int, typer.Option(min=20, help="Questions of one side in one round, of the limits' figures.")] = 100,
    repeats: Repeats = 3,
    runtime: Runtime = MODEL,
    seed: Seed = 1,
    json_file: JsonFile = None,
) -> None:
    """A tenant's documents and questions beside another's flood; what taking turns and the way in cost one alone."""
    plan = fairness_benchmark.Plan(flood, small, chunks_per_document, alone, repeats, runtime, seed, queries)
    finish(fairness_benchmark.run(plan), json_file)


@app.command()
def startup(repeats: Repeats = 3, runtime: Runtime = MODEL, json_file: JsonFile = None) -> None:
    """Until ready, until the first document is found, until a fresh process has a vector, and memory when idle."""
    finish(startup_benchmark.run(repeats, runtime), json_file)


@app.command()
def quality(
    dataset: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder: corpus.jsonl, queries.jsonl, qrels.tsv.")
    ],
    runtime: Runtime = MODEL,
    precision: Annotated[str, typer.Option(help="As in CARREL_EMBEDDING_PRECISION.")] = "auto",
    json_file: JsonFile = None,
) -> None:
    """nDCG@10 and recall over a judged set. A `group` in the set becomes a tenant."""
    finish(quality_benchmark.run(dataset, runtime, precision), json_file)


@app.command()
def memory(
    dataset: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder: corpus.jsonl with times, queries.jsonl, qrels.tsv.")
    ],
    large: Annotated[int, typer.Option(min=0, help="Turns of a made-up session, for the time of a recall; 0: none.")] = 0,
    runtime: Runtime = MODEL,
    json_file: JsonFile = None,
) -> None:
    """Recall of turns within judged conversations, each said again as one session; and how long it takes."""
    finish(memory_benchmark.run(dataset, runtime, large), json_file)


@app.command()
def reingest(
    chunks: Annotated[int, typer.Option(min=1, help="Chunks of the document that is brought twice.")] = 640,
    repeats: Repeats = 3,
    runtime: Runtime = MODEL,
    seed: Seed = 1,
    json_file: JsonFile = None,
) -> None:
    """What unchanged text costs when it comes again, and how much faster its embedding stage is."""
    finish(reingest_benchmark.run(chunks, repeats, runtime, seed), json_file)


def finish(report: Report, json_file: Path | None) -> None:
    print(report.table())
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_dict(), indent=2) + "\n")


if __name__ == "__main__":
    app()
