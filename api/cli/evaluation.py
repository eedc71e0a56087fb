"""`carrel eval`: how well judged questions are answered, and whether another profile or other options do it better."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from api.cli.common import AsJson, TenantOption, notes, out, print_json, table, tenant_client
from api.evaluating import ask, bring, remove_collection
from carrel_client import Carrel, NotFoundError
from config.errors import InvalidInput
from config.settings import Settings
from rag.evaluation.metrics import FIGURES
from rag.evaluation.questions import Dataset, Judged, read_dataset, read_questions, relevant_of

if TYPE_CHECKING:
    from rag.evaluation.comparison import Evaluation

Worst = Annotated[int, typer.Option("--worst", min=0, max=1000, help="Show so many questions of the worst losses.")]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two ways that are compared."""

    name: str
    options: Mapping[str, Any]  #: of the query
    profile: str | None = None


def register(app: typer.Typer) -> None:
    app.command("eval")(run)


def run(
    dataset: Annotated[
        Path | None,
        typer.Option("--dataset", "-d", exists=True, file_okay=False, help="Folder: corpus.jsonl, queries.jsonl, qrels.tsv."),
    ] = None,
    questions: Annotated[
        str | None, typer.Option("--questions", "-q", help="File of {id, text, relevant} lines, or a stored set's name.")
    ] = None,
    collection: Annotated[str, typer.Option("--collection", "-c", help="Where the questions are asked.")] = "default",
    profiles: Annotated[str | None, typer.Option("--profiles", help="One, or two to compare, as standard,precise.")] = None,
    options: Annotated[
        list[str] | None, typer.Option("--options", "-o", help="A query's fields as JSON; twice to compare.")
    ] = None,
    worst: Worst = 10,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Ask judged questions and score the answers: nDCG@10, recall@5, 10 and 100, MRR@10.

    With two profiles or two sets of options, side by side with a paired randomisation test. A data set is brought into
    temporary collections, which are removed afterwards.

    Example: carrel eval --questions ours.jsonl -o '{}' -o '{"diversity": {"mmr": 0.7}}' --tenant acme
    """
    if (dataset is None) == (questions is None):
        raise InvalidInput("Give either --dataset or --questions.", field="dataset")
    if profiles is not None and dataset is None:
        raise InvalidInput("--profiles needs --dataset: documents keep the profile under which they were brought.")
    sides = _sides(options or [], profiles)
    with tenant_client(Settings(), tenant, ["query", "ingest"]) as client, bars(quiet=as_json) as progress:
        if dataset is not None:
            judged = read_dataset(dataset)
            asked, rankings = judged.questions, _of_dataset(client, judged, sides, progress)
        else:
            asked = questions_of(client, questions or "", collection)
            rankings = [_asked(client, asked, {"": collection}, side, progress) for side in sides]
    from rag.evaluation.comparison import evaluate

    result = evaluate(asked, rankings, worst=worst)
    if as_json:
        print_json({**asdict(result), "sides": _named(sides, result)})
    else:
        _show(sides, result)


def _sides(options: list[str], profiles: str | None) -> list[Side]:
    try:
        given = [json.loads(each) for each in options] or [{}]
    except ValueError as error:
        raise InvalidInput(f"--options is no JSON: {error}", field="options") from error
    names = [None if profiles is None else name.strip() for name in (profiles or "").split(",")]
    if not all(isinstance(each, dict) and "top_k" not in each for each in given):
        raise InvalidInput("--options is an object of a query's fields, without `top_k`, which is 100.", field="options")
    count = max(len(given), len(names))
    if count > 2 or {len(given), len(names)} - {1, count}:
        raise InvalidInput("At most two sides can be compared.", field="options", limit=2)
    given, names = given * (count // len(given)), names * (count // len(names))
    return [Side(_name(name, each), each, name) for each, name in zip(given, names, strict=True)]


def _name(profile: str | None, options: Mapping[str, Any]) -> str:
    shown = json.dumps(options) if options else ""
    return " ".join(filter(None, (profile, shown))) or "as it is"


def questions_of(client: Carrel, named: str, collection: str) -> list[Judged]:
    """Of a file, else of a stored set; those that no document answers are left out."""
    if Path(named).is_file():
        return read_questions(Path(named))
    stored = client.question_sets.get(named, collection=collection).questions or []
    judged = [Judged(str(at), each["text"], relevant_of(each["relevant"])) for at, each in enumerate(stored, 1)]
    return [each for each in judged if each.relevant]


def _of_dataset(client: Carrel, dataset: Dataset, sides: list[Side], progress: Progress) -> list[dict[str, list[str]]]:
    """Sides with one profile share their collections."""
    made: dict[str | None, dict[str, str]] = {}
    with ExitStack() as stack:
        for side in sides:
            if side.profile not in made:
                made[side.profile] = stack.enter_context(_temporary(client, dataset, side.profile, progress))
        return [_asked(client, dataset.questions, made[side.profile], side, progress) for side in sides]


@contextmanager
def _temporary(client: Carrel, dataset: Dataset, profile: str | None, progress: Progress) -> Iterator[dict[str, str]]:
    """A collection for each group with its documents; removed at the end, whatever happens but a kill."""
    prefix = f"eval-{secrets.token_hex(4)}"
    names = {group: f"{prefix}-{number}" for number, group in enumerate(dataset.groups())}
    try:
        for name in names.values():
            client.collections.create(name=name, profile=profile)
        bar = progress.add_task(f"ingest {profile or ''}", total=None)
        bring(lambda group: (client, names[group]), dataset.documents(), lambda: progress.advance(bar))
        yield names
    finally:
        bar = progress.add_task("remove", total=None)
        for name in names.values():
            with suppress(NotFoundError):  # one that was not made any more, for the reason that is to be told
                remove_collection(client, name, lambda: progress.advance(bar))


def _asked(
    client: Carrel, questions: list[Judged], collections: Mapping[str, str], side: Side, progress: Progress
) -> dict[str, list[str]]:
    bar: TaskID = progress.add_task(f"ask {escape(side.name)}", total=len(questions))
    only = collections.get("")
    unknown = {question.group for question in questions} - collections.keys()
    if unknown and only is None:
        raise InvalidInput(f"queries.jsonl: there is no document of the group {sorted(unknown)[0]!r}.")
    return ask(
        lambda group: (client, collections.get(group, only or "")), questions, side.options, lambda: progress.advance(bar)
    )


def bars(*, quiet: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=notes, disable=quiet)


def _named(sides: list[Side], result: Evaluation) -> list[dict[str, Any]]:
    return [{**asdict(side), "figures": dict(figures)} for side, figures in zip(sides, result.sides, strict=True)]


def _show(sides: list[Side], result: Evaluation) -> None:
    compared = ["gain", "p"] if result.differences else []
    rows: list[list[object]] = []
    for name in FIGURES:
        difference = result.differences.get(name)
        chance = [f"{difference.gain:+.4f}", f"{difference.p:.4f}"] if difference else []
        rows.append([name, *(f"{side[name]:.4f}" for side in result.sides), *chance])
    for category, figures in result.categories.items():
        rows.append([f"ndcg10 {category}", *(f"{side['ndcg10']:.4f}" for side in figures), *[""] * len(compared)])
    table(["figure", *(side.name for side in sides), *compared], rows)
    out.print(f"{result.questions} questions.")
    if result.worst:
        out.print("\nWorst losses:" if compared else "\nWorst questions:")
    for loss in result.worst:
        ndcgs = " → ".join(f"{value:.2f}" for value in loss.ndcg10)
        wanted, found = (escape(", ".join(ids)) or "nothing" for ids in (loss.relevant, loss.found))
        out.print(f"  {ndcgs}  {escape(loss.text)}  [dim]relevant: {wanted}; found: {found}[/dim]")
