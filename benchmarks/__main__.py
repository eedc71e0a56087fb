"""Command line of the benchmarks: prints a table and writes JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import quality as quality_benchmark
from benchmarks.report import Report

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Measure Carrel through its own path.")
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")]


@app.callback()
def main() -> None:
    """Each command is one benchmark."""


@app.command()
def quality(
    dataset: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder: corpus.jsonl, queries.jsonl, qrels.tsv.")
    ],
    json_file: JsonFile = None,
) -> None:
    """nDCG@10 and recall over a judged set. A `group` in the set becomes a tenant."""
    finish(quality_benchmark.run(dataset), json_file)


def finish(report: Report, json_file: Path | None) -> None:
    print(report.table())
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_dict(), indent=2) + "\n")


if __name__ == "__main__":
    app()
